"""The command `convscape`: convscape train data=mnist is python scripts/train.py data=mnist.

A command is a file of scripts/, which an installed package contains.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from convscape import __version__
from convscape.base import distribution
from convscape.base.terminal import say
from convscape.base.values import hint

SHORT = {"sweep": ("train", "--multirun")}  # a command, and what it adds to the command line


def main() -> None:
    """Run the command that the command line names."""
    commands = {path.stem: path for path in sorted(distribution.folder("scripts").glob("*.py"))}
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("--version", "-V"):
        say(f"convscape {__version__}")
    elif name in ("--help", "-h"):
        say(*_help({name: path.read_text("utf-8") for name, path in commands.items()}))
    elif name in ("--complete", "--complete-line", "--install-completion"):
        _complete(name, words, {**commands, **{k: commands[v[0]] for k, v in SHORT.items()}})
    elif name in commands or name in SHORT:
        script, *first = SHORT.get(name, (name,))
        distribution.call_commands("convscape {}")
        # what Lightning starts again for several devices; argparse takes the name from there
        head = str(commands[script]) if script == "train" else f"convscape {name}"
        sys.modules[
            "__main__"
        ].__spec__ = None  # otherwise Lightning would start python -m convscape
        sys.argv = [head, *first, *words]
        code = compile(commands[script].read_bytes(), commands[script], "exec")
        exec(code, {"__name__": "__main__", "__file__": str(commands[script])})
    else:
        known = [*commands, *SHORT]
        # python scripts/train.py data=mnist has no command
        meant = f"; write convscape train {name}" if "=" in name else hint(name, known)
        say(f"error: {name}: allowed: {', '.join(sorted(known))}{meant}", file=sys.stderr)
        sys.exit(2)


def _complete(option: str, words: list[str], commands: dict[str, Path]) -> None:
    from convscape import completion
    from convscape.cli import run_command

    sys.argv = ["convscape"]
    if option == "--install-completion":
        run_command(lambda: say(completion.install(words[0] if words else None)))
    elif option == "--complete":
        say(*completion.complete(words, commands))
    else:
        say(*completion.complete_line(" ".join(words), commands))


def _help(sources: dict[str, str]) -> list[str]:
    """Each command with the first sentence of its file."""
    heads = {name: (ast.get_docstring(ast.parse(text)) or "") for name, text in sources.items()}
    lines = {name: head.splitlines()[0].partition(": python")[0] for name, head in heads.items()}
    lines["plan"] = "Show what train would do with the same arguments, without training"
    lines["sweep"] = "Train many networks: the same as train --multirun"
    return [
        "A laboratory for image classifiers: convscape <command> ...",
        "",
        *(f"  {name:<9} {line.rstrip('.')}" for name, line in sorted(lines.items())),
        "",
        "convscape <command> --help tells you more; convscape train trains a first network.",
        "convscape --install-completion lets TAB complete all of these in bash, zsh and fish.",
    ]


if __name__ == "__main__":
    main()
