"""TensorBoard's plug-in, found by its entry point; slow imports wait for the first request.

TensorBoard shows it in a frame and loads /index.js there, which requests the document again and
again. Files that have not changed are not read again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from convscape.base.files import changed

if TYPE_CHECKING:
    from convscape.reports.results import Reading

MAX_DEPTH = 4  # of run folders below the logdir: outputs/sweeps/<sweep>/<run>, plus one
RUN_FILES = ("result.json", "config.yaml")
INDEX = """\
export async function render() {
  const address = (route) => new URL(route, import.meta.url).href;
  try {
    const isDark = window.parent.document.body.classList.contains("dark-mode");
    document.documentElement.classList.add(isDark ? "dark" : "light");
  } catch { /* a frame of another origin, as in some notebooks: by the system */ }
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = address("board.css");
  document.head.append(style);
  for (const name of SCRIPTS)
    await new Promise((done, fail) => {
      const script = document.createElement("script");
      script.src = address(name);
      script.onload = done;
      script.onerror = fail;
      document.body.append(script);
    });
  await globalThis.convscape.board.live(address);
}
"""


class ConvscapePlugin(base_plugin.TBPlugin):
    """Serves the page, its document, a run's living network and the mistakes of runs."""

    plugin_name = "convscape"

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._logdir = Path(context.logdir or ".").resolve()
        self._lock = threading.Lock()  # TensorBoard answers each request in a thread
        self._read: Any = None  # a result, read again only if the file has changed
        self._document: tuple[str, str, bytes] = ("", "", b"")
        self._networks: dict[tuple[str, int], str] = {}

    def is_active(self) -> bool:
        """Whether there are any runs."""
        return next(_folders(self._logdir), None) is not None

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The tab's name; it does not need TensorBoard's reload, since it updates itself."""
        return base_plugin.FrontendMetadata(
            es_module_path="/index.js", tab_name="Convscape", disable_reload=True
        )

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """The routes."""
        application = wrappers.Request.application
        routes = {"/index.js": _index, "/document": application(self._serve_document)}
        routes |= {"/network": application(self._serve_network)}
        routes |= {"/images": application(self._serve_images)}
        static = {f"/{name}.js": _static(f"{name}.js", "text/javascript") for name in _scripts()}
        return routes | static | {"/board.css": _static("board.css", "text/css")}

    def _serve_document(self, request: wrappers.Request) -> Any:
        """The document of a folder; 204 (no content) if the page already has it."""
        asked, tag = request.args.get("folder", ""), request.args.get("tag", "")
        with self._lock:
            found = self._current(asked)
        if found[1] == tag:
            return wrappers.Response(status=204)
        return http_util.Respond(request, found[2], "application/json")

    def _current(self, asked: str) -> tuple[str, str, bytes]:
        homes = _homes(self._logdir)
        newest = max(homes, key=lambda home: homes[home][1], default="")
        home = asked if asked in homes else newest
        runs, stamp = homes.get(home, ([], 0))
        tag = f"{home}:{len(runs)}:{stamp}:{len(homes)}"
        if self._document[1] != tag:
            values = self._values(home, runs) | {"tag": tag, "folder": home}
            values["folders"] = sorted(homes, key=lambda each: -homes[each][1])
            content = json.dumps(values, separators=(",", ":"), allow_nan=False).encode()
            self._document = (home, tag, content)
        return self._document

    def _values(self, home: str, runs: list[Path]) -> dict[str, Any]:
        from convscape.base.errors import ConfigError
        from convscape.reports.board import document
        from convscape.reports.looks import watch
        from convscape.reports.page import notes_of, sections_of
        from convscape.runs.progress import progress

        folder = self._logdir / home
        title = folder.name or str(folder)
        try:
            reading = self._results(runs)
            sections, remarks = sections_of(reading, [folder], looking=watch)
            notes = [*remarks, *notes_of(reading, sections)]
            found = document(title, sections, reading, self._logdir, notes)
            return found | {"progress": progress(folder, reading.runs).in_short()}
        except ConfigError as error:
            return {"title": title, "sections": [], "empty": str(error)}

    def _results(self, runs: Sequence[Path]) -> Reading:
        from convscape.reports.results import read_result, read_runs
        from convscape.runs.progress import Remembered

        if self._read is None:
            self._read = Remembered(read_result)
        return read_runs(runs, self._read)

    def _serve_images(self, request: wrappers.Request) -> Any:
        """The mistakes of the runs in a folder, or of one of them."""
        from convscape.base.errors import ConfigError
        from convscape.runs.predictions import SPLITS
        from convscape.trained.mistakes import document

        run, split = request.args.get("run", ""), request.args.get("split", "")
        runs, _ = _homes(self._logdir).get(request.args.get("folder", ""), ([], 0))
        runs = [path for path in runs if run in ("", self._name(path))]
        if not runs or split not in SPLITS:
            return http_util.Respond(request, "there is no such run or split", "text/plain", 404)
        try:
            with self._lock:
                values = document(self._results(runs).runs, split)
        except ConfigError as error:
            return http_util.Respond(request, str(error), "text/plain", code=404)
        content = json.dumps(values, separators=(",", ":"), allow_nan=False).encode()
        return http_util.Respond(request, content, "application/json")

    def _serve_network(self, request: wrappers.Request) -> Any:
        """The living page of a run below the logdir."""
        from convscape.base.errors import ConfigError

        asked = request.args.get("run", "")
        run = next((path for path in _folders(self._logdir) if self._name(path) == asked), None)
        if run is None:
            return http_util.Respond(request, f"no run {asked}", "text/plain", code=404)
        try:
            with self._lock:
                page = self._network(run)
        except (ConfigError, OSError, ValueError) as error:
            return _page(_sentence(str(error)))
        # the page itself says which scripts may run: only its own
        return _page(page)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._logdir).as_posix()

    def _network(self, run: Path) -> str:
        from convscape.living import page
        from convscape.living.document import obstacle
        from convscape.trained.load import load_run

        key = (str(run), (run / "result.json").stat().st_mtime_ns)
        if key not in self._networks:
            loaded = load_run(run)
            if (reason := obstacle(loaded)) is not None:
                raise ValueError(reason)
            self._networks = {
                key: page.html(page.values_of(loaded))
            }  # of the last: a page is megabytes
        return self._networks[key]


def _page(text: str) -> wrappers.Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return wrappers.Response(text, headers=headers, content_type="text/html; charset=utf-8")


def _sentence(words: str) -> str:
    """A page that says why there is no network to show."""
    from convscape.base.pages import styled

    style = styled("body { margin: 2rem; white-space: pre-line; }")
    return f"<!DOCTYPE html><title>no network</title><style>{style}</style><p>{escape(words)}</p>"


@wrappers.Request.application
def _index(request: wrappers.Request) -> Any:
    names = json.dumps([f"{name}.js" for name in _scripts()])
    return http_util.Respond(request, INDEX.replace("SCRIPTS", names), "text/javascript")


def _static(name: str, kind: str) -> Any:
    @wrappers.Request.application
    def serve(request: wrappers.Request) -> Any:
        from convscape.base.pages import styled
        from convscape.reports.static import read

        content = read(name)
        return http_util.Respond(request, styled(content) if kind == "text/css" else content, kind)

    return serve


def _scripts() -> tuple[str, ...]:
    from convscape.reports.static import SCRIPTS

    return SCRIPTS


def _folders(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Every run folder in `folder`, or `folder` itself if it is one; links are not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name in RUN_FILES and entry.is_file(follow_symlinks=False) for entry in entries):
        yield folder
        return
    for entry in entries if depth else ():
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _folders(Path(entry.path), depth - 1)


def _homes(logdir: Path) -> dict[str, tuple[list[Path], int]]:
    """The runs in each folder below `logdir`, and when one of them last changed."""
    from convscape.runs.progress import NOTE

    homes: dict[str, tuple[list[Path], int]] = {}
    for run in _folders(logdir):
        home = run if run == logdir else run.parent
        name = "" if home == logdir else home.relative_to(logdir).as_posix()
        runs, stamp = homes.get(name, ([], 0))
        runs.append(run)
        files = (run / "result.json", run / "history.csv", home / NOTE)
        homes[name] = runs, max(stamp, *map(changed, files))
    return homes
