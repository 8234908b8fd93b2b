"""What did a sweep find? Writes results.csv, report.html and figures/ into its folder."""

from pathlib import Path

from convscape.base.terminal import say
from convscape.cli import new_parser, run_command, sweep_folder


def main() -> None:
    """Read the command line, write the report, print its table."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "folders", type=sweep_folder, nargs="+", help="outputs/sweeps/<sweep>, or latest"
    )
    parser.add_argument(
        "--out", type=Path, help="where to write (default: the first of these folders)"
    )
    parser.add_argument(
        "--rank",
        help="the metric to rank by, such as val/loss; max:<metric> or min:<metric> for one that "
        "your own module logs (default: the trainer.monitor of the runs)",
    )
    parser.add_argument(
        "--by",
        default="",
        help="the keys that define a configuration, such as model.kernel_size,model.stride; "
        "results are averaged over the others (default: all keys that were swept)",
    )
    parser.add_argument(
        "--latex",
        action="store_true",
        help="also write paper/: tables as LaTeX, Markdown and CSV, figures as PDF, the methods",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()

    def command() -> None:
        from convscape.base.documents import print_document
        from convscape.reports.document import as_document
        from convscape.reports.page import Report, write_report

        def written() -> Report:
            by = [key for key in arguments.by.split(",") if key]
            report = write_report(arguments.folders, arguments.rank, by, out=arguments.out)
            if arguments.latex:
                from convscape.reports.paper import write_paper

                report.lines.append(f"paper:   {write_paper(report)[-1]}")
            return report

        if arguments.json:
            print_document("report", lambda: as_document(written()))
        else:
            say(*written().lines)

    run_command(command)


if __name__ == "__main__":
    main()
