"""How a network came to be: kept epochs, and a page that goes through them in a real browser."""

from dataclasses import replace

import pytest
import torch

from convscape.base.errors import ConfigError
from convscape.living import timeline
from convscape.living.page import write_page
from convscape.runs.folder import RunFolder
from convscape.trained.load import load_run
from convscape.training.checkpoints import read_checkpoint, sealed
from tests.conftest import TINY
from tests.dying import train_apart

from .test_living_changes import FRAMES, logits, opened_page, torchs

WORDS = [*TINY, "visual=off", "trainer.max_epochs=4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept")
    assert train_apart([*WORDS, "trainer.keep_epochs=true"], path) == "ok"
    return load_run(path)


@pytest.fixture(scope="module")
def page(run, _browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(run, path)
    yield from opened_page(path, _browser)


def with_weights_of(run, epoch):
    """The run's network as it was after an epoch, in half precision."""
    kept = read_checkpoint(RunFolder(run.path).epoch_file(epoch))["state_dict"]
    model = load_run(run.path).model
    model.load_state_dict(kept)
    return replace(run, model=model.eval())


def test_keeping_epochs_changes_no_bit_of_the_result(run, tmp_path):
    assert train_apart(WORDS, tmp_path) == "ok"
    plain, kept = RunFolder(tmp_path), RunFolder(run.path)
    assert plain.read_result().fingerprint == kept.read_result().fingerprint
    assert not plain.epochs_folder.exists()
    for name in ("best_checkpoint", "last_checkpoint"):
        one, other = (read_checkpoint(getattr(f, name))["state_dict"] for f in (plain, kept))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_kept_weights_are_the_checkpoints_in_half_precision(run):
    folder = RunFolder(run.path)
    files = sorted(file.name for file in folder.epochs_folder.iterdir())
    assert files == [f"{epoch:04d}.ckpt" for epoch in range(5)]
    last = read_checkpoint(folder.last_checkpoint)
    kept = read_checkpoint(folder.epoch_file(4))
    assert kept["global_step"] == last["global_step"]
    for name, values in last["state_dict"].items():
        assert torch.equal(kept["state_dict"][name], values.half())


def test_the_page_goes_through_the_epochs_and_computes_each(run, page):
    chosen = RunFolder(run.path).read_result().best_epoch
    slider = page.get_by_role("slider", name="epoch")
    assert slider.input_value() == str(chosen)
    own = logits(page)
    assert own == torchs(run, page)
    for epoch in (0, 2, 4):
        slider.fill(str(epoch))
        assert logits(page) == torchs(with_weights_of(run, epoch), page)
        words = page.locator("#timeline output").inner_text()
        assert words.startswith(f"epoch {epoch}, step" if epoch else "before the first step")
    slider.fill(str(chosen))
    assert logits(page) == own
    assert "the chosen epoch" in page.locator("#timeline output").inner_text()


def test_the_page_says_the_accuracy_of_the_history_and_plays_to_the_end(run, page):
    page.get_by_role("slider", name="epoch").fill("3")
    said = page.get_by_role("slider", name="epoch").get_attribute("aria-valuetext")
    assert f"val/acc {100 * run.history['val/acc'][2]:.1f} %" in said
    page.locator("#timeline .play").click()
    page.locator("#timeline .play:has-text('▶')").wait_for()
    assert page.get_by_role("slider", name="epoch").input_value() == "4"
    page.evaluate(FRAMES)
    assert "epoch 4" in page.locator("#answer .sure").inner_text() or (
        RunFolder(run.path).read_result().best_epoch == 4
    )


def test_a_run_that_is_prolonged_takes_its_kept_epochs_with_it(run, command, tmp_path):
    answer = command("train", f"resume={run.path}", "trainer.max_epochs=5", "scheduler=constant")
    assert answer.code == 0, answer.err
    (longer,) = (tmp_path / "outputs/runs").iterdir()
    folder = RunFolder(longer)
    assert len(list(folder.epochs_folder.iterdir())) == 6
    before = RunFolder(run.path).epoch_file(3).read_bytes()
    assert folder.epoch_file(3).read_bytes() == before
    size = sum(file.stat().st_size for file in folder.epochs_folder.iterdir())
    assert f"weights of each epoch, {size / 1e6:.2g} MB in checkpoints/epochs" in answer.out


def test_of_many_epochs_as_many_as_fit_are_in_the_page(run, monkeypatch):
    assert len(timeline.facts(run)["epochs"]) == 5
    monkeypatch.setattr(timeline, "MAX_BYTES", 0)
    monkeypatch.setattr(timeline, "MIN_EPOCHS", 3)
    facts = timeline.facts(run)
    numbers = [each["epoch"] for each in facts["epochs"]]
    assert {0, 4, RunFolder(run.path).read_result().best_epoch} <= set(numbers)
    assert facts["left_out"] == 5 - len(numbers) > 0


def test_the_weights_of_another_network_are_refused(run):
    file = RunFolder(run.path).epoch_file(2)
    whole = file.read_bytes()
    content = {"state_dict": {"weight": torch.ones(2)}, "epoch": 2, "global_step": 1}
    file.write_bytes(sealed(content))
    try:
        with pytest.raises(ConfigError, match="does not hold weights of this network"):
            timeline.facts(run)
    finally:
        file.write_bytes(whole)
