"""What does a network do with one image? A page with every map and every number, to click on.

python scripts/explain.py outputs/runs/<run> 17          image 17 of the test split
python scripts/explain.py outputs/runs/<run> my.png      a picture of your own
"""

from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command, words_and_places


def main() -> None:
    """Read the command line, write the page."""
    parser = new_parser(__doc__)
    parser.add_argument("run", type=Path, help="a run folder, such as outputs/runs/<run>")
    parser.add_argument("image", help="an index into the split, or a picture file")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--invert", action="store_true", help="swap dark and light first")
    parser.add_argument("--out", type=Path, help="the page (default <run>/explain.html)")
    words, places = words_and_places(parser)
    arguments = parser.parse_args(words)

    def command() -> None:
        from convscape.trained.explain import choose_image, write_page
        from convscape.trained.load import load_run
        from convscape.trained.predict import warning_of_negatives

        run = load_run(
            arguments.run, arguments.allow_packages, other_data=arguments.other_data, **places
        )
        chosen = choose_image(run, arguments.image, arguments.split, arguments.invert)
        path = arguments.out or arguments.run / "explain.html"
        write_page(run, chosen.image, chosen.name, chosen.label, path)
        say(f"{path}: {chosen.name}; open it in a browser")
        if chosen.looks_inverted:
            say(warning_of_negatives(1, 1))

    run_command(command)


if __name__ == "__main__":
    main()
