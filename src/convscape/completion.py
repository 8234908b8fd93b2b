"""What TAB offers after `convscape`: commands, options, choices, keys, run folders.

The shells call `convscape --complete <words>`, whose last word is the one being typed, and get one
completed word per line. Nothing that TAB offers is written twice: options come from the command's
own parser, choices and keys from conf/.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from convscape.base.errors import ConfigError

# bash also splits words at = and :, and wants what comes after them
_BASH = r"""
_convscape() {
    local IFS=$'\n' line=${COMP_LINE:0:COMP_POINT} typed
    COMPREPLY=($(convscape --complete-line "$line" 2>/dev/null))
    typed=${line##*[[:space:]]}
    [[ $COMP_WORDBREAKS == *=* && $typed == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${typed%=*}="}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
}
complete -o default -F _convscape convscape
"""
_ZSH = r"""
_convscape() {
    local -a found open
    found=("${(@f)$(convscape --complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    open=(${(M)found:#*[=./]})
    found=(${found:#*[=./]})
    compadd -Q -S '' -a open
    compadd -Q -a found
    (( ${#open} + ${#found} )) || _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _convscape convscape
"""
_FISH = """
function __convscape_complete
    set -l found (convscape --complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)
    if set -q found[1]
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c convscape -f -a '(__convscape_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
OPTIONS = {"--multirun", "--config-dir", "--cfg", "--help"}  # of commands that take a config
# arguments of commands that are the folders of runs, and of sweeps
RUNS, SWEEPS = ("run", "a", "b"), ("folders",)


def install(shell: str | None) -> str:
    """Set up completion for a shell, by default $SHELL; returns what was done, in words.

    Raises:
        ConfigError: if the shell is not supported, or its files cannot be written.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SCRIPTS:
        raise ConfigError(
            f"--install-completion {name or '(no $SHELL)'}: allowed: {', '.join(SCRIPTS)}"
        )
    home = Path.home()
    if name == "fish":
        script, startup = home / ".config/fish/completions/convscape.fish", None
    else:
        script = home / f".local/share/convscape/completion.{name}"
        startup = Path(os.environ.get("ZDOTDIR") or home, ".zshrc")
        startup = home / ".bashrc" if name == "bash" else startup
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(SCRIPTS[name], "utf-8")
        if startup is not None:
            line = f". {shlex.quote(str(script))}  # convscape --install-completion"
            before = startup.read_text("utf-8") if startup.exists() else ""
            if line not in before.splitlines():
                with startup.open("a", encoding="utf-8") as file:
                    file.write("\n" * (before[-1:] not in ("", "\n")) + f"{line}\n")
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename}: {error.strerror}") from None
    said = f" and a line in {startup}" if startup is not None else ""
    return f"wrote {script}{said}; a new {name} completes convscape <TAB>"


def complete_line(line: str, commands: Mapping[str, Path]) -> list[str]:
    """`complete` for a command line up to the cursor."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        return []
    return complete([*words[1:], *([""] if line[-1:].isspace() else [])], commands)


def complete(words: Sequence[str], commands: Mapping[str, Path]) -> list[str]:
    """What the last of `words` may become; `commands` maps commands to their files."""
    *before, typed = words or [""]
    if not before:
        options = ("--help", "--version", "--install-completion")
        found = [*commands, *(options if typed.startswith("-") else ())]
    elif before[0] == "--install-completion":
        found = [*SCRIPTS]
    elif before[0] not in commands:
        found = []
    elif (parser := _parser(commands[before[0]])) is None:
        found = [*_overrides(typed)]
    else:
        found = [*_of_parser(parser, before[1:], typed)]
    return sorted({word for word in found if word.startswith(typed)})


class _Found(BaseException):
    def __init__(self, parser: argparse.ArgumentParser | None) -> None:
        self.parser = parser


def _parser(script: Path) -> argparse.ArgumentParser | None:
    """The parser of a command; None if its words are overrides."""
    from convscape import cli

    def stop(parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise _Found(parser)

    def stop_at_config(_: str) -> NoReturn:
        raise _Found(None)

    kept = argparse.ArgumentParser.parse_args, cli.answer_help
    argparse.ArgumentParser.parse_args = stop  # type: ignore[assignment]
    cli.answer_help = stop_at_config  # type: ignore[assignment]
    try:
        code = compile(script.read_bytes(), script, "exec")
        exec(code, {"__name__": "__main__", "__file__": str(script)})
    except _Found as found:
        return found.parser
    finally:
        argparse.ArgumentParser.parse_args, cli.answer_help = kept  # type: ignore[method-assign]
    return None


def _of_parser(parser: argparse.ArgumentParser, before: Sequence[str], typed: str) -> Iterator[str]:
    """Options, their choices, and folders."""
    actions = parser._actions
    last = before[-1] if before else ""
    for action in actions:
        if last in action.option_strings and action.nargs != 0:
            yield from map(str, action.choices or ())
            return
    if typed.startswith("-"):
        yield from (option for action in actions for option in action.option_strings[-1:])
        return
    words = [action.dest for action in actions if not action.option_strings]
    if set(words) & {*RUNS}:
        yield from (f"{f.parent}/" for f in Path().glob("outputs/runs/*/config.yaml"))
        yield from (f"{f.parent}/" for f in Path().glob("outputs/sweeps/*/*/config.yaml"))
    if set(words) & {*SWEEPS}:
        yield from (f"{file.parent}/" for file in Path().glob("outputs/sweeps/*/sweep.yaml"))


def _overrides(typed: str) -> Iterator[str]:
    """Options, `model=`, its choices, and keys: `model.kernel_size=`."""
    from convscape.config.directory import CONFIG_DIR, choices, groups, values_in

    if typed.startswith("-"):
        yield from OPTIONS
        return
    name, equals, _ = typed.partition("=")
    if equals and name == "resume":
        yield from (f"resume={f.parent}" for f in Path().glob("outputs/runs/*/config.yaml"))
    elif equals and name in groups():
        yield from (f"{name}={choice}" for choice in choices(name))
    elif not equals and "." in name:
        group = name.partition(".")[0]
        for file in choices(group).values() if group in groups() else ():
            yield from _keys(group, values_in(file))
    elif not equals:
        yield from (f"{group}{end}" for group in groups() for end in "=.")
        keys = _keys("", values_in(CONFIG_DIR / "train.yaml"))
        yield from (key for key in keys if "." not in key)


def _keys(head: str, values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        name = f"{head}.{key}" if head else key
        if isinstance(value, dict) and value:
            yield from _keys(name, value)
        elif key != "defaults":
            yield f"{name}="
