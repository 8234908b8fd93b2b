"""What does a trained network do if its images are shifted, permuted or occluded, or it is pruned?

python scripts/probe.py outputs/runs/<run> shift max=8 step=2
python scripts/probe.py outputs/runs/<run> permute seed=1
python scripts/probe.py outputs/runs/<run> canvas clutter=4
python scripts/probe.py outputs/runs/<run> occlude size=6
python scripts/probe.py outputs/runs/<run> prune
"""

from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command, run_folder, words_and_places


def main() -> None:
    """Read the command line, print the numbers, write the figure."""
    parser = new_parser(__doc__)
    parser.add_argument("run", type=run_folder, help="outputs/runs/<run>, or latest")
    parser.add_argument("probe", help="shift, permute, canvas, occlude or prune")
    parser.add_argument("settings", nargs="*", help="of the probe, such as max=8 or --max 8")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--images", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--out", type=Path, help="the folder for the answer (default <run>/probes)")
    words, places = words_and_places(parser)
    arguments, others = parser.parse_known_args(words)

    def command() -> None:
        from convscape.trained.probe_figures import draw_probe
        from convscape.trained.probes import ask_and_keep, parse_settings

        settings = parse_settings([*arguments.settings, *others])
        name, run = arguments.probe, arguments.run
        folder = arguments.out or run / "probes"
        how = {"allow_packages": arguments.allow_packages, "places": places}
        how |= {"other_data": arguments.other_data, "out": arguments.out}
        answer = ask_and_keep(run, name, arguments.images, arguments.split, **how, **settings)
        asked = answer["asked"]
        say(f"{name} of {asked['num_images']:,} images of the {asked['split']} split")
        say(*(f"  {key:<22} {100 * value:6.2f} %" for key, value in answer["numbers"].items()))
        picture = draw_probe(name, {run.name: [answer]}, folder, arguments.out or run)
        say(f"{picture or folder / f'{name}.json'}")

    run_command(command)


if __name__ == "__main__":
    main()
