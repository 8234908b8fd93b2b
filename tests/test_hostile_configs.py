"""Overrides and config files that hypothesis draws: right, nearly right and hostile.

Whatever is asked for ends trained, infeasible, or in one sentence with exit code 2.
"""

import contextlib
import json
import os
import subprocess
import sys
from functools import cache

import pytest
import yaml
from hydra import compose
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from convscape.base.errors import ConfigError
from convscape.config.check import check
from convscape.config.directory import CONFIG_DIR
from convscape.config.sentences import explain
from convscape.geometry.window import InfeasibleGeometry
from convscape.runs.fingerprint import fingerprint, flat_config
from convscape.runs.folder import RunFolder
from convscape.runs.names import run_name
from convscape.runs.result import Result
from tests.conftest import PATIENCE_S, ROOT, TINY
from tests.test_config import initialised

GROUPS = ("data", "model", "optimizer", "scheduler", "trainer", "experiment", "sweep", "search")
# as they are now: other tests may put files there
FILES = {g: sorted(file.stem for file in (CONFIG_DIR / g).glob("*.yaml")) for g in GROUPS}
ENDINGS = {"trains", "infeasible", "refused"}

# --- what is drawn ----------------------------------------------------------------------------


@cache
def composed():
    with initialised():
        return OmegaConf.to_container(compose("train"), resolve=True)


def keys_of(node, prefix=""):
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


KEYS = sorted(keys_of(composed()))
# for some keys values that are right, so that not all ends at the first mistake
RIGHT = {
    "model.channels": ["[4]", "[4,8]", "[2,2,2]"],
    "model.kernel_size": ["1", "3", "5", "3x5", "[3,2]", "7"],
    "model.stride": ["1", "2", "2x1"],
    "model.padding": ["valid", "same", "circular", "1", "0x2"],
    "model.dilation": ["1", "2"],
    "model.pool": ["max", "avg", "none", "[max,none]"],
    "model.pool_size": ["2", "3x2"],
    "model.activation": ["relu", "tanh", "[gelu,none]"],
    "model.dropout": ["0", "0.5", "[0.1,0.2]"],
    "model.dense": ["[]", "[8]"],
    "model.head": ["flatten", "global_avg"],
    "model.batch_norm": ["true", "[true,false]"],
    "optimizer.lr": ["0.1", "1e-3", "1e30"],
    "data.batch_size": ["1000", "64"],
    "data.val_size": ["0", "0.2", "100"],
    "data.train_size": ["null", "200"],
    "data.image_size": ["null", "8", "9x12"],
    "data.channels": ["null", "1", "3"],
    "data.augment.shift": ["0", "2", "100000"],
    "data.augment.rotate": ["0", "15.5", "180"],
    "data.change.canvas": ["null", "40"],
    "data.change.permute": ["null", "3"],
    "trainer.max_epochs": ["1"],
    "trainer.precision": ["fp32", "bf16"],
    "trainer.device": ["cpu", "auto"],
    "seed": ["0", "7", "4294967295"],
    "visual": ["off", "light"],
    "name": ["mine", "a.b-c_d"],
}
WRONG = [
    *("-1", "-3", "0", "3.5", "true", "null", "''", "x", "3x", "x3", "3x5x7", "3 x 5", "-0.0"),
    *(
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e-999",
        "9" * 30,
        "-" + "9" * 30,
        "9" * 5000,
        "1_000",
        "0x7",
    ),
    *("[]", "[[]]", "[3,[4,[5]]]", "[null]", "[nan]", "{}", "{a:1}", "{a:{b:{c:[1,{d:2}]}}}"),
    "[" * 500 + "1" + "]" * 500,
    "[" + ",".join(["3"] * 50) + "]",
    *("é", "日本語", "'日本語'", "'\u202e\u0000'", "'\x1b[31mred'", "'<script>alert(1)</script>'"),
    *("../../etc/passwd", "/etc/passwd", "'~root/x'", "'; touch pwned; #'", "'$(touch pwned)'"),
    *("os.system", "builtins.eval", "torch.hub.load", "'!!python/object/apply:os.system [touch]'"),
    *("${seed}", "${nowhere}", "${..x}", "${data}", "${model.channels}", "${${seed}}", "${a${b}"),
    *("${oc.env:HOME}", "${oc.env:NOT_SET_AT_ALL}", "'${oc.env:HOME}'", "${oc.env:NOT_SET,3}"),
    *("${oc.decode:'[1,2'}", "${oc.create:{a:1}}", "${oc.deprecated:seed}", "${oc.select:seed}"),
    *("${oc.dict.keys:model}", "${oc.dict.values:trainer}", "${hydra:runtime.cwd}", "${now:%Y}"),
    *("${python_version:}", "${eval:1+1}", "1,2", "range(3)", "range(1,1000000000)", "glob(*)"),
    *(
        "choice(1,2)",
        "interval(0,1)",
        "sort(3,1)",
        "shuffle(1,2)",
        "int(3)",
        "str(3)",
        "json_str(3)",
    ),
]
HOSTILE_KEYS = [
    *("model._target_", "+model._partial_", "+model._args_", "+_target_", "data.name", "hydra"),
    *("hydra.run.dir", "hydra.output_subdir", "+hydra.callbacks.x._target_", "hydra/launcher"),
    *("optimizer.name", "scheduler.name", "search.storage", "allow_packages", "resume", "é", "a b"),
    *("model.é", "", ".", "..", "model.", ".model", "model..x", "model[0]", "model@data", "data/x"),
    *("__class__", "model.__init__", "model.kernal_size", "optimiser.lr", "trainer.max_epoch"),
]


def prefixed(strategy):
    return st.tuples(st.sampled_from(["", "", "", "", "+", "++", "~"]), strategy).map("".join)


@st.composite
def right_override(draw):
    key = draw(st.sampled_from(sorted(RIGHT)))
    return f"{key}={draw(st.sampled_from(RIGHT[key]))}"


@st.composite
def group_choice(draw):
    group = draw(st.sampled_from(GROUPS))
    right = FILES[group]
    wrong = [
        "../../etc/passwd",
        "/etc/passwd",
        "../model/cnn",
        "..",
        ".",
        "null",
        "3",
        "[]",
        "{a:1}",
    ]
    return f"{group}={draw(st.sampled_from(right + right + wrong))}"


values = st.one_of(
    st.sampled_from(WRONG),
    st.sampled_from(sorted({value for values in RIGHT.values() for value in values})),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=12).map(lambda text: "'" + text.replace("'", "") + "'"),
    st.text(max_size=12),
)
any_override = st.tuples(
    prefixed(st.sampled_from(KEYS) | st.sampled_from(HOSTILE_KEYS)), values
).map("=".join)
# a shell cannot hand over a zero byte
typed = st.lists(right_override() | any_override | group_choice(), min_size=1, max_size=3).map(
    lambda words: [word.replace("\0", "") for word in words]
)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([value for value in WRONG if len(value) < 100]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def stored_config(draw):
    """A whole config in which some keys were changed, taken away or added."""
    config = json.loads(json.dumps(composed()))
    config.pop("search", None)
    for _ in range(draw(st.integers(1, 3))):
        node, path = config, draw(st.sampled_from(KEYS)).split(".")
        for part in path[:-1]:
            node = node.get(part, {})
            if not isinstance(node, dict):
                node = {}
        match draw(st.sampled_from(["change", "change", "remove", "add"])):
            case "change":
                node[path[-1]] = draw(plain)
            case "remove":
                node.pop(path[-1], None)
            case _:
                node[draw(st.text(max_size=8))] = draw(plain)
    return config


# --- how it ends ------------------------------------------------------------------------------


def ending_of(arguments):
    """The way of scripts/train.py up to the training, without the process around it."""
    try:
        with initialised():
            found = OmegaConf.to_container(compose("train", arguments), resolve=True)
        return planned(found, arguments)
    except ConfigError as error:
        return refused(str(error))
    except Exception as error:
        sentence = explain(error, arguments)
        if sentence is None:
            raise
        return refused(sentence)


def planned(found, arguments):
    try:
        config = check(found)
        plan = config.plan()
    except InfeasibleGeometry:
        return "infeasible"
    assert "/" not in run_name(config, arguments, fingerprint(config))
    assert dict(flat_config(config.model_dump(by_alias=True)))
    str(plan)
    return "trains"


def refused(sentence):
    assert sentence.strip()
    assert "Traceback" not in sentence
    return "refused"


def noted(ending):
    """Counted by pytest --hypothesis-show-statistics."""
    event(ending)
    assert ending in ENDINGS


def drawn(number):
    """`number` examples, without a limit on their time, wherever the machine is busy."""
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=number, suppress_health_check=health, derandomize=True)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """No file is made where the commands were given."""
    monkeypatch.chdir(tmp_path)
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {"outputs", "stored", "conf"}


@drawn(80)
@given(arguments=typed)
def test_any_overrides_end_in_a_plan_or_in_a_sentence(arguments):
    noted(ending_of(arguments))


def ending_of_stored(config, folder):
    folder.create(Result("cnn", "12345678"))
    folder.config_file.write_text(yaml.safe_dump(config, allow_unicode=True), "utf-8")
    try:
        return planned(folder.read_config(), [])
    except ConfigError as error:
        return refused(str(error))


@drawn(120)
@given(config=stored_config())
def test_any_config_in_a_run_folder_ends_in_a_plan_or_in_a_sentence(config, tmp_path):
    noted(ending_of_stored(config, RunFolder(tmp_path / "stored")))


@drawn(20)
@given(config=plain | st.dictionaries(st.sampled_from([k for k in KEYS if "." not in k]), plain))
def test_any_yaml_of_an_experiment_ends_in_a_plan_or_in_a_sentence(config, tmp_path):
    file = tmp_path / "conf" / "experiment" / "drawn.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(config, allow_unicode=True)
    file.write_text(f"# @package _global_\n{text}", "utf-8")
    path = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    noted(ending_of([path, "experiment=drawn"]))


@pytest.mark.slow
@drawn(2000)
@given(arguments=typed)
def test_two_thousand_overrides_end_in_a_plan_or_in_a_sentence(arguments):
    noted(ending_of(arguments))


@pytest.mark.slow
@drawn(2000)
@given(config=stored_config())
def test_two_thousand_stored_configs_end_in_a_plan_or_in_a_sentence(config, tmp_path):
    noted(ending_of_stored(config, RunFolder(tmp_path / "stored")))


@pytest.mark.slow
@drawn(60)
@given(arguments=typed)
def test_the_scripts_own_process_says_the_same(arguments, tmp_path):
    with contextlib.suppress(ValueError):  # lone surrogates: no shell can hand them over
        [os.fsencode(word) for word in arguments]
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "plan.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode in (0, 2), done.stderr
        assert "Traceback" not in done.stderr
        assert (done.returncode == 2) == (
            "\nerror: " in f"\n{done.stderr}"
        )  # below warnings that were asked for


@pytest.mark.slow
@drawn(60)
@given(arguments=st.lists(right_override() | any_override, min_size=1, max_size=2))
def test_what_is_planned_can_be_trained(arguments, command, tmp_path):
    arguments = [word.replace("\0", "") for word in arguments]
    if any(word.lstrip("+~").startswith(("hydra", "output_dir", "-")) for word in arguments):
        return
    before = set((tmp_path / "outputs" / "runs").glob("*"))
    answer = command("train", *TINY, "trainer.max_epochs=1", "visual=off", *arguments)
    assert "Traceback" not in answer.err
    assert answer.code in (0, 1, 2), answer.err
    for folder in set((tmp_path / "outputs" / "runs").glob("*")) - before:
        status = json.loads((folder / "result.json").read_text())["status"]
        assert status in ("ok", "diverged", "infeasible"), (folder / "run.log").read_text()
    if answer.code == 2:
        assert answer.err.startswith("error: ")
