"""Checkpoints that a disk has damaged or lost: the same command finishes the run all the same."""

import pickle
import shutil

import pytest
import torch

from convscape.base.errors import ConfigError
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.training import run as training
from convscape.training.checkpoints import is_damaged, read_checkpoint, sealed
from tests.dying import train_apart
from tests.test_config import checked
from tests.test_resume import OVERRIDES, assert_equal_runs


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed after two epochs of four."""
    path = tmp_path_factory.mktemp("killed")
    assert train_apart(OVERRIDES, path, "epoch", 3) is None
    return path


def other_middle(content):
    middle = len(content) // 2
    changed = bytes(byte ^ 0xFF for byte in content[middle : middle + 200])
    return content[:middle] + changed + content[middle + 200 :]


SPOILS = {
    "other middle": other_middle,
    "other first byte": lambda content: bytes([content[0] ^ 0xFF]) + content[1:],
    "zeros": lambda content: bytes(len(content)),
    "half": lambda content: content[: len(content) // 2],
    "gone": lambda content: None,
}


@pytest.mark.parametrize(
    ("epochs", "names", "spoil"),
    [
        (2, ["last"], "zeros"),
        (4, ["last"], "other first byte"),
        (2, ["best"], "other middle"),
        (2, ["best"], "gone"),
        (2, ["last", "best"], "half"),
    ],
)
def test_what_the_disk_has_damaged_or_lost_is_made_again(
    tmp_path, killed, whole, epochs, names, spoil
):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(killed if epochs == 2 else whole.path, folder.path)
    for name in names:
        path = folder.path / "checkpoints" / f"{name}.ckpt"
        content = SPOILS[spoil](path.read_bytes())
        path.unlink() if content is None else path.write_bytes(content)
    assert train_apart(OVERRIDES, folder.path) == "ok"
    assert_equal_runs(folder, whole)
    assert spoil == "gone" or "is damaged" in folder.log_file.read_text()


@pytest.mark.parametrize("is_the_best", [True, False])
def test_the_best_checkpoint_is_lost(tmp_path, whole, is_the_best):
    """It is the last one as well, or it is had again from the beginning."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, run.path)
    history = read_checkpoint(run.last_checkpoint)["callbacks"]["Recorder"]["history"]
    assert whole.read_result().best_epoch == len(history) == 4
    run.best_checkpoint.unlink()
    if not is_the_best:
        checkpoint = read_checkpoint(run.last_checkpoint)
        checkpoint["callbacks"]["Recorder"]["best_epoch"] = 2
        run.last_checkpoint.write_bytes(sealed(checkpoint))
    assert train_apart(OVERRIDES, run.path) == "ok"
    assert_equal_runs(run, whole)
    log = run.log_file.read_text().rpartition(" run cnn")
    assert ("of epoch 2 is lost: training from the beginning" in log[0]) is not is_the_best
    assert ("epoch 1/4" in log[2]) is not is_the_best


def test_the_two_checkpoints_are_two_files(whole):
    best, last = (p.stat() for p in (whole.best_checkpoint, whole.last_checkpoint))
    assert best.st_ino != last.st_ino
    assert (best.st_nlink, last.st_nlink) == (1, 1)


def test_any_byte_that_is_another_is_found(tmp_path):
    """Also in the table of contents, which the zip format has no checksum of."""
    path = tmp_path / "last.ckpt"
    content = bytes(sealed({"state_dict": {"weight": torch.zeros(3)}, "epoch": 1}))
    path.write_bytes(content)
    assert not is_damaged(path)
    assert read_checkpoint(path)["epoch"] == 1
    for place in range(0, len(content) - 64 - 17, 5):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        assert is_damaged(path), place


@pytest.mark.parametrize("version", ["zip", "old", "pickle"])
def test_what_another_program_wrote_is_foreign_and_not_damaged(tmp_path, version):
    path = tmp_path / "last.ckpt"
    if version == "pickle":
        path.write_bytes(pickle.dumps({"epoch": 1}))
    else:
        torch.save({"epoch": 1}, path, _use_new_zipfile_serialization=version == "zip")
    assert not is_damaged(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["result.json", "checkpoints/last.ckpt", "run.log", "checkpoints"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, name):
    is_file = name == "checkpoints"
    tmp_path.joinpath(name).touch() if is_file else tmp_path.joinpath(name).mkdir(parents=True)
    words = "a file where a folder" if is_file else "a folder where a file"
    with pytest.raises(ConfigError, match=rf"{name} is {words} belongs; move it away"):
        training.train(ResolvedRun(checked(*OVERRIDES), OVERRIDES), tmp_path)
