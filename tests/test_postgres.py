"""Searches on a real PostgreSQL, which the tests start, by workers that share nothing else."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from convscape.sweeps.database import database
from tests.conftest import PATIENCE_S, TINY

# takes trials, without training, until there are enough; its clock and its folder are its own
WORKER = """
    import os, signal, sys, time
    from pathlib import Path
    from optuna.distributions import FloatDistribution
    from optuna.pruners import NopPruner
    from optuna.samplers import RandomSampler
    from optuna.study import StudyDirection
    from convscape.sweeps import database
    from convscape.sweeps.study import open_study

    folder, url, num_wanted, what = sys.argv[1:]
    database.INTERVAL_S, database.GRACE_S, database._PAUSE_S = 1, 8, 0.2
    space = {"x": FloatDistribution(0, 1)}
    place = Path(folder) / str(os.getpid()) / "one"
    place.mkdir(parents=True)
    study = open_study(
        place, url, [StudyDirection.MAXIMIZE], RandomSampler(), NopPruner(), {}, space, ["x"], False
    )
    while (trial := study.next_trial(int(num_wanted))) is not None:
        if what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        with study.held(trial):
            if what == "is interrupted":
                raise KeyboardInterrupt
            time.sleep(12 if what == "is slow" else 0.05)
            study.tell(trial, [study.values(trial)["x"]])
"""


@contextmanager
def running_postgres(folder):
    """Start one in `folder`; yields its address, and what stops and starts it again."""
    programs = glob.glob("/usr/lib/postgresql/*/bin/pg_ctl")
    if os.geteuid() != 0 or not programs:
        pytest.skip("needs root, and apt-get install postgresql")
    folder.chmod(0o777)
    bin_folder, data = os.path.dirname(programs[-1]), folder / "data"

    def run(program, *words):
        command = ["runuser", "-u", "postgres", "--", f"{bin_folder}/{program}", "-D", data, *words]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL)

    run("initdb", "--auth=trust", "--no-sync")
    options = f"-c unix_socket_directories={folder} -c listen_addresses= -c fsync=off"

    def start():
        run("pg_ctl", "-w", "-l", folder / "log", "-o", options, "start")

    def stop():
        run("pg_ctl", "-w", "-m", "immediate", "stop")

    start()
    try:
        yield f"postgresql://postgres@/postgres?host={folder}", start, stop
    finally:
        stop()


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # where its own user may go, too
    with running_postgres(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server):
    """Of a database without a study."""
    address = server[0]
    yield address
    storage = database(address)
    for study in optuna.get_all_study_summaries(storage):
        optuna.delete_study(study_name=study.study_name, storage=storage)


@pytest.fixture
def workers(tmp_path, url, until_the_end):
    """Start workers that do not train, each in a folder of its own and a time zone of its own."""
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    zones = ("UTC", "Asia/Tokyo", "America/Lima")

    def run(number, num_wanted, what="works"):
        words = [sys.executable, str(script), str(tmp_path), url, str(num_wanted), what]
        return [
            until_the_end(
                subprocess.Popen(
                    words,
                    env={**os.environ, "TZ": zones[n % 3], "PGTZ": zones[n % 3]},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            for n in range(number)
        ]

    return run


def counts(url, name="one"):
    storage = database(url)
    if name not in [study.study_name for study in optuna.get_all_study_summaries(storage)]:
        return Counter(), []
    trials = optuna.load_study(study_name=name, storage=storage).trials
    return Counter(trial.state.name for trial in trials), trials


def done(processes):
    answers = [process.communicate(timeout=PATIENCE_S) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), answers
    return [out for out, _ in answers]


@pytest.mark.postgres
def test_workers_make_exactly_as_many_trials_as_were_asked_for(workers, url):
    done(workers(4, 15))
    assert counts(url)[0]["COMPLETE"] == 15


@pytest.mark.postgres
def test_the_trial_of_a_dead_worker_is_made_once_more_and_that_of_a_living_one_is_not(workers, url):
    (dead,) = workers(1, 2, "dies")
    assert dead.wait(PATIENCE_S) == -signal.SIGKILL
    done(workers(2, 2, "is slow"))  # slower than a dead worker is waited for
    states, trials = counts(url)
    assert states["COMPLETE"] == 2
    histories = [trial.system_attrs.get("retry_history") for trial in trials]
    assert [each for each in histories if each] == [[0]]


@pytest.mark.postgres
def test_an_interrupted_worker_leaves_its_trial_to_the_next_at_once(workers, url):
    (stopped,) = workers(1, 2, "is interrupted")
    assert stopped.wait(PATIENCE_S) != 0
    states, _ = counts(url)
    assert (states["WAITING"], states["RUNNING"]) == (1, 0)
    done(workers(1, 2))
    assert counts(url)[0]["COMPLETE"] == 2


@pytest.mark.postgres
def test_a_database_that_is_started_again_ends_no_worker(workers, server, url):
    working = workers(2, 60)
    deadline = time.monotonic() + PATIENCE_S
    while counts(url)[0]["COMPLETE"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    _, start, stop = server
    stop()
    time.sleep(1)
    start()
    assert "the database does not answer" in "".join(done(working))
    assert counts(url)[0]["COMPLETE"] == 60


@pytest.mark.postgres
def test_of_workers_that_share_no_folder_one_confirms_for_all(start, tmp_path, url):
    words = ["search=geometry", *TINY[1:], "trainer.max_epochs=1", "search.trials=2", "name=real"]
    words += ["search.confirm.best=1", "search.confirm.seeds=2..2", f"search.storage='{url}'"]
    places = [tmp_path / "here", tmp_path / "there"]
    processes = [start("search", *words, f"output_dir={place}") for place in places]
    outs = done(processes)
    assert "[2/2]" in "".join(outs)
    _, trials = counts(url, "real")
    trained = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(trained) == 2
    assert all(list(trial.intermediate_values) == [1] for trial in trained)
    runs = [place.glob("searches/real/confirmed/*/result.json") for place in places]
    num_confirmed = [len(list(found)) for found in runs]
    assert sorted(num_confirmed) == [0, 2]
    assert all("Confirmed: " in out for out in outs)
    place = places[num_confirmed.index(2)]
    said = " ".join(outs[num_confirmed.index(0)].split())
    assert f"Confirmed by another worker, in {socket.gethostname()}:{place}/searches" in said
