"""How this code was installed, as a checkout or as a package, and what follows from that.

`conf/`, `scripts/` and `templates/` are at the top of a checkout; in a wheel they are inside the
package.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parents[1]
IS_CHECKOUT = _PACKAGE.parent.name == "src" and (_CHECKOUT / "pyproject.toml").is_file()

_form = "python scripts/{}.py" if IS_CHECKOUT else "convscape {}"


def folder(name: str) -> Path:
    """The folder `conf`, `scripts` or `templates`."""
    return (_CHECKOUT if IS_CHECKOUT else _PACKAGE) / name


def call_commands(form: str) -> None:
    """From now on, messages name commands in this form: "convscape {}"."""
    global _form
    _form = form


def command_name(name: str) -> str:
    """A command as it is typed: "python scripts/train.py", or "convscape train"."""
    return _form.format(name)


def install(extra: str) -> str:
    """The command that installs the libraries of an extra."""
    return f"pip install -e '.[{extra}]'" if IS_CHECKOUT else f"pip install 'convscape[{extra}]'"
