"""Create a small project of your own: an experiment, a sweep, parts in Python, and their tests.

python scripts/init.py mylab
"""

import shlex
from pathlib import Path

from convscape.base.project import lay_project
from convscape.base.terminal import say
from convscape.cli import new_parser, run_command


def main() -> None:
    """Read the command line, write the files, say how to begin."""
    parser = new_parser(__doc__)
    parser.add_argument("folder", type=Path, help="a new folder, or an empty one")
    folder = parser.parse_args().folder

    def command() -> None:
        say(*(f"  {folder / path}" for path in lay_project(folder)))
        say("to begin:", f"  cd {shlex.quote(str(folder))}", "  convscape train experiment=first")

    run_command(command)


if __name__ == "__main__":
    main()
