"""Why does it not learn? Measure images, network and first steps, and try remedies.

python scripts/doctor.py data=mnist optimizer.lr=1            the same words as of train
python scripts/doctor.py outputs/runs/<run>                   a run, or latest

Some seconds of short trainings; nothing is written. rules=[mypackage.rule] asks a rule of your own
too. --json prints one document for programs.
"""

import sys

from convscape.base.options import take_flag
from convscape.cli import answer_help, refuse_options, run_command


def command() -> None:
    """Examine what the command line describes."""
    is_json = take_flag("--json")
    refuse_options()
    from convscape.doctor.command import diagnose

    diagnose(sys.argv[1:], is_json=is_json)


if __name__ == "__main__":
    answer_help(str(__doc__))
    run_command(command)
