"""How this code came here, as a checkout or as an installed package, and what follows from that.

`conf/`, `scripts/` and `templates/` stand at the top of a checkout; a wheel has them inside of the
package.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parents[1]
IS_CHECKOUT = _PACKAGE.parent.name == "src" and (_CHECKOUT / "pyproject.toml").is_file()

_form = "python scripts/{}.py" if IS_CHECKOUT else "convscape {}"


def folder(name: str) -> Path:
    """Where `conf`, `scripts` or `templates` is."""
    return (_CHECKOUT if IS_CHECKOUT else _PACKAGE) / name


def call_commands(form: str) -> None:
    """From now on commands are called so in sentences: "convscape {}"."""
    global _form
    _form = form


def command_name(name: str) -> str:
    """A command as it is typed: "python scripts/train.py", or "convscape train"."""
    return _form.format(name)


def install(extra: str) -> str:
    """What installs the libraries of an extra."""
    return f"pip install -e '.[{extra}]'" if IS_CHECKOUT else f"pip install 'convscape[{extra}]'"
