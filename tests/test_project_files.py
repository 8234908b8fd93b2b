"""The files around the code say what the code and pyproject.toml say."""

import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
import yaml

import convscape

from .conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
PAGES = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]


def lines_of(job):
    return [step["run"] for step in WORKFLOW["jobs"][job]["steps"] if "run" in step]


def test_the_workflow_tries_every_python_that_is_declared_and_the_lowest_bounds():
    matrix = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]
    declared = re.findall(r":: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert matrix["python"] == declared
    assert PROJECT["requires-python"] == f">={declared[0]}"
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert any("--resolution lowest-direct" in line for line in lines_of("lowest"))
    setup = [step.get("with", {}) for step in WORKFLOW["jobs"]["lowest"]["steps"]]
    assert {"python-version": declared[0]} in setup


def test_the_workflow_installs_from_the_default_index_what_is_declared():
    lines = [line for job in WORKFLOW["jobs"] for line in lines_of(job)]
    assert not any("index" in line or "://" in line for line in lines)
    for extras in re.findall(r"\.\[([\w,]+)\]", "\n".join(lines)):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_hooks_are_what_make_lint_runs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    entries = [hook["entry"] for hook in config["repos"][0]["hooks"]]
    rule = (ROOT / "Makefile").read_text("utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert entries == re.findall(r"\.venv/bin/(.*)", rule)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_cpu_installs_torch_from_the_named_index_and_no_library_for_gpus(tmp_path):
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()

    def make(*words):
        return subprocess.run(
            ["make", "--dry-run", ".venv/.test", *words],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip

    assert "TORCH=cpu needs TORCH_INDEX=<address>" in make("TORCH=cpu").stderr
    assert "index" not in make().stdout
    said = make("TORCH=cpu", "TORCH_INDEX=there").stdout.replace("\\\n", "")
    assert re.search(r"--no-deps --index-url 'there'.*print \$1 }' requirements.lock", said)
    filters = re.findall(r"awk .*? > \S+", said)
    assert len(filters) == 2
    for line in filters:
        subprocess.run(line, shell=True, cwd=tmp_path, check=True)
    for name in ("requirements.lock", "requirements-dev.lock"):
        kept = re.findall(r"^([\w-]+)==", (tmp_path / ".venv" / name).read_text(), re.MULTILINE)
        every = re.findall(r"^([\w-]+)==", (ROOT / name).read_text("utf-8"), re.MULTILINE)
        gone = set(every) - set(kept)
        assert {"torch", "torchvision", "triton"} <= gone
        assert all(n.startswith(("nvidia-", "cuda-")) or n.startswith("t") for n in gone)
        assert "torchmetrics" in kept


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == convscape.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"]


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "Unreleased"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


def test_the_image_copies_what_is_there_and_starts_a_command_that_is_installed():
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    copied = [shlex.split(line)[1:-1] for line in text.splitlines() if line.startswith("COPY")]
    assert copied
    for name in [name for names in copied for name in names]:
        assert (ROOT / name).exists(), name
    assert re.search(r"^ARG BASE=\S+\nFROM \$\{BASE\}$", text, re.MULTILINE)
    (command,) = re.findall(r'^ENTRYPOINT \["(\w+)"\]$', text, re.MULTILINE)
    assert command in PROJECT["scripts"]
    (script,) = re.findall(r'^CMD \["(\w+)"\]$', text, re.MULTILINE)
    assert (ROOT / "scripts" / f"{script}.py").is_file()


def test_the_source_distribution_takes_these_files_along():
    manifest = (ROOT / "MANIFEST.in").read_text("utf-8")
    lines = [line.split() for line in manifest.splitlines()]
    taken = {name for words in lines for name in words[1:]}
    files = [".dockerignore", ".editorconfig", ".pre-commit-config.yaml", ".github"]
    assert {*files, *PAGES, "CITATION.cff", "Dockerfile", "Makefile"} <= taken


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_of_a_page_exist(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        assert target.startswith("https://") or (ROOT / target).is_file(), target
    for name in re.findall(r"`((?:tests|docs|src)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name


def test_what_contributing_says_to_type_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)", text)) <= targets
    for name in re.findall(r"\bpython ([\w/]+\.py)", text):
        assert (ROOT / name).is_file(), name
