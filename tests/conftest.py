import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

import convscape  # noqa: F401  before TensorBoard, which it keeps from importing TensorFlow

hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")

ROOT = Path(__file__).parents[1]

# a network and a share of the digits that train in about a second
TINY = (
    "model.channels=[4]",
    "data.train_size=300",
    "data.val_size=100",
    "trainer.max_epochs=2",
    "trainer.threads=1",
)


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


def wait_for(condition, process, seconds=30.0):
    """Wait until `condition()` holds, as long as `process` lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


@pytest.fixture(scope="session", autouse=True)
def one_data_cache(tmp_path_factory):
    """The digits are prepared once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVSCAPE_CACHE", str(tmp_path_factory.mktemp("data-cache")))
        patch.delenv("CONVSCAPE_DATA", raising=False)
        yield


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a script as a user does, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        path = ROOT / "scripts" / f"{script}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(path), run_name="__main__")
        return Answer(stop.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def start(tmp_path):
    """Start a script in a process of its own, in an empty folder; it does not outlive the test."""
    started = []

    def run(script, *arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / f"{script}.py", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # as a terminal would: its workers are in its group
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The run of `test_resume.OVERRIDES` that was left alone, for those that were not."""
    from convscape.runs import RunFolder
    from tests.dying import train_apart
    from tests.test_resume import OVERRIDES

    path = tmp_path_factory.mktemp("whole")
    assert train_apart(OVERRIDES, path) == "ok"
    return RunFolder(path)


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync"
    flags += " --disable-background-networking --disable-component-update"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=flags.split())
        yield browser
        browser.close()


@pytest.fixture
def as_nobody(tmp_path):
    """A context in which files may be refused, also where the tests are run by root."""
    base = Path(tempfile.gettempdir())
    closed = [f for f in (tmp_path, *tmp_path.parents) if f.is_relative_to(base) and f != base]
    for folder in closed:
        folder.chmod(0o777)  # pytest lets nobody else in
    (tmp_path / "cache").mkdir(exist_ok=True)

    @contextmanager
    def nobody():
        if os.geteuid() != 0:
            yield
            return
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache").chmod(0o777)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    yield nobody
    for folder in closed:
        folder.chmod(0o700)


@pytest.fixture
def real_data():
    """The folder of the real data sets, for slow tests."""
    folder = Path(os.environ.get("CONVSCAPE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("needs the real data sets: set CONVSCAPE_DATA to their folder")
    return folder
