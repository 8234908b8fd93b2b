"""Search for the best network with Optuna.

  python scripts/search.py search=geometry                      30 trials on the digits
  python scripts/search.py search=learning data=mnist data.train_size=10000 name=mnist
  python scripts/search.py search.trials=100 model=cnn name=long

For several workers on one search, start the same command several times, also on other machines
that share the folder or the storage. To continue a search, type its command again.
"""

from convscape.cli import answer_help, run_command, search_command

if __name__ == "__main__":
    answer_help(str(__doc__))
    run_command(search_command)
