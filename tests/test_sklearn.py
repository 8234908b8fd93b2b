"""`convscape.sklearn.NetworkClassifier` where scikit-learn's own tools meet it."""

import _thread
import inspect
import logging
import pickle
import random
import re
import runpy
import signal
import threading
import warnings

import numpy as np
import pytest
import torch
import yaml
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from convscape.geometry.window import InfeasibleGeometry
from convscape.models.classifier import Diverged
from convscape.models.networks import CNN
from convscape.sklearn import NetworkClassifier
from tests.conftest import ROOT

IMAGES = load_digits().images  # (1797, 8, 8), 0..16
LABELS = load_digits().target


def small(**parameters):
    """Learns the digits in a fraction of a second."""
    defaults = {"channels": (8,), "max_epochs": 3, "batch_size": 32, "random_state": 0}
    return NetworkClassifier(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return small().fit(IMAGES, LABELS)


@parametrize_with_checks(
    [NetworkClassifier(), NetworkClassifier("mlp", hidden=(32,), max_epochs=10, batch_size=32)]
)
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)


def test_the_defaults_are_those_of_conf():
    """But padding: with "valid" the network could not exist on scikit-learn's 8x8 digits."""
    shipped = {"device": "cpu", "random_state": None, "model": "cnn", "image_shape": None}
    files = ("data/digits", "trainer/default", "optimizer/adam", "model/mlp", "model/cnn")
    for file in files:
        shipped |= yaml.safe_load((ROOT / "conf" / f"{file}.yaml").read_text())
    shipped |= {"padding": "same", "pool_padding": "same", "device": "cpu"}
    shipped |= {"scheduler": "one_cycle", "optimizer": "adam"}
    shipped |= yaml.safe_load((ROOT / "conf" / "train.yaml").read_text())["trainer"]
    shipped |= {
        "momentum": yaml.safe_load((ROOT / "conf/optimizer/sgd.yaml").read_text())["momentum"]
    }
    for name, parameter in inspect.signature(NetworkClassifier).parameters.items():
        default = parameter.default
        assert (list(default) if isinstance(default, tuple) else default) == shipped[name], name


def test_every_knob_of_the_networks_is_a_parameter():
    parameters = set(NetworkClassifier().get_params())
    for file in ("cnn", "mlp"):
        keys = set(yaml.safe_load((ROOT / "conf" / "model" / f"{file}.yaml").read_text()))
        assert keys - {"_target_"} <= parameters


def test_it_learns_the_digits(fitted):
    train_images, test_images, train_labels, test_labels = train_test_split(
        IMAGES, LABELS, random_state=0, stratify=LABELS
    )
    classifier = small(max_epochs=10).fit(train_images, train_labels)
    assert classifier.score(test_images, test_labels) > 0.95
    assert classifier.image_shape_ == (8, 8, 1)
    assert classifier.num_parameters_ == 80 + 8 * 16 * 10 + 10
    assert isinstance(classifier.model_, CNN)


def test_images_flat_and_with_axes_are_the_same(fitted):
    expected = fitted.predict_proba(IMAGES)
    assert np.array_equal(
        small().fit(IMAGES.reshape(-1, 64), LABELS).predict_proba(IMAGES), expected
    )
    with_channel = small().fit(IMAGES[..., None], LABELS)
    assert np.array_equal(with_channel.predict_proba(IMAGES.reshape(-1, 64)), expected)


def test_the_range_of_the_pixels_does_not_matter(fitted):
    expected = fitted.predict_proba(IMAGES)
    for change in (lambda x: x / 16, lambda x: 15 * x - 3):
        other = small().fit(change(IMAGES), LABELS)
        np.testing.assert_allclose(other.predict_proba(change(IMAGES)), expected, atol=0.02)


def test_bytes_are_taken_as_they_are(fitted):
    pixels = IMAGES.astype(np.uint8)
    classifier = small().fit(pixels, LABELS)
    np.testing.assert_allclose(
        classifier.predict_proba(pixels), fitted.predict_proba(IMAGES), atol=0.02
    )


def test_colour_has_the_channels_last():
    """The class is in the blue channel alone: one that mixed up the axes would not see it."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(200, 6, 4, 3))
    labels = generator.integers(2, size=200)
    images[..., 2] += 3 * labels[:, None, None]
    classifier = small(channels=(4,), head="global_avg", max_epochs=15).fit(images, labels)
    assert classifier.image_shape_ == (6, 4, 3)
    assert classifier.score(images, labels) > 0.97
    weights = classifier.model_.network.block1.conv.weight
    assert weights.shape[1] == 3
    flat = images.reshape(200, -1)
    same = clone(classifier).set_params(image_shape=(6, 4, 3)).fit(flat, labels)
    assert np.array_equal(same.predict_proba(flat), classifier.predict_proba(images))


def test_labels_may_be_strings_or_have_gaps():
    names = np.array(["zero", "one", "two"])[LABELS % 3]
    classifier = small().fit(IMAGES, names)
    assert list(classifier.classes_) == ["one", "two", "zero"]
    assert set(classifier.predict(IMAGES)) == {"zero", "one", "two"}
    with_gaps = small().fit(IMAGES, 10 * (LABELS % 3) - 7)
    assert set(with_gaps.predict(IMAGES)) == {-7, 3, 13}
    assert np.mean(with_gaps.predict(IMAGES) == 10 * (LABELS % 3) - 7) > 0.8


def test_random_state_decides_everything_and_nothing_else_does(fitted):
    expected = fitted.predict_proba(IMAGES)
    torch.manual_seed(99)
    assert np.array_equal(small().fit(IMAGES, LABELS).predict_proba(IMAGES), expected)
    other = small(random_state=1).fit(IMAGES, LABELS)
    assert not np.array_equal(other.predict_proba(IMAGES), expected)


def test_a_fit_is_silent_and_leaves_nothing_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def state():
        names = ("", "lightning.pytorch", "lightning.fabric", "convscape", "py.warnings")
        loggers = [logging.getLogger(name) for name in names]
        return {
            "torch": torch.get_rng_state().tolist(),
            "numpy": np.random.get_state()[1].tolist(),
            "random": random.getstate(),
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "grad": torch.is_grad_enabled(),
            "logging": [(x.level, x.propagate, list(x.handlers)) for x in loggers],
            "warnings": list(warnings.filters),
            "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        }

    before = state()
    classifier = small(dropout=0.5).fit(IMAGES[:100], LABELS[:100])
    classifier.predict(IMAGES)
    assert state() == before
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def handler():
    """Python's own, which a shell's background job does not begin with."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_is_a_keyboard_interrupt_and_works_again(handler):
    is_over = threading.Event()

    def interrupt():  # and again, as a user would: Python loses one that meets a weak reference
        while not is_over.wait(2):
            _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            NetworkClassifier(max_epochs=10_000).fit(IMAGES, LABELS)
    finally:
        is_over.set()
    assert signal.getsignal(signal.SIGINT) is handler


def test_grid_search_over_kernel_size_and_stride_finishes():
    grid = {"kernel_size": np.array([3, 5]), "stride": [1, 2]}
    search = GridSearchCV(small(), grid, cv=2, n_jobs=1).fit(IMAGES, LABELS)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 4
    assert scores.min() > 0.4  # at a chance of 0.1; stride 2 leaves little of 8x8 pixels
    assert search.best_estimator_.score(IMAGES, LABELS) > 0.9


def test_an_impossible_network_is_a_nan_of_the_grid_search():
    grid = {"padding": ["valid"], "kernel_size": [3, 11]}
    search = GridSearchCV(small(max_epochs=1), grid, cv=2)
    with (
        pytest.warns(FitFailedWarning, match="11x11 kernel does not fit its 8x8 input"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(IMAGES, LABELS)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    with pytest.raises(InfeasibleGeometry, match="11x11 kernel does not fit its 8x8 input"):
        small(padding="valid", kernel_size=11).fit(IMAGES, LABELS)


def test_it_works_in_pipelines_and_cross_validation():
    flat = IMAGES.reshape(-1, 64)
    steps = [FunctionTransformer(lambda x: x / 16), StandardScaler(), small()]
    scores = cross_val_score(make_pipeline(*steps), flat, LABELS, cv=3)
    assert scores.min() > 0.7


@pytest.mark.slow
def test_folds_run_in_processes_of_their_own():
    scores = cross_val_score(small(), IMAGES, LABELS, cv=2, n_jobs=2)
    assert np.array_equal(scores, cross_val_score(small(), IMAGES, LABELS, cv=2))


def test_a_pickled_classifier_answers_as_before_and_holds_no_images(fitted):
    data = pickle.dumps(fitted)
    assert np.array_equal(pickle.loads(data).predict_proba(IMAGES), fitted.predict_proba(IMAGES))
    assert len(data) < IMAGES.nbytes / 8
    with pytest.raises(AttributeError):
        clone(fitted).classes_  # noqa: B018


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((4, 2, 2, 1, 1)), [0, 1, 0, 1], r"shape \(4, 2, 2, 1, 1\); allowed: \(n, H, W\)"),
        (np.full((4, 8, 8), np.nan), [0, 1, 0, 1], "Input X contains NaN"),
        (np.zeros((4, 8, 8)), [1, 1, 1, 1], "y holds only one class, 1; a classifier needs two"),
        (np.zeros((4, 8, 8)), [0, 1], "inconsistent numbers of samples"),
        (np.zeros((4, 8, 8)), [0.5, 0.1, 0.2, 0.7], "Unknown label type"),
        (np.full((4, 2, 2), "a"), [0, 1, 0, 1], "could not convert string to float"),
        (np.zeros((4, 8, 8)), np.array([1, "a", 1, "a"], object), "several kinds.*: int, str"),
        (np.zeros((4, 3, 8, 8)), [0, 1, 0, 1], r"3x8x8 .* X\.transpose\(0, 2, 3, 1\) puts them"),
    ],
)
def test_images_and_labels_that_make_no_sense_are_refused(images, labels, words):
    with pytest.raises(ValueError, match=words):
        small().fit(images, labels)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"model": "cn"}, r"model='cn': allowed: cnn, mlp; did you mean 'cnn'\?"),
        ({"kernel_size": 3.5}, r"kernel_size=3.5: 3.5 is not a size; allowed: an integer or HxW"),
        ({"padding": "sane"}, r"padding='sane': 'sane' is not a padding; allowed: valid, same"),
        ({"channels": (8, 0)}, r"channels=\[8, 0\]: allowed: 1 or more"),
        ({"stride": (1, 2)}, r"stride=\[1, 2\] has 2 entries for 1 block"),
        ({"lr": -1}, "lr=-1: allowed: more than 0"),
        ({"optimizer": "adm"}, "optimizer='adm': allowed: sgd, adam"),
        ({"max_epochs": 0}, "max_epochs=0: allowed: 1 or more"),
        ({"device": "tpu"}, "device='tpu'; allowed here: auto, cpu"),
        (
            {"image_shape": (8, 8, 3)},
            r"X holds images of 8x8x1 \(height, width, channels\), and im",
        ),
        ({"image_shape": 8}, r"image_shape=8; allowed: \(H, W\) or \(H, W, C\)"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_one_sentence(parameters, words):
    with pytest.raises(ValueError, match=words) as refused:
        small(**parameters).fit(IMAGES[:50], LABELS[:50])
    assert "\n" not in str(refused.value)


def test_the_way_out_for_channels_that_came_first_works():
    channels_first = np.random.default_rng(0).random((6, 3, 8, 8))
    labels = np.array([0, 1] * 3, object)
    moved = small().fit(channels_first.transpose(0, 2, 3, 1), labels)
    assert moved.image_shape_ == (8, 8, 3)
    assert moved.classes_.tolist() == [0, 1]
    assert small(image_shape=(3, 8, 8)).fit(channels_first, labels).image_shape_ == (3, 8, 8)


def test_a_flat_array_must_fit_the_image_shape():
    with pytest.raises(ValueError, match=r"image_shape=\(4, 4\) has 16 values, and an image of X"):
        small(image_shape=(4, 4)).fit(IMAGES.reshape(-1, 64), LABELS)


def test_a_number_of_features_that_is_no_square_is_one_row():
    classifier = small().fit(IMAGES.reshape(-1, 64)[:, :63], LABELS)
    assert classifier.image_shape_ == (1, 63, 1)


def test_other_images_than_those_trained_on_are_refused(fitted):
    with pytest.raises(
        ValueError, match="X holds images of 4x16x1, and NetworkClassifier was traine"
    ):
        fitted.predict(IMAGES.reshape(-1, 4, 16))
    with pytest.raises(ValueError, match="but NetworkClassifier is expecting 64"):
        fitted.predict(IMAGES.reshape(-1, 64)[:, :63])


def test_a_learning_rate_that_is_far_too_high_says_so():
    words = r"the loss is not finite.*: a smaller lr, gradient_clip_norm=1, or scheduler="
    with pytest.raises(Diverged, match=words):
        small(model="mlp", optimizer="sgd", lr=1e9, scheduler="constant").fit(IMAGES, LABELS)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop", "adadelta", "adagrad"])
@pytest.mark.parametrize("scheduler", ["constant", "cosine"])
def test_every_optimiser_and_schedule_trains(optimizer, scheduler):
    classifier = small(optimizer=optimizer, scheduler=scheduler, max_epochs=1)
    assert classifier.fit(IMAGES[:64], LABELS[:64]).predict(IMAGES[:1]).shape == (1,)


@pytest.mark.gpu
def test_a_network_trained_on_a_gpu_is_pickled_without_it():
    classifier = small(device="cuda").fit(IMAGES, LABELS)
    expected = classifier.predict_proba(IMAGES)
    again = pickle.loads(pickle.dumps(classifier))
    assert next(again.model_.parameters()).device.type == "cpu"
    on_cpu = again.set_params(device="cpu").predict_proba(IMAGES)
    np.testing.assert_allclose(on_cpu, expected, atol=1e-3)


def test_the_example_compares_four_classifiers_on_one_split(monkeypatch, capsys):
    path = ROOT / "examples" / "compare_with_sklearn.py"
    monkeypatch.setattr("sys.argv", [str(path), "--max-epochs", "2"])
    runpy.run_path(str(path), run_name="__main__")
    out = capsys.readouterr().out
    assert "898 images to train on, 899 to test, seed 0" in out
    rows = [re.split(r"  +", line) for line in out.splitlines()[3:]]
    assert [row[0].split()[0] for row in rows] == [
        *("LogisticRegression", "MLPClassifier"),
        *("NetworkClassifier,", "NetworkClassifier,"),
    ]
    assert rows[1][-1] == rows[2][-1] == f"{64 * 512 + 512 + 512 * 512 + 512 + 5130:,}"
    for _, accuracy, interval, seconds, _ in rows:
        low, high = map(float, interval.split(" to "))
        assert 20 < low < float(accuracy) < high
        assert float(seconds) > 0
