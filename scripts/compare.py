"""Which of two is better? What differs, the paired test, curves, and the images that flipped.

python scripts/compare.py outputs/runs/<run> outputs/runs/<run>     two runs, image by image
python scripts/compare.py outputs/sweeps/kernels:kernel_size=3 outputs/sweeps/kernels:kernel_size=5

After a colon come the values that select runs in a folder, down to the seed if needed.
"""

from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command, words_and_places


def main() -> None:
    """Read the command line, write the page, print its lines."""
    parser = new_parser(__doc__)
    words = "a run folder, or <folder>:<key>=<value>,... for runs that differ only in their seed"
    parser.add_argument("a", metavar="A", help=words)
    parser.add_argument("b", metavar="B", help="the other one")
    parser.add_argument(
        "--metric",
        default="test/acc",
        help="what to compare by: val/acc, test/loss, num_parameters ... (default: test/acc)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/compare"), help="for the page")
    parser.add_argument("--json", action="store_true", help="print JSON, and write no page")
    words, places = words_and_places(parser, may_be_other=False)
    arguments = parser.parse_args(words)

    def command() -> None:
        from convscape.base.documents import print_document
        from convscape.reports.comparison import Comparison, compare

        def compared() -> Comparison:
            return compare(arguments.a, arguments.b, arguments.metric)

        if arguments.json:
            print_document("compare", lambda: compared().as_dict())
            return
        found = compared()
        from convscape.trained.comparison_page import PAGE, write_page

        notes = write_page(found, arguments.out, arguments.allow_packages, places)
        say(*found.lines(), *notes, f"page: {arguments.out / PAGE}")

    run_command(command)


if __name__ == "__main__":
    main()
