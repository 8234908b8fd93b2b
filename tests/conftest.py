import builtins
import io
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes on the same cores spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # of the terminal of whoever started them, says readline

import convscape  # noqa: F401  before TensorBoard, which it keeps from importing TensorFlow
from convscape.base import distribution, stopping
from tests.warm import WarmScript

distribution.call_commands("python scripts/{}.py")  # also where the package is an installed one

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


# what a test waits for comes in seconds; this long only where the machine has much else to do
PATIENCE_S = 300


needs_signals = pytest.mark.skipif(
    not stopping.HAS_SIGNALS, reason="on Windows a signal ends another process at once"
)


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


def wait_for(condition, process, seconds=PATIENCE_S):
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


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Make a folder by `make(folder)` once for all workers; tests do not change what is in it."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent

    def folder_of(name, make):
        folder, whole = place / name, place / f"{name}.whole"
        with FileLock(place / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return folder_of


def exit_code(patch, script, arguments):
    """Run a script in this process, until it exits."""
    path = ROOT / "scripts" / f"{script}.py"
    patch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    return stop.value.code or 0


def run_here(folder, script, *arguments):
    """Run a script as `command` does, for fixtures that several tests share."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        code = exit_code(patch, script, arguments)
    return Answer(code, out.getvalue(), err.getvalue())


@contextmanager
def undrawn():
    """Reports without their figures, which take most of a report's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convscape.reports.section.draw_figures", lambda *_: {})
        yield


@pytest.fixture
def without_figures():
    with undrawn():
        yield


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a script as a user does, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        return Answer(exit_code(monkeypatch, script, arguments), *capsys.readouterr())

    return run


@pytest.fixture
def start(tmp_path, tmp_path_factory, until_the_end):
    """Start a script in a process of its own, in an empty folder; it does not outlive the test.

    It is forked from a process that has imported torch; `start_fresh` is for what that would hide.
    """

    def run(script, *arguments, **environment):
        notes = tmp_path_factory.mktemp("notes")
        words = [str(argument) for argument in arguments]
        return until_the_end(WarmScript(script, words, tmp_path, notes, **environment))

    return run


@pytest.fixture
def start_fresh(tmp_path, until_the_end):
    """Start a script as `start` does, with an interpreter that has imported nothing."""

    def run(script, *arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / f"{script}.py", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # as in a terminal: its workers are in its group
        )
        return until_the_end(process)

    return run


@pytest.fixture
def until_the_end():
    """Keep a process, and end it and its group with the test."""
    started = []
    yield lambda process: started.append(process) or process
    for process in started:
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The run of `test_resume.OVERRIDES` that was left alone, for those that were not."""
    from convscape.runs.folder import RunFolder
    from tests.dying import train_apart
    from tests.test_resume import OVERRIDES

    path = tmp_path_factory.mktemp("whole")
    assert train_apart(OVERRIDES, path) == "ok"
    return RunFolder(path)


def wait_until(page, expression):
    """Playwright's own `wait_for_function` needs an eval, which our pages forbid."""
    deadline = time.monotonic() + PATIENCE_S
    while not page.evaluate(expression):
        if time.monotonic() > deadline:
            raise TimeoutError(expression)
        page.wait_for_timeout(20)


class Browser:
    """Opens pages, in which all that is waited for may take long."""

    def __init__(self, chromium):
        self._chromium = chromium

    def new_page(self, **options):
        page = self._chromium.new_context(**options).new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        return page

    def close_pages(self):
        for context in self._chromium.contexts:
            context.close()


@pytest.fixture
def browser(_browser):
    yield _browser
    _browser.close_pages()


@pytest.fixture(scope="module")  # not longer: the event loop of playwright is in others' way
def _browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync"
    flags += " --disable-background-networking --disable-component-update"
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=chromium, args=flags.split())
        yield Browser(chromium)
        chromium.close()


@pytest.fixture
def as_nobody(tmp_path):
    """A context in which files may be refused, also where the tests are run by root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("Windows refuses no user a folder by its mode")
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
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builtins, "__import__", import_as_root)
            os.seteuid(65534)
            try:
                yield
            finally:
                os.seteuid(0)

    real_import = builtins.__import__

    def import_as_root(*arguments, **keywords):  # whose interpreter nobody may not read
        before = os.geteuid()
        os.seteuid(0)
        try:
            return real_import(*arguments, **keywords)
        finally:
            os.seteuid(before)

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
