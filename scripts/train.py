"""Train a network: python scripts/train.py data=mnist model.kernel_size=5 optimizer.lr=0.01."""

from convscape.cli import run_hydra, train_task

if __name__ == "__main__":
    run_hydra(train_task, "train")
