"""What a stranger sends is looked at and never run: run folders, checkpoints, names, pages."""

import io
import json
import os
import pickle
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from convscape.base.terminal import format_table, say
from convscape.data import cache
from convscape.data.datasets import load_images
from convscape.models.networks import CNN
from convscape.reports.page import write_report
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.trained import explain
from convscape.trained.load import TrainedRun
from convscape.training.run import train
from tests.conftest import ROOT, TINY
from tests.fake_runs import a_claim, write_runs
from tests.test_config import checked
from tests.test_files import BOMB


class Payload:
    """Unpickled without care, it writes `pwned` where the command was given."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    overrides = [*TINY, "trainer.max_epochs=1", "visual=off"]
    assert train(ResolvedRun(checked(*overrides), overrides), path).status == "ok"
    return path


@pytest.fixture
def run(trained_run, tmp_path):
    """A run folder that a stranger may spoil."""
    return RunFolder(Path(shutil.copytree(trained_run, tmp_path / "run")))


@pytest.fixture(autouse=True)
def nothing_of_it_ran(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("pwned*"))


def change_config(run, **changes):
    """Changed keys of config.yaml, `__` for the dot; the run is to be gone on with."""
    config = run.read_config()
    for key, value in {"trainer__max_epochs": 2, **changes}.items():
        *path, leaf = key.split("__")
        node = config
        for part in path:
            node = node[part]
        node[leaf] = value
    run.config_file.write_text(yaml.safe_dump(config))
    result = json.loads(run.result_file.read_text())
    run.result_file.write_text(
        json.dumps(result | {"status": "interrupted", "error": {"type": "x", "message": "y"}})
    )


def refused(answer, words):
    assert answer.code == 2, (answer.out, answer.err)
    assert re.search(words, answer.err), answer.err
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1


COMMANDS = {
    "evaluate": (),
    "predict": ("picture.png",),
    "explain": ("3",),
    "probe": ("prune",),
}


@pytest.fixture
def commands(command, run, tmp_path):
    """Every command that opens a run, each as a function without arguments."""
    Image.new("L", (28, 28)).save(tmp_path / "picture.png")
    ways = [
        lambda script=script, words=words: command(script, run.path, *words)
        for script, words in COMMANDS.items()
    ]
    return [*ways, lambda: command("train", f"resume={run.path}")]


# --- checkpoints ------------------------------------------------------------------------------


def whole(file, checkpoint):
    torch.save(Payload(), file)


def inside(file, checkpoint):
    torch.save({**checkpoint, "callbacks": {"x": Payload()}}, file)


def among_the_weights(file, checkpoint):
    torch.save({**checkpoint, "state_dict": {**checkpoint["state_dict"], "x": Payload()}}, file)


def old_format(file, checkpoint):
    torch.save(Payload(), file, _use_new_zipfile_serialization=False)


def script_archive(file, checkpoint):
    """A TorchScript archive, which torch.load would rather hand to its interpreter."""
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(file))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (whole, "wants to call posix.system, which no checkpoint needs"),
        (inside, "wants to call posix.system"),
        (among_the_weights, "wants to call posix.system"),
        (old_format, "wants to call posix.system"),
        (
            lambda file, _: file.write_bytes(pickle.dumps(Payload())),
            "is damaged or not a checkpoint",
        ),
        (script_archive, "cannot be read"),
    ],
    ids=["whole", "inside", "weights", "old format", "plain pickle", "script"],
)
def test_a_checkpoint_that_wants_to_run_code_is_refused_by_every_command(
    run, commands, spoil, words
):
    checkpoint = torch.load(run.best_checkpoint, weights_only=True)
    change_config(run)
    for file in (run.best_checkpoint, run.last_checkpoint):
        file.unlink()
        spoil(file, checkpoint)
    before = run.result_file.read_bytes()
    for ask in commands:
        refused(ask(), words)
    assert run.result_file.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"hyper_parameters": None},
        {"hyper_parameters": {"os.system": "touch pwned"}},
        {"hyper_parameters": {"input_shape": [10**6, 10**6, 10**6], "num_classes": 10**6}},
        {"state_dict": {"network.output.weight": torch.zeros(1)}},
        {"state_dict": [1]},
        {"classes": ["only", "two"]},
        {"classes": list(range(10))},
        {"mean": [0.5, 0.5, 0.5, 0.5]},
    ],
)
def test_a_checkpoint_of_another_network_is_one_sentence(run, command, changes):
    checkpoint = torch.load(run.best_checkpoint, weights_only=True)
    training = checkpoint["hyper_parameters"]["training"]
    for key, value in changes.items():
        (training if key in training else checkpoint)[key] = value
    torch.save(checkpoint, run.best_checkpoint)
    refused(command("evaluate", run.path), r"best\.ckpt (does not hold|cannot be read)")


def test_a_checkpoint_cut_off_or_garbled_anywhere_is_one_sentence(run, command):
    content = run.best_checkpoint.read_bytes()
    dice = np.random.default_rng(0)
    for place in dice.integers(len(content), size=10):
        run.best_checkpoint.write_bytes(content[:place])
        refused(command("evaluate", run.path), r"best\.ckpt cannot be read")
    for place in dice.integers(len(content), size=10):
        garbled = content[:place] + bytes([content[place] ^ 85]) + content[place + 1 :]
        run.best_checkpoint.write_bytes(garbled)
        answer = command("evaluate", run.path)
        assert answer.code in (0, 2)
        assert "Traceback" not in answer.err


# --- run folders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["os.system", "torch.hub.load", "builtins.eval", "convscape.data.cache.load_or_build"]
)
def test_a_config_that_names_a_function_to_call_is_refused_by_every_command(run, commands, target):
    change_config(run, model={"_target_": target, "command": "touch pwned"}, allow_packages=["os"])
    for ask in commands:
        refused(ask(), rf"model\._target_={target}: allowed: a network of torchvision")


@pytest.mark.parametrize(
    "tag",
    [
        '!!python/object/apply:os.system ["touch pwned"]',
        '!!python/object/new:os.system ["touch pwned"]',
        "!!python/name:os.system",
        "!!python/module:os",
        '!!python/object/apply:subprocess.Popen [["touch", "pwned"]]',
    ],
)
def test_yaml_tags_make_no_objects(run, command, tag, tmp_path):
    text = f"seed: {tag}\n"
    run.config_file.write_text(text)
    refused(command("evaluate", run.path), "config.yaml is damaged.*python")
    theirs = tmp_path / "theirs" / "experiment" / "x.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(f"# @package _global_\n{text}")
    place = f"hydra.searchpath=[file://{tmp_path / 'theirs'}]"
    refused(command("plan", place, "experiment=x"), "python")


def test_yaml_tags_in_the_note_of_a_sweep_make_no_objects(command, tmp_path):
    folder = tmp_path / "outputs" / "sweeps" / "theirs"
    folder.mkdir(parents=True)
    write_runs(folder, seeds=1, levels={"model.stride": [1, 2]})
    (folder / "sweep.yaml").write_text('seed: !!python/object/apply:os.system ["touch pwned"]')
    refused(command("train", "-m", "name=theirs", "seed=1,2"), "sweep.yaml is damaged")
    assert command("report", folder).code == 0
    (folder / "sweep.yaml").write_text(BOMB)
    refused(command("train", "-m", "name=theirs", "seed=1,2"), "sweep.yaml is damaged")
    assert command("report", folder).code == 0


def test_resolvers_in_a_run_folder_stay_text(run, command, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "hunter2")
    text = "${oc.env:SECRET}"
    change_config(
        run,
        data__name="image_folder",
        data__image_size=28,
        data__root=text,
        output_dir=text,
    )
    for answer in (command("evaluate", run.path), command("train", f"resume={run.path}")):
        refused(answer, r"no folder '.*\$\{oc\.env:SECRET\}'")
        assert "hunter2" not in answer.out + answer.err
    folder = tmp_path / "sweep"
    folder.mkdir()
    write_runs(folder, seeds=2, levels={"model.stride": [1, 2]}, environment={"cpu": text})
    assert command("report", folder).code == 0
    page = (folder / "report.html").read_text()
    assert text in page
    assert "hunter2" not in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "config.yaml is damaged: it has an alias or an anchor"),
        (f"{BOMB}model: {{kernel_size: *i}}\n", "it has an alias"),
        ("seed: &loop [*loop]\n", "config.yaml is damaged: it has an alias or an anchor"),
        (f"seed: [{'x,' * 200_000}]\n", "seed=['x', 'x'"),
        (f"model: {{channels: [{'x,' * 200_000}]}}\n", "error: "),
        (f"? {'x' * 500_000}\n: 1\n", "there is no such key"),
        (f"name: {'x' * 500_000}\n", "error: "),
        (f"seed: 0x{'f' * 20_000}\n", "config.yaml is damaged: a number in it has more"),
        (f"data: {{mean: [!!int '-0b{'1' * 20_000}']}}\n", "config.yaml is damaged: a number"),
        ("[" * 100_000, "config.yaml is damaged"),
        ("data: {" * 3000, "config.yaml is damaged"),
        ("\0", "config.yaml is damaged"),
        ("- 1\n", "config.yaml is damaged: it holds no keys"),
        ("", "config.yaml is damaged: it holds no keys"),
    ],
    ids=[
        *("bomb", "used bomb", "loop", "many", "many channels", "long key", "long name"),
        *("endless hexadecimal", "endless binary", "deep list", "deep keys"),
        *("zero", "list", "empty"),
    ],
)  # fmt: skip
def test_a_config_made_to_overwhelm_is_refused_at_once(run, command, text, words):
    run.config_file.write_text(text)
    started = time.process_time()
    answer = command("evaluate", run.path)
    assert answer.code == 2
    assert words in answer.err
    assert len(answer.err) < 10_100
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "document",
    [
        [],
        "[" * 100_000,
        {"status": "owned"},
        {"overrides": [3]},
        {"overrides": "model.stride=2"},
        {"status": "interrupted", "error": None},
        {"status": "failed", "error": {"type": 3, "message": ["x"]}},
        {"num_parameters": "many"},
        {"receptive_field": [1]},
        {"metrics": {"val/acc": "high"}},
        {"attempts": "2"},
    ],
)
def test_a_result_of_another_kind_counts_as_none(run, command, document):
    content = document
    if isinstance(document, dict):
        content = json.dumps(json.loads(run.result_file.read_text()) | document)
    run.result_file.write_text(content if isinstance(content, str) else json.dumps(content))
    assert run.read_result() is None
    refused(command("report", run.path), "result.json is damaged")
    assert command("train", f"resume={run.path}").code == 0


def test_a_prepared_data_set_is_no_pickle(tmp_path):
    load_images("digits", root="nowhere", cache_dir=tmp_path)
    (folder,) = tmp_path.glob("digits-*")
    assert {path.name for path in folder.iterdir()} == {"meta.json", *cache.FILES}
    for name in cache.FILES:
        np.load(folder / name, allow_pickle=False)
    # a stranger's cache: an array of objects, its facts changed accordingly
    evil = io.BytesIO()
    np.save(evil, np.array([Payload()], dtype=object), allow_pickle=True)
    (folder / "test_labels.npy").write_bytes(evil.getvalue())
    sealed = json.loads((folder / "meta.json").read_text())
    facts = sealed["meta"]["files"]["test_labels.npy"]
    facts.update(bytes=len(evil.getvalue()), shape=[1], dtype="object")
    sealed["crc32"] = cache._crc32_of(sealed["meta"])
    (folder / "meta.json").write_text(json.dumps(sealed))
    assert len(load_images("digits", root="nowhere", cache_dir=tmp_path).test_labels) == 359
    sealed["meta"]["files"]["../../outside.npy"] = facts
    sealed["crc32"] = cache._crc32_of(sealed["meta"])
    (folder / "meta.json").write_text(json.dumps(sealed))
    assert len(load_images("digits", root="nowhere", cache_dir=tmp_path).test_labels) == 359


# --- pages and terminals ----------------------------------------------------------------------

SCRIPTS = [
    "<img src=x onerror=pwned=1>",
    "<script>pwned=1</script>",
    "</script><script>pwned=1</script>",
    "<!--<script>",
    "'\"><svg onload=pwned=1>",
    "{{ 7 * 191 }}{% raw %}",
    "<a href=\"javascript:pwned=1\">x</a>",
    "</title></style><iframe srcdoc='<script>parent.pwned=1</script>'>",
    "${pwned=1}`;pwned=1//",
    r"$\frac{$ %{x} \u003cscript\u003e",
]  # fmt: skip


def opened_without_a_script_of_theirs(browser, path):
    """The page in a real browser, every link of it clicked that is not ours."""
    page = browser.new_page(offline=True)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(path.as_uri())
    page.wait_for_timeout(300)
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.locator("iframe, a[href^='javascript'], img[src='x']").count() == 0
    assert page.locator("svg[onload], [onerror]").count() == 0
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests), requests
    assert not complaints
    return page


def test_no_script_in_names_runs_on_the_page_of_an_image(browser, tmp_path):
    torch.manual_seed(0)
    training = {"mean": [0.5], "std": [0.5], "classes": SCRIPTS}
    model = CNN((1, 12, 12), len(SCRIPTS), channels=[3], training=training).eval()
    image = torch.zeros(1, 12, 12, dtype=torch.uint8)
    for number, name in enumerate(SCRIPTS[2:5]):
        run = TrainedRun(Path(name), None, model)
        explain.write_page(run, image, name, number, tmp_path / "page.html")
        page = opened_without_a_script_of_theirs(browser, tmp_path / "page.html")
        assert page.locator("#title").text_content() == f"{Path(name).name}: {name}"
        table = page.locator("#softmax").text_content()
        assert all(each in table for each in SCRIPTS)
        page.close()


def hostile_sweep(folder):
    """A sweep with scripts wherever a stranger can write: values, names, reasons, hardware."""
    folder.mkdir(parents=True)
    levels = {"model.kernel_size": [3, 5], "model.padding": SCRIPTS}
    truth = {3: 0.0, 5: 0.01}
    from tests import fake_runs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fake_runs, "accuracy", lambda cell, noise: 0.9 + truth[cell["model.kernel_size"]]
        )
        write_runs(folder, seeds=2, levels=levels)  # fmt: skip
    for number, file in enumerate(sorted(folder.glob("*/result.json"))):
        evil = SCRIPTS[number % len(SCRIPTS)]
        document = json.loads(file.read_text())
        document["run"] = evil
        document["environment"] = {"cpu": evil, evil: evil}
        document["config"]["data"]["name"] = SCRIPTS[0]
        document["config"]["model"][SCRIPTS[1]] = evil
        document["metrics"][SCRIPTS[2]] = 0.5
        if number % 7 == 0:
            document |= {"status": "failed", "error": {"type": evil, "message": evil}}
        file.write_text(json.dumps(document))
    broken = folder / "'\"><svg onload=pwned=1>"
    broken.mkdir()
    (broken / "result.json").write_text(json.dumps({"run": SCRIPTS[1]}))


def test_no_script_in_names_runs_on_the_page_of_a_sweep(browser, tmp_path):
    folder = tmp_path / "<img src=x onerror=pwned=1>"
    hostile_sweep(folder)
    picture = tmp_path / "picture.png"
    Image.new("L", (8, 8)).save(picture)
    # what a claim's report adds to the page
    pictures = [(evil, picture) for evil in SCRIPTS]
    report = write_report([folder], claim=a_claim(" ".join(SCRIPTS)), pictures=pictures)
    page = opened_without_a_script_of_theirs(browser, report.folder / "report.html")
    text = page.locator("body").text_content()
    assert all(evil in text for evil in SCRIPTS)
    for part in page.locator("svg .effect, svg .cell, svg .point").all()[:60]:
        part.dispatch_event("pointermove")
    page.get_by_role("tab", name="Runs").click()
    page.locator(".runs tbody tr").first.click()
    assert page.evaluate("typeof pwned") == "undefined"
    page.close()


def test_no_name_steers_the_terminal_or_breaks_it(capsys):
    say(
        "red \x1b[31m",
        "bell \a title \x1b]0;x\a",
        "turned \u202e",
        os.fsdecode(b"\xff.png"),
        "é\t日本",
    )
    assert capsys.readouterr().out == (
        "red \ufffd[31m\nbell \ufffd title \ufffd]0;x\ufffd\nturned \ufffd\n\ufffd.png\né\t日本\n"
    )
    assert format_table([("a", "b"), ("x\ny", "z")]).splitlines()[2] == "x y  z"


def test_file_names_of_any_bytes_are_answered(command, trained_run, tmp_path):
    for name in (b"\xff\xfe.png", b"\x1b[2J.png", "日本語 ü.png".encode(), b"new\nline.png"):
        Image.new("L", (28, 28)).save(tmp_path / "plain.png")
        (tmp_path / "plain.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    answer = command("predict", trained_run, tmp_path)
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == 2 + 4
    assert "\x1b" not in answer.out


# --- doors and secrets ------------------------------------------------------------------------


def test_every_command_for_tensorboard_binds_it_to_this_machine():
    found = []
    for folder in ("src", "scripts", "conf", "docs", "README.md", "SECURITY.md", "Makefile"):
        paths = [ROOT / folder] if (ROOT / folder).is_file() else (ROOT / folder).rglob("*")
        for path in paths:
            if path.suffix in (".py", ".md", ".yaml", ".j2", "") and path.is_file():
                found += re.findall(r"tensorboard\b[^\n]*--logdir[^\n]*", path.read_text("utf-8"))
    assert len(found) >= 3
    assert all(line.startswith("tensorboard --host 127.0.0.1 ") for line in found), found


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_package_of_a_lock_file_has_its_hashes_and_no_address(name):
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 50
    for line in lines:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+ ", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
        assert "://" not in line


@pytest.fixture
def no_secret(command, tmp_path):
    """Run a search whose storage has a password, and look for it everywhere afterwards."""
    pytest.importorskip("optuna")

    def run(storage, *words, secret="s3cret"):
        answer = command("search", "search.trials=1", f"search.storage={storage}", *words)
        assert secret not in answer.out + answer.err
        for path in tmp_path.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
        return answer

    return run


def test_the_password_of_a_storage_that_works_is_written_nowhere(no_secret, tmp_path):
    storage = f"'sqlite:///file:{tmp_path}/study.db?uri=true&password=s3cret'"
    answer = no_secret(storage, *TINY[1:], "trainer.max_epochs=1", "visual=off", "name=hidden")
    assert answer.code == 0, answer.err
    assert list((tmp_path / "outputs" / "searches" / "hidden").glob("*/result.json"))
    assert (tmp_path / "outputs" / "searches" / "hidden" / "report.html").is_file()


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql://me:s3cret@127.0.0.1:1/studies",
        "'postgresql://me:s3cret@pass@127.0.0.1:1/studies?password=s3cret'",
        "mysql://me:s3cret@127.0.0.1:1/studies",
        "nonsense://me:s3cret@host/x",
        "[postgresql://me:s3cret@host/x]",
        "{a:postgresql://me:s3cret@host/x}",
        "postgresql://me:s3cret@ho{st",
    ],
)
def test_the_password_of_a_storage_that_fails_is_not_printed(no_secret, storage):
    answer = no_secret(storage)
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err


def test_a_password_given_to_another_command_is_not_printed(command):
    words = "search.storage=postgresql://me:s3cret@host/x"
    for script in ("train", "plan"):
        answer = command(script, words, "search=geometry")
        assert answer.code == 2
        assert "s3cret" not in answer.out + answer.err


def test_a_search_without_a_name_is_one_sentence(command):
    pytest.importorskip("optuna")
    refused(command("search", "name=null"), "a search needs a name")
