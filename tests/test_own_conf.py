"""A conf/ of the user's own lies over that of the package, and a stranger's does no harm."""

import json

import pytest

import convscape
from convscape import api
from convscape.base.errors import ConfigError
from convscape.config.directory import CONFIG_DIR, VARIABLE, choices
from tests.conftest import TINY

SMALL = ["data.train_size=100", "trainer.max_epochs=1", "visual=off"]
FILES = {
    "model/mine.yaml": "defaults: [mlp]\nhidden: [7]\n",
    "data/few.yaml": "defaults: [digits]\ntrain_size: 100\n",
    "experiment/first.yaml": (
        "# @package _global_\ndefaults: [override /model: mine, override /data: few]\n"
        "trainer: {max_epochs: 1}\n"
    ),
    "sweep/two.yaml": (
        "# @package _global_\nname: two\nhydra: {sweeper: {params: {seed: '0,1'}}}\n"
    ),
    "search/one.yaml": (
        "defaults: [geometry]\ntrials: 1\nspace: {model: {kernel_size: {choices: [3, 5]}}}\n"
    ),
}


def lay(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(autouse=True)
def no_named_folder(monkeypatch, tmp_path):
    """--config-dir sets it for the processes that follow; here they are the other tests."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["conf", "--config-dir", "-cd", VARIABLE])
def place(request, tmp_path, monkeypatch):
    """What is typed beside a command, where one's own choices lie in each of the places."""
    folder = tmp_path / ("conf" if request.param == "conf" else "elsewhere")
    lay(folder, FILES)
    if request.param == VARIABLE:
        monkeypatch.setenv(VARIABLE, "elsewhere")
    return [request.param, "elsewhere"] if request.param.startswith("-") else []


def results(folder):
    return [json.loads(file.read_text()) for file in folder.glob("**/result.json")]


def test_ones_own_choices_are_trained_planned_swept_and_listed(command, tmp_path, place):
    assert "hidden1" in command("plan", *place, "model=mine").out
    assert command("train", "experiment=first", *place).code == 0
    (result,) = results(tmp_path / "outputs" / "runs")
    assert result["num_parameters"] == 28 * 28 * 7 + 7 + 7 * 10 + 10
    answer = command("train", *place, "-m", "sweep=two", "experiment=first", "visual=off")
    assert answer.code == 0, answer.err
    assert len(results(tmp_path / "outputs" / "sweeps" / "two")) == 2
    helped = command("train", *place, "--help").out
    assert "cnn_color, mine, mlp" in helped
    assert "did you mean 'mine'" in command("plan", *place, "model=mien").err


def test_ones_own_search_is_searched(command, tmp_path):
    pytest.importorskip("optuna")
    lay(tmp_path / "conf", FILES)
    answer = command("search", "search=one", "search.confirm.best=0", *SMALL)
    assert answer.code == 0, answer.err
    assert len(results(tmp_path / "outputs" / "searches" / "one")) == 1


def test_python_takes_them_too(tmp_path):
    with pytest.raises(ConfigError, match="model=mine: there is no such choice"):
        convscape.plan("model=mine")
    lay(tmp_path / "conf", FILES)
    assert convscape.plan("model=mine").num_parameters == 28 * 28 * 7 + 7 + 7 * 10 + 10
    assert api.compose("experiment=first")["data"]["train_size"] == 100


def test_what_both_have_is_ones_own(tmp_path):
    packaged = (CONFIG_DIR / "optimizer" / "adam.yaml").read_text()
    lay(tmp_path / "conf", {"optimizer/adam.yaml": packaged.replace("lr: 0.00", "lr: 0.07")})
    assert api.compose()["optimizer"]["lr"] > 0.07
    assert list(choices("optimizer")).count("adam") == 1


def test_the_folder_of_the_package_counts_once(monkeypatch):
    before = choices("model")
    monkeypatch.chdir(CONFIG_DIR.parent)
    assert choices("model") == before
    monkeypatch.setenv(VARIABLE, str(CONFIG_DIR))
    assert choices("model") == before
    assert api.compose("model=mlp")["model"]["hidden"] == [512, 512]


def test_a_claim_of_ones_own_has_a_name(command, tmp_path):
    claim = (CONFIG_DIR / "claim" / "depth.yaml").read_text()
    lay(tmp_path / "conf", {"claim/mine.yaml": claim.replace("Two small kernels", "Mine alone")})
    assert "Mine alone" in command("claim", "list").out


def test_a_folder_that_is_not_there_is_named(command, monkeypatch):
    answer = command("plan", "--config-dir", "nowhere")
    assert (answer.code, "--config-dir nowhere: allowed: a folder" in answer.err) == (2, True)
    monkeypatch.setenv(VARIABLE, "nowhere")
    answer = command("plan")
    assert (answer.code, f"{VARIABLE}=nowhere: there is no such folder" in answer.err) == (2, True)


HEAD = "# @package _global_\n"
STRANGERS = {
    "a package that would be allowed": HEAD + "allow_packages: [evilparts]\n",
    "the sweeper": HEAD + "hydra: {sweeper: {_target_: evilparts.Touch}}\n",
    "the launcher": HEAD + "hydra: {launcher: {_target_: evilparts.Touch}}\n",
    "a callback": HEAD + "hydra: {callbacks: {x: {_target_: evilparts.Touch}}}\n",
    "the log": HEAD + "hydra: {job_logging: {version: 1, filters: {x: {(): evilparts.Touch}}}}\n",
    "another place": "# @package hydra.callbacks.x\n_target_: evilparts.Touch\n",
    "another place, globally": "# @package _global_.hydra.callbacks.x\n_target_: evilparts.Touch\n",
    "a file put there": HEAD + "defaults: [/experiment/part@hydra.callbacks.x: part]\n",
    "a launcher of its own": HEAD + "defaults: [override /hydra/launcher: evil]\n",
    "a value of a sweep": HEAD + "hydra: {sweeper: {params: {allow_packages: '[evilparts]'}}}\n",
    "Hydra in a sweep": HEAD + "hydra: {sweeper: {params: {+hydra.callbacks.x: '{}'}}}\n",
    "what the environment holds": HEAD + "name: ${oc.env:SECRET}\n",
    "what it holds, in parts": HEAD + "a: $\nname: ${a}{oc.env:SECRET}\n",
    "a key that is worked out": HEAD + "defaults: [{'model@$x': cnn}]\n",
    "what it holds, hidden": HEAD + "a: env\nname: ${oc.${a}:SECRET}\n",
    "a package in a search": HEAD + "search: {space: {allow_packages: {choices: [x]}}}\n",
}  # fmt: skip


@pytest.mark.parametrize("text", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("way", [["train"], ["train", "-m", "seed=0,1", "name=x"], ["plan"]])
def test_a_strangers_conf_runs_no_code(command, tmp_path, monkeypatch, text, way):
    (tmp_path / "evilparts.py").write_text("open('touched', 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SECRET", "a password")
    stranger = {"experiment/evil.yaml": text, "experiment/part.yaml": "_target_: evilparts.Touch\n"}
    lay(tmp_path / "conf", stranger)
    script, *words = way
    answer = command(script, *words, "experiment=evil", "model=own", "model._target_=evilparts.Net")
    assert answer.code == 2
    assert "conf/experiment/evil.yaml: " in answer.err
    assert "may be a stranger's" in answer.err
    assert "a password" not in answer.out + answer.err
    assert not (tmp_path / "touched").exists()


def test_hydras_own_groups_and_the_main_config_are_not_a_strangers(command, tmp_path):
    evil = "_target_: evilparts.Touch\n"
    lay(tmp_path / "conf", {
        "hydra/launcher/basic.yaml": evil, "hydra/sweeper/convscape.yaml": evil,
        "hydra/job_logging/none.yaml": evil, "train.yaml": "hydra: {callbacks: {x: {}}}\n",
    })  # fmt: skip
    assert command("train", "-m", "seed=0,1", "name=two", *TINY).code == 0
    assert len(results(tmp_path / "outputs" / "sweeps" / "two")) == 2


def test_a_strangers_claim_allows_no_package(command, tmp_path):
    claim = (CONFIG_DIR / "claim" / "depth.yaml").read_text()
    text = claim.replace("base: [", "base: ['allow_packages=[evilparts]', ")
    lay(tmp_path / "conf", {"claim/mine.yaml": text})
    answer = command("claim", "mine")
    assert (answer.code, "may be a stranger's" in answer.err) == (2, True)


def test_a_folder_that_is_named_is_trusted(command, tmp_path, monkeypatch):
    (tmp_path / "trustedparts.py").write_text(
        "from convscape import MLP\nclass Mine(MLP):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = HEAD + (
        "defaults: [override /model: own]\nallow_packages: [trustedparts]\n"
        "model: {_target_: trustedparts.Mine, hidden: [4]}\n"
    )
    lay(tmp_path / "conf", {"experiment/mine.yaml": text})
    assert command("train", "experiment=mine", *SMALL).code == 2
    assert command("train", "--config-dir", "conf", "experiment=mine", *SMALL).code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "mine.yaml cannot be read: "),
        ("# @package a b c\nx: 1\n", "mine.yaml cannot be read: Too many components"),
        ("\xff", "mine.yaml cannot be read: "),
        ("[1]", ""),
        ("layers: {a: {&x b: 1}}", ""),
    ],
)
def test_a_file_that_is_wrong_is_named(command, tmp_path, text, said):
    file = tmp_path / "conf" / "model" / "mine.yaml"
    lay(tmp_path, {"conf/model/mine.yaml": ""})
    file.write_bytes(text.encode("latin-1"))
    answer = command("plan", "model=mine")
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    # a wrong file is in the way of no other
    assert "there is no such key" in command("plan", "model.hiden=3", "momentum=3").err


LIST = HEAD + "defaults:\n"
MISREAD = [  # a choice's file, what is said of it, and the file as that says
    ("experiment", "seed: 1", "its first line must be '# @package _global_'", HEAD + "seed: 1"),
    ("sweep", f"# mine\n{HEAD}seed: 1", "its first line must be '# @package", HEAD + "seed: 1"),
    ("experiment", LIST + "- model: mlp", "must be '- override /model: mlp'",
     LIST + "- override /model: mlp"),
    ("experiment", LIST + "- /data: mnist", "must be '- override /data: mnist'",
     LIST + "- override /data: mnist"),
    ("sweep", LIST + "- override model: mlp", "must be '- override /model: mlp'",
     LIST + "- override /model: mlp"),
    ("experiment", HEAD + "model: mlp", "below 'defaults:' as '- override /model: mlp'",
     LIST + "- override /model: mlp"),
    ("experiment", HEAD + "logger: [csv]", "below 'defaults:' as '- override /logger: [csv]'",
     LIST + "- override /logger: [csv]"),
    ("experiment", HEAD + "data.augment.shift: 2", "write 'data: {augment: {shift: 2}}'",
     HEAD + "data: {augment: {shift: 2}}"),
    ("sweep", HEAD + "model.stride: 1,2", "'hydra: {sweeper: {params: {model.stride: ...}}}'",
     HEAD + "hydra: {sweeper: {params: {model.stride: '1,2'}}}"),
    ("model", "hidden: [4]", "with 'defaults: [cnn]' as its first line",
     "defaults: [mlp]\nhidden: [4]"),
    ("optimizer", "optimizer: {lr: 0.1}", "leave out the line 'optimizer:'",
     "defaults: [adam]\nlr: 0.1"),
]  # fmt: skip


@pytest.mark.parametrize(("group", "text", "said", "mended"), MISREAD)
def test_a_file_that_hydra_would_misread_says_what_to_write(
    command, tmp_path, group, text, said, mended
):
    words = ["plan", "-m", "seed=0,1"] if group == "sweep" else ["plan"]
    lay(tmp_path / "conf", {f"{group}/mine.yaml": text})
    for trust in ([], ["--config-dir", "conf"]):
        answer = command(*words, f"{group}=mine", *trust)
        assert answer.code == 2
        assert f"conf/{group}/mine.yaml: " in answer.err
        assert said in answer.err
    lay(tmp_path / "conf", {f"{group}/mine.yaml": mended})
    answer = command(*words, f"{group}=mine")
    assert answer.code == 0, answer.err


def test_a_file_whose_name_ends_in_yml_is_told_how_to_end(command, tmp_path):
    lay(tmp_path / "conf", {"model/mine.yml": "defaults: [mlp]\n"})
    answer = command("plan", "model=mine")
    assert answer.code == 2
    assert "mine.yml mine.yaml, and it is one" in answer.err


def test_another_program_that_uses_hydra_is_left_alone(tmp_path):
    import hydra

    lay(tmp_path / "conf", FILES)
    lay(tmp_path / "other", {"config.yaml": "a: 1\n"})
    with hydra.initialize_config_dir(str(tmp_path / "other"), version_base="1.3"):
        assert hydra.compose("config") == {"a": 1}
        assert hydra.compose("config", ["+model=mine"]) == {"a": 1, "model": "mine"}  # no choice
