"""TAB in a real bash, and what stands behind it in every shell."""

import os
import shutil
import subprocess
import sys

import pytest

from convscape.completion import SCRIPTS
from tests.conftest import ROOT

bash = shutil.which("bash")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A user's home and working folder; `convscape` is on the path, its completion installed."""
    home = tmp_path_factory.mktemp("home")
    program = home / "bin" / "convscape"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m convscape "$@"\n')
    program.chmod(0o755)
    (home / "outputs" / "runs" / "mine").mkdir(parents=True)
    (home / "outputs" / "runs" / "mine" / "config.yaml").touch()
    (home / ".bashrc").write_text("EDITOR=vi")
    # else a new user's fish reads every manual page there is, long after the test
    (home / ".local" / "share" / "fish" / "generated_completions").mkdir(parents=True)
    for _ in range(2):
        answer = call(home, "convscape --install-completion bash")
        assert answer.returncode == 0, answer.stderr
    return home


def call(home, script):
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    return subprocess.run(
        [bash, "-c", script], cwd=home, env=environment, capture_output=True, text=True
    )


def test_installing_it_twice_adds_one_line_to_the_startup_file(home):
    kept, line = (home / ".bashrc").read_text().splitlines()
    assert kept == "EDITOR=vi"
    assert line.startswith(f". {home}/.local/share/convscape/completion.bash")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("convscape ev", ["evaluate"]),
        ("convscape train mod", ["model.", "model="]),
        ("convscape train model=cn", ["cnn", "cnn_color"]),
        ("convscape sweep seed=0 model.kernel_s", ["model.kernel_size="]),
        ("convscape search scheduler=cos", ["cosine"]),
        ("convscape evaluate --split v", ["val"]),
        ("convscape evaluate outputs/runs/mine --js", ["--json"]),
        ("convscape evaluate outp", ["outputs/runs/mine/"]),
        ("convscape train resume=", ["outputs/runs/mine"]),
        ("convscape nonsense x", []),
        ("convscape train 'model=", []),
    ],
)
def test_bash_completes(home, line, expected):
    """As it does on TAB: the words are split at =, and the function answers in COMPREPLY."""
    script = f"""
        . ~/.bashrc
        COMP_LINE={line!r}
        COMP_POINT=${{#COMP_LINE}}
        _convscape 2>/dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    answer = call(home, script)
    assert answer.stdout.split() == expected, answer.stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
@pytest.mark.parametrize("shell", SCRIPTS)
def test_tab_is_typed_in_a_terminal(home, shell):
    """What is completed becomes the words of an `echo`; a file is offered where nothing else is."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    import fcntl
    import pty
    import termios

    answer = call(home, f"convscape --install-completion {shell}")
    assert answer.returncode == 0, answer.stderr
    (home / "picture.png").touch()
    main, end = pty.openpty()
    environment = {**os.environ, "HOME": str(home), "PS1": "> ", "TERM": "dumb", "EDITOR": ""}
    environment |= {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}/src"}
    environment.pop("ZDOTDIR", None)
    startup = ["--rcfile", home / ".bashrc"] if shell == "bash" else []
    process = subprocess.Popen(
        [program, *startup, "-i"],
        stdin=end, stdout=end, stderr=end, cwd=home, env=environment, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.write(main, b"convscape window --poo\t max --fra\t\x01echo \n")
    os.write(main, b"convscape predict outp\t pict\t\x01echo \n")
    os.write(main, b"exit\n")
    process.wait(timeout=60)
    os.close(end)
    said = b""
    try:
        while block := os.read(main, 4096):
            said += block
    except OSError:
        pass  # all is read
    os.close(main)
    said = b" ".join(said.split())
    assert b"window --pool max --frames" in said
    assert b"predict outputs/runs/mine/ picture.png" in said


def test_a_shell_that_is_not_known_is_one_sentence(home):
    answer = call(home, "SHELL=/bin/tcsh convscape --install-completion")
    assert answer.returncode == 2
    assert answer.stderr == "error: --install-completion tcsh: allowed: bash, zsh, fish\n"


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_shell_reads_its_script(shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    file = tmp_path / "completion"
    file.write_text(SCRIPTS[shell])
    subprocess.run([program, "-n", file], check=True)
