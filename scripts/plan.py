"""Show what scripts/train.py would do with the same overrides, without training.

python scripts/plan.py model.kernel_size=7 model.stride=2     the layers of one network
python scripts/plan.py sweep=geometry                         the runs of a sweep
python scripts/plan.py model.kernel_size=3,5,7 model.stride=1,2
python scripts/plan.py model=resnet20 --figure net.svg        a drawing of it, or net.tex for TikZ

--json prints one document for programs.
"""

from convscape.cli import answer_help, plan_command, run_command

if __name__ == "__main__":
    answer_help(str(__doc__))
    run_command(plan_command)
