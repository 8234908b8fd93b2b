"""The page's scripts and style sheet, for the file that a report writes and for the tab.

They are plain scripts in this order, each adding to the one global `convscape`; no build step, no
library. Begin with `main.js`.
"""

from importlib.resources import files

SCRIPTS = (
    "dom",
    "charts",
    "lines",
    "table",
    "claim",
    "answer",
    "runs",
    "network",
    "images",
    "main",
)


def read(name: str) -> str:
    """A script or the style sheet."""
    return (files(__name__) / name).read_text("utf-8")
