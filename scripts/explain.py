"""What does a network do? A page that runs it: draw, drop a picture, move it, click a map.

python scripts/explain.py outputs/runs/<run> --open      one file that works offline
python scripts/explain.py outputs/runs/<run> 17          start with image 17 of the test split
python scripts/explain.py outputs/runs/<run> my.png      start with your own picture
python scripts/explain.py outputs/runs/<run> <run>       the same drawing through two networks
"""

from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command, run_folder, words_and_places


def main() -> None:
    """Read the command line, write the page."""
    parser = new_parser(__doc__)
    parser.add_argument("run", type=run_folder, help="outputs/runs/<run>, or latest")
    parser.add_argument(
        "image", nargs="?", help="an index into the split, a picture file, or another run"
    )
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--invert", action="store_true", help="swap dark and light first")
    parser.add_argument("--out", type=Path, help="the page (default <run>/explain.html)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    words, places = words_and_places(parser)
    arguments = parser.parse_args(words)

    def command() -> None:
        from convscape.living.page import write_page
        from convscape.runs.latest import LATEST
        from convscape.trained.load import load_run

        run = load_run(
            arguments.run, arguments.allow_packages, other_data=arguments.other_data, **places
        )
        image, other = arguments.image, None
        if image is not None and (image == LATEST or (Path(image) / "config.yaml").is_file()):
            other = load_run(
                image, arguments.allow_packages, other_data=arguments.other_data, **places
            )
            image = None
        path = arguments.out or arguments.run / "explain.html"
        lines = write_page(run, path, image, arguments.split, arguments.invert, other)
        say(*lines)
        if arguments.open:
            import webbrowser

            webbrowser.open(path.resolve().as_uri())

    run_command(command)


if __name__ == "__main__":
    main()
