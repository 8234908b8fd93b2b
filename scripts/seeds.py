"""Find out how many seeds a sweep needs, what they cost and what they cannot show.

python scripts/seeds.py model.kernel_size=3,5 margin=0.5      from existing runs
python scripts/seeds.py model.kernel_size=3,5 margin=0.5 pilot=4      from four new seeds of each

margin is the smallest difference that matters, in points for an accuracy. The sweep reuses the runs
of the pilot. --json prints one document for programs.
"""

from convscape.cli import answer_help, run_command, seeds_command

if __name__ == "__main__":
    answer_help(str(__doc__))
    run_command(seeds_command)
