"""What commands print with --json: the documents of docs/schema.json, and nothing else."""

import json
import re
import shutil

import pydantic
import pytest
from pydantic import TypeAdapter

from convscape.base import documents
from convscape.runs.resolved import ResolvedRun
from convscape.training.run import train
from tests.conftest import ROOT, TINY
from tests.fake_runs import write_runs
from tests.test_config import checked


def document(answer, kind):
    """What a command printed, which is that document to the letter."""
    assert answer.code == 0, answer.err
    found = json.loads(answer.out, parse_constant=lambda word: pytest.fail(word))
    assert found["schema"] == f"convscape.{kind}/1"
    assert found.keys() >= documents.KINDS[kind].__annotations__.keys()
    if kind != "evaluate":  # its metrics have names of their own
        assert found.keys() == documents.KINDS[kind].__annotations__.keys()
    adapter = TypeAdapter(documents.KINDS[kind])
    adapter.validate_json(answer.out, strict=True)
    return found


@pytest.fixture
def sweep(tmp_path):
    write_runs(tmp_path / "sweep", seeds=4)
    return tmp_path / "sweep"


def test_a_report_says_what_its_table_and_its_sentences_say(command, sweep):
    found = document(command("report", sweep, "--json"), "report")
    (section,) = found["sections"]
    assert (section["num_runs"], section["num_ok"]) == (48, 44)
    best = section["configurations"][0]
    assert best["values"]["model.kernel_size"] == "7"
    assert (best["place"], best["seeds"], best["num_ok"]) == (1, [0, 1, 2, 3], 4)
    effect = next(e for e in section["effects"] if e["key"] == "model.stride")
    assert (effect["level"], effect["base"], effect["verdict"]) == ("2", "1", "worse")
    assert effect["sentence"] in section["sentences"]
    assert section["unfinished"][0]["status"] == "infeasible"
    assert all((sweep.parent / path).is_file() for path in found["files"])


def test_a_plan_has_the_layers_of_a_network_and_the_runs_of_a_grid(command):
    found = document(command("plan", "model=resnet20", "--json"), "plan")
    (run,) = found["runs"]
    assert sum(layer["num_parameters"] for layer in run["layers"]) == run["num_parameters"]
    assert {layer["depth"] for layer in run["layers"]} == {0, 1}
    words = ("model.kernel_size=3,17", "model.padding=valid", "--json")
    found = document(command("plan", *words), "plan")
    assert [run["possible"] for run in found["runs"]] == [True, False]
    assert "17x17 kernel" in found["runs"][1]["reason"]
    answer = command("plan", "model.kernel_size=17", "--json")
    assert (answer.code, answer.out) == (2, "")
    assert "error: block" in answer.err


def test_an_evaluation_and_a_comparison_of_a_run(command, tmp_path):
    run = ResolvedRun(checked(*TINY, "visual=off"), TINY)
    result = train(run, tmp_path / "run")
    found = document(command("evaluate", tmp_path / "run", "--json"), "evaluate")
    assert found["test/acc"] == pytest.approx(result.metrics["test/acc"])
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    found = document(command("compare", tmp_path / "run", tmp_path / "copy", "--json"), "compare")
    assert (found["verdict"], found["flipped"]) == ("equal", [])
    assert found["over_seeds"] is None


def test_a_claim_speaks_on_stderr_while_it_works(command, tmp_path):
    found = document(command("claim", "list", "--json"), "claims")
    assert "spatial" in [claim["name"] for claim in found["claims"]]
    words = ("data=digits", *TINY[1:], "seeds=1", "jobs=1")
    answer = command("claim", "spatial", *words, "--json")
    found = document(answer, "claim")
    assert "claim spatial:" in answer.err
    (one,) = found["answers"]
    assert one["verdict"] == "undecided"
    assert json.loads((tmp_path / one["folder"] / "answer.json").read_text())["arms"] == one["arms"]


def test_the_published_schema_is_that_of_the_code():
    published = (ROOT / "docs" / "schema.json").read_text()
    if pydantic.VERSION.startswith("2.10."):  # it does not write down that default yet
        published = re.sub(r'"additionalProperties": true,\s*', "", published)
    assert json.loads(published) == documents.json_schema(), "run: python docs/make_reference.py"


def test_every_document_is_explained():
    page = (ROOT / "docs" / "json.md").read_text("utf-8")
    assert all(f"`convscape.{kind}`" in page for kind in documents.KINDS)
