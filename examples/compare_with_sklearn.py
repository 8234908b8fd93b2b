"""A CNN compared with scikit-learn's classifiers, on the same split of its digits.

python examples/compare_with_sklearn.py
python examples/compare_with_sklearn.py --max-epochs 5
"""

import argparse
import time
import warnings

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from convscape.base.terminal import format_table, say
from convscape.sklearn import NetworkClassifier
from convscape.trained.evaluate import wilson_interval


def main() -> None:
    """Train each on half of the digits and test it on the other half."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max-epochs", type=int, help="of the networks (default: their own)")
    parser.add_argument("--seed", type=int, default=0, help="of split and weights (default 0)")
    arguments = parser.parse_args()
    seed, epochs = arguments.seed, arguments.max_epochs

    pixels, labels = load_digits(return_X_y=True)  # (1797, 64), 8x8 pixels each
    train_x, test_x, train_y, test_y = train_test_split(
        pixels, labels, test_size=0.5, stratify=labels, random_state=seed
    )
    theirs = {"max_iter": epochs} if epochs else {}
    ours = {"max_epochs": epochs} if epochs else {}
    classifiers = {
        "LogisticRegression": LogisticRegression(max_iter=1000),
        "MLPClassifier 512-512": MLPClassifier((512, 512), random_state=seed, **theirs),
        "NetworkClassifier, mlp 512-512": NetworkClassifier("mlp", random_state=seed, **ours),
        "NetworkClassifier, cnn 32-64": NetworkClassifier("cnn", random_state=seed, **ours),
    }
    rows = [("classifier", "test accuracy (%)", "95 % interval", "seconds", "parameters")]
    for name, classifier in classifiers.items():
        is_ours = isinstance(classifier, NetworkClassifier)  # which scales the pixels itself
        model = classifier if is_ours else make_pipeline(StandardScaler(), classifier)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # expected with fewer epochs
            model.fit(train_x, train_y)
        seconds = time.perf_counter() - start
        accuracy = model.score(test_x, test_y)
        low, high = wilson_interval(accuracy, len(test_y))
        rows.append(
            (
                name,
                f"{100 * accuracy:.2f}",
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{seconds:.2f}",
                f"{num_parameters(classifier):,}",
            )
        )
    say(f"{len(train_y)} images to train on, {len(test_y)} to test, seed {seed}")
    say(format_table(rows, right_aligned=(1, 2, 3, 4)))


def num_parameters(classifier: object) -> int:
    """The number of learned parameters."""
    match classifier:
        case NetworkClassifier():
            return classifier.num_parameters_
        case MLPClassifier():
            return sum(array.size for array in [*classifier.coefs_, *classifier.intercepts_])
        case _:
            return classifier.coef_.size + classifier.intercept_.size


if __name__ == "__main__":
    main()
