"""What follows from answers image by image, against numbers of others."""

import numpy as np
import pytest
from scipy import stats

from convscape.base.errors import ConfigError
from convscape.reports import answers
from convscape.runs.predictions import Predictions


def of(correct, confidence=0.9):
    """Answers on images of class 0, or 1 where they are wrong."""
    correct = np.asarray(correct, bool)
    sure = np.broadcast_to(np.asarray(confidence, float), correct.shape)
    true = np.where(correct, sure, 1 - sure)
    margin = np.where(correct, 2 * sure - 1, 1 - 2 * sure)
    return Predictions(np.zeros(len(correct), int), (~correct).astype(int), true, margin)


def table(both, only_first, only_second, neither):
    first = [1] * both + [1] * only_first + [0] * only_second + [0] * neither
    second = [1] * both + [0] * only_first + [1] * only_second + [0] * neither
    return of(first), of(second)


def test_the_interval_of_an_accuracy_is_wilsons():
    """Example of Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8."""
    assert answers.accuracy_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_mcnemar_is_the_exact_test_of_the_images_that_one_alone_gets_right():
    found = answers.mcnemar(*table(80, 3, 10, 7))
    assert (found.only_first, found.only_second) == (3, 10)
    # two tails of thirteen coins: 2 (C(13,0) + ... + C(13,3)) / 2^13
    assert found.p == pytest.approx(2 * (1 + 13 + 78 + 286) / 2**13)
    assert answers.mcnemar(*table(5, 0, 0, 5)).p == 1


def test_mcnemar_is_wrong_about_equal_networks_in_at_most_five_of_a_hundred():
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        hard = rng.random(300)
        found.append(answers.mcnemar(of(rng.random(300) < hard), of(rng.random(300) < hard)).p)
    assert np.mean(np.array(found) < 0.05) < 0.06


def test_the_bootstrap_is_scipys():
    first, second = table(150, 10, 25, 15)
    differences = second.correct.astype(float) - first.correct
    expected = stats.bootstrap(
        (differences,),
        np.mean,
        method="percentile",
        n_resamples=5000,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    found = answers.paired_bootstrap(differences)
    assert found == pytest.approx((expected.low, expected.high), abs=0.006)
    assert answers.paired_bootstrap(np.zeros(9)) == (0, 0)


def test_what_several_runs_say():
    runs = [of([1, 0, 0, 1]), of([1, 0, 1, 1]), of([1, 0, 0, 0])]
    assert answers.right_rate(runs) == pytest.approx([1, 0, 1 / 3, 2 / 3])
    assert answers.always_wrong(runs).tolist() == [1]
    assert answers.disagreements(runs[0], runs[1]).tolist() == [2]
    assert answers.ensemble(runs).tolist() == [0, 1, 1, 0]


def test_equal_votes_go_to_the_surer_one():
    assert answers.ensemble([of([1], 0.6), of([0], 0.8)]).tolist() == [1]
    assert answers.ensemble([of([1], 0.8), of([0], 0.6)]).tolist() == [0]
    # a sure one does not outvote two
    assert answers.ensemble([of([1], 1.0), of([0], 0.51), of([0], 0.51)]).tolist() == [1]


def test_the_calibration_error_of_a_hand_computed_table():
    # 0.8 sure and 3 of 4 right, 0.6 sure and all of 2 right
    found = answers.calibration(of([1, 1, 1, 0, 1, 1], [0.8, 0.8, 0.8, 0.8, 0.6, 0.6]), 10)
    assert found.error == pytest.approx((4 * 0.05 + 2 * 0.4) / 6)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 4, 0, 0]
    assert found.acc[7] == 0.75
    assert found.confidence[5] == pytest.approx(0.6)


def test_answers_on_other_images_are_refused():
    first = of([1, 0, 1])
    other = Predictions(np.array([1, 0, 0]), *list(vars(first).values())[1:])
    for one in (other, of([1, 0])):
        for call in (answers.mcnemar, answers.disagreements):
            with pytest.raises(ConfigError, match="not on the same images"):
                call(first, one)
        with pytest.raises(ConfigError, match="not on the same images"):
            answers.ensemble([first, one])


def test_the_diagram_shows_each_network():
    figure = answers.reliability_diagram({"A": of([1, 1, 0], 0.7), "B": of([1, 0, 0], 0.95)})
    (axis,) = figure.axes
    assert [text.get_text().split()[0] for text in axis.get_legend().get_texts()] == ["A", "B"]
