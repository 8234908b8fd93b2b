"""Which of two runs is better? What differs, the paired test, and the images that flipped."""

import json
from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command


def main() -> None:
    """Read the command line, write the page, print its lines."""
    parser = new_parser(__doc__)
    words = "a run folder, or a folder whose runs differ in their seed alone"
    parser.add_argument("a", type=Path, help=words)
    parser.add_argument("b", type=Path, help=words)
    parser.add_argument("--out", type=Path, default=Path("outputs/compare"), help="for the page")
    parser.add_argument("--json", action="store_true", help="print JSON, and write no page")
    arguments = parser.parse_args()

    def command() -> None:
        from convscape.reports.comparison import compare, write_page

        found = compare(arguments.a, arguments.b)
        if arguments.json:
            say(json.dumps(found.as_dict(), indent=1))
            return
        notes = write_page(found, arguments.out)
        say(*found.lines(), *notes, f"page: {arguments.out / 'compare.html'}")

    run_command(command)


if __name__ == "__main__":
    main()
