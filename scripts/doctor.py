"""Why does it not learn? Measure images, network and first steps, and try remedies.

python scripts/doctor.py data=mnist optimizer.lr=1            the same arguments as for train
python scripts/doctor.py outputs/runs/<run>                   a run, or latest

It trains for seconds at a time and writes nothing. rules=[mypackage.rule] adds a rule of your own.
--json prints one document for programs.
"""

import sys

from convscape.base.options import take_flag
from convscape.cli import answer_help, refuse_options, run_command


def command() -> None:
    """Examine what the command line describes."""
    is_json = take_flag("--json")
    refuse_options()
    from convscape.runs.latest import named

    for run in (word for word in sys.argv[1:] if "=" not in word):
        named(run)  # a mistyped one is refused before torch is imported
    from convscape.doctor.command import diagnose

    diagnose(sys.argv[1:], is_json=is_json)


if __name__ == "__main__":
    answer_help(str(__doc__))
    run_command(command)
