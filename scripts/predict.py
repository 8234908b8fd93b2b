"""What is on these pictures? The class and its probability, from a trained network."""

import json
import sys
from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command, run_folder, words_and_places


def main() -> None:
    """Read the command line, print the answers; exit code 2 if a picture cannot be read."""
    parser = new_parser(__doc__)
    parser.add_argument("run", type=run_folder, help="outputs/runs/<run>, or latest")
    parser.add_argument("images", type=Path, nargs="+", help="picture files, or folders of them")
    parser.add_argument("--top", type=int, default=3, help="classes to show for each (default 3)")
    parser.add_argument("--invert", action="store_true", help="swap dark and light first")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    words, places = words_and_places(parser)
    arguments = parser.parse_args(words)

    def command() -> int:
        from convscape.trained.load import load_run
        from convscape.trained.predict import find_picture_files, predictions

        paths, num_others = find_picture_files(arguments.images)
        run = load_run(
            arguments.run, arguments.allow_packages, other_data=arguments.other_data, **places
        )
        document, table, errors = predictions(run, paths, arguments.top, arguments.invert)
        say(json.dumps(document, indent=1) if arguments.json else table)
        if num_others:
            say(f"left out: {num_others:,} other files in these folders", file=sys.stderr)
        for error in errors:
            say(f"error: {error}", file=sys.stderr)
        return 2 if errors else 0

    run_command(command)


if __name__ == "__main__":
    main()
