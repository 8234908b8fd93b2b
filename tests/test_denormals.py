"""Training flushes denormals in all of its threads, and nowhere else."""

import multiprocessing

import pytest
import torch

import convscape
from convscape.base import machine
from convscape.training import run


def num_denormals(values):
    return int(((values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)).sum())


def test_the_optimiser_of_dead_units_does_not_keep_denormals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dying = ["model=mlp", "model.hidden=[16]", "optimizer.lr=0.1", "optimizer.betas=[0.8,0.9]"]
    long = ["scheduler=constant", "data.batch_size=32", "trainer.max_epochs=12"]
    trained = convscape.train(*dying, *long, "visual=off", "trainer.progress=off")
    checkpoint = torch.load(trained.path / "checkpoints/last.ckpt", weights_only=True)
    averages = [state["exp_avg"] for state in checkpoint["optimizer_states"][0]["state"].values()]
    assert any((average == 0).any() for average in averages)  # of units that died
    assert not any(map(num_denormals, averages))


@pytest.fixture
def small():
    """A million numbers that two or more threads multiply."""
    num_threads = torch.get_num_threads()
    yield torch.full((1_000_000,), 1e-30)
    machine._flush_denormals(False)
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize("inside", [1, 2, 4])
@pytest.mark.parametrize("before", [False, True])
def test_all_threads_flush_denormals_and_then_do_as_before(small, before, inside):
    torch.set_num_threads(4)
    machine._flush_denormals(before)
    outside = 0 if before else len(small)
    assert num_denormals(small * 1e-10) == outside  # now all threads are there
    with machine.flushing_denormals():
        torch.set_num_threads(inside)
        assert num_denormals(small * 1e-10) == 0
    torch.set_num_threads(4)
    assert num_denormals(small * 1e-10) == outside
    torch.set_num_threads(1)
    with machine.flushing_denormals():  # as a run does that has more threads than the one before
        torch.set_num_threads(4)
        assert num_denormals(small * 1e-10) == 0


def flushed_sum():
    with machine.flushing_denormals():
        return float((torch.full((1_000_000,), 1e-30) * 1e-10).sum())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="Windows")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # about fork, Python 3.12
def test_a_forked_process_does_not_wait_for_the_threads_of_another(small):
    torch.set_num_threads(2)
    assert num_denormals(small * 1e-10) == len(small)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(flushed_sum).get(timeout=60) == 0


def test_what_a_run_imports_before_it_trains_does_not_flush_denormals(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    products = []

    data_module = run.data_module

    def observed(*args, **kwargs):
        products.append((torch.tensor(1e-39) * 1).item())
        return data_module(*args, **kwargs)

    monkeypatch.setattr(run, "data_module", observed)
    convscape.train("model=mlp", "trainer.max_epochs=1", "visual=off", "trainer.progress=off")
    assert products[0] > 0
