"""Put a textbook claim to the test: train its arms, measure, answer with intervals and a verdict.

python scripts/claim.py list                              every claim, and how long it takes
python scripts/claim.py spatial                           mode=quick
python scripts/claim.py location mode=full
python scripts/claim.py all                               the whole book
python scripts/claim.py spatial data=digits data.train_size=null
python scripts/claim.py depth until=verdict seeds=3..30   seed after seed until it is decided

seeds=5 sets the number of seeds, jobs=1 how many runs are trained at a time; every other override
applies to all arms. Answers are in outputs/claims/<claim>/: answer.json, report.html, figures/.
"""

from convscape.cli import answer_help, claim_command, run_command

if __name__ == "__main__":
    answer_help(str(__doc__))
    run_command(claim_command)
