"""What is said of words that Hydra or the config does not take, and that its advice is accepted."""

import itertools
import re
import shlex

import hydra
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convscape.base.errors import ConfigError
from convscape.config import aliases
from convscape.config.check import check
from convscape.config.sentences import explain
from convscape.config.typed import known_keys, no_option, refusal, refuse_misread
from tests.test_config import initialised


def said_of(*words):
    """The sentence that plan.py and train.py answer with; None where they take the words."""
    if words[0].startswith("-"):
        return no_option(words[0].partition("=")[0], words)
    with initialised():
        try:
            refuse_misread(words)
            check(OmegaConf.to_container(hydra.compose("train", list(words)), resolve=True))
        except ConfigError as error:
            return str(error)
        except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
            return explain(error, words)
    return None


# what was typed, and what the sentence tells to write instead
ADVISED = [
    (["model.channels=[32,", "64]"], ["model.channels=[32,64]"]),
    (["model.channels=[32", "64]"], ["model.channels=[32,64]"]),
    (["model.dropout=[", "0.1", ",", "0.2]"], ["model.dropout=[0.1,0.2]"]),
    (["data", "=", "mnist"], ["data=mnist"]),
    (["data=", "mnist"], ["data=mnist"]),
    (["data", "=mnist"], ["data=mnist"]),
    (["data", "mnist"], ["data=mnist"]),
    (["model.kernel_size", "5"], ["model.kernel_size=5"]),
    (["kernel_size", "5"], ["model.kernel_size=5"]),
    (["model.hidden=[32,", "64]"], ["model=mlp model.hidden=[32,64]"]),
    (["mnist"], ["data=mnist"]),
    (["mlp", "mnist"], ["model=mlp"]),
    (["model.kernel_size=(3,3)"], ["model.kernel_size=3", "model.kernel_size=[3,3]"]),
    (["model.kernel_size=(3, 5)"], ["model.kernel_size=3x5", "model.kernel_size=[3,5]"]),
    (["data.image_size=(32,24)"], ["data.image_size=32x24"]),
    (["model.channels=(32,64)"], ["model.channels=[32,64]"]),
    (["model.activation={relu,tanh}"], ["model.activation=[relu,tanh]"]),
    (["model.kernel_size=3,3"], ["model.kernel_size=3", "model.kernel_size=[3,3]"]),
    (["data.image_size=28,28"], ["data.image_size=28"]),
    (["model.channels=32,64"], ["model.channels=[32,64]"]),
    (["data.root=/home/José"], ["data.root='/home/José'"]),
    (["--model", "mlp"], ["model=mlp"]),
    (["--model=mlp"], ["model=mlp"]),
    (["--epochs", "5"], ["trainer.max_epochs=5"]),
    (["--batch-size", "64"], ["data.batch_size=64"]),
    (["--lr=0.1"], ["optimizer.lr=0.1"]),
    (["--model.kernel_size", "5"], ["model.kernel_size=5"]),
    (["--seed=3"], ["seed=3"]),
    (["lr=0.1"], ["optimizer.lr=0.1"]),
    (["epochs=5"], ["trainer.max_epochs=5"]),
    (["gpus=1"], ["trainer.devices=1"]),
    (["trainer.gpus=1"], ["trainer.devices=1"]),
    (["trainer.accelerator=gpu"], ["trainer.device=cuda"]),
    (["optimizer.learning_rate=0.1"], ["optimizer.lr=0.1"]),
    (["batch_size=64"], ["data.batch_size=64"]),
    (["stride=2"], ["model.stride=2"]),
    (["data.seed=3"], ["seed=3"]),
    (["data.path=x"], ["data.root=x"]),
    (["train_size=100"], ["data.train_size=100"]),
    (["model.act=swish"], ["model.activation=silu"]),
    (["model=mlp", "hidden_sizes=[5]"], ["model.hidden=[5]"]),
    (["+lr=0.1"], ["optimizer.lr=0.1"]),
    (["++trainer.accelerator=gpu"], ["trainer.device=cuda"]),
    (["model=mlp", "+hidden_sizes=[5]"], ["model.hidden=[5]"]),
    # a section is chosen, not its name
    (["optimizer.name=sgd"], ["optimizer=sgd"]),
    (["scheduler.name=cosine"], ["scheduler=cosine"]),
    (["data.name=mnist"], ["data=mnist"]),
    (["model._target_=convscape.models.MLP"], ["model=mlp"]),
    (["model._target_=CNN"], ["model=cnn"]),
    # a decimal comma
    (["optimizer.lr=0,001"], ["optimizer.lr=0.001"]),
    (["model.dropout=0,5"], ["model.dropout=0.5"]),
    (["optimizer.weight_decay=0,1"], ["optimizer.weight_decay=0.1"]),
    # keys of another choice, and values that are called otherwise
    (["momentum=0.9"], ["optimizer=sgd optimizer.momentum=0.9"]),
    (["optimizer.momentum=0.9"], ["optimizer=sgd optimizer.momentum=0.9"]),
    (["+momentum=0.9"], ["optimizer=sgd optimizer.momentum=0.9"]),
    (["milestones=[1,2]"], ["scheduler=multistep scheduler.milestones=[1,2]"]),
    (["optimizer=sgd", "momentum=0.5"], ["optimizer.momentum=0.5"]),
    (["units=128"], ["model=mlp model.hidden=[128]"]),
    (["filters=32"], ["model.channels=[32]"]),
    (["--dense", "128"], ["model.dense=[128]"]),
    (["activation=linear"], ["model.activation=none"]),
    (["loss=categorical_crossentropy"], ["model.loss=cross_entropy"]),
    (["model.loss=nll"], ["model.loss=cross_entropy"]),
    (["--amp"], ["trainer.precision=bf16"]),
    (["fp16=true"], ["trainer.precision=bf16"]),
    (["precision=32-true"], ["trainer.precision=fp32"]),
    (["trainer.precision=16-mixed"], ["trainer.precision=bf16"]),
    (["verbose=0"], ["trainer.progress=off"]),
    (["hflip=0.5"], ["data.augment.flip=true"]),
    (["augment=flip"], ["data.augment.flip=true"]),
    (["data.augment=flip"], ["data.augment.flip=true"]),
    (["eval_metric=val_loss"], ["trainer.monitor=val/loss"]),
    (["in_chans=1"], ["data.channels=1"]),
    (["gp=avg"], ["model.head=global_avg"]),
    # choices that are called otherwise, or are of another group
    (["logger=none"], ["logger=[]"]),
    (["logger=false"], ["logger=[]"]),
    (["scheduler=null"], ["scheduler=constant"]),
    (["scheduler=cosine_annealing"], ["scheduler=cosine"]),
    (["model=lenet5"], ["experiment=lenet5"]),
    (["experiment=mnist"], ["data=mnist"]),
    (["model=logistic"], ["model=mlp model.hidden=[]"]),
    (["data=cifar10", "model.channels=[8]"], ["model.dropout=0.0", "model=cnn"]),
]


@pytest.mark.parametrize(("words", "advised"), ADVISED, ids=lambda words: " ".join(words))
def test_what_is_advised_is_accepted(words, advised):
    sentence = said_of(*words)
    assert sentence.count("\n") == 0
    way = r"""(?:write|or|spaces:|quotes:|with =:) ("[^"]*"|[\w.]+=\S+(?: [\w.]+=\S+)*)"""
    written = [" ".join(shlex.split(found.rstrip(";"))) for found in re.findall(way, sentence)]
    assert written == advised, sentence
    others = words[:-1] if len(words) > 1 and re.fullmatch(r"\w+=\w+", words[0]) else []
    for way in advised:
        assert refusal([*others, *([way] if way.startswith("data.root") else way.split())]) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["num_workers=3"], "nothing to set: all images are one tensor in memory"),
        (["data.num_workers=3"], "nothing to set: all images are one tensor in memory"),
        (["--num-workers", "3"], "nothing to set: all images are one tensor in memory"),
        (["--nonsense"], "--nonsense: there is no such option; keys are set by key=value"),
        (["claim=depth"], "python scripts/claim.py depth"),
        (["+num_workers=3"], "nothing to set: all images are one tensor in memory"),
        (["+claim=depth"], "a claim has its own command: python scripts/claim.py <claim>"),
        (["data.root=$NOPE/x"], 'with double quotes, "data.root=$NOPE/x", it fills in the folder'),
        (
            ["data.cache_dir='$HOME/x'"],
            "the shell has left $HOME as it is because of the single quotes",
        ),
        (["beta_1=0.9"], "it is optimizer.betas here, and optimizer.betas=0.9: allowed: a list"),
        (["--patience=soon"], "trainer.early_stopping here, and trainer.early_stopping=soon:"),
        (["checkpoint=x.ckpt"], "nothing to set: the last and the best epoch are always saved"),
        (["callbacks=early_stopping"], "write trainer.early_stopping=3"),
        (["model.output_layer=no"], "model.output_layer=no: allowed: dense, none"),
        (["~scheduler.name"], "scheduler.name: the key is missing"),
        (["~optimizer.name"], "optimizer.name: the key is missing"),
        (["~data"], "data.name cannot be left out; data=digits"),
        (["~resume"], "~resume: the key cannot be left out"),
        (["data=own", "~data._target_"], "~data._target_: the key cannot be left out"),
        (
            ["~logger"],
            "~logger: there is no such choice to remove; logger=[...] makes another choice",
        ),
        (["model=vit_tiny"], "your own class (docs/extending.md)"),
        (["data=imagenette"], "for your own pictures write data=image_folder data.root=<folder>"),
        (["optimizer=SGD"], "did you mean 'sgd'?"),
        (["seed=range(3)"], "seed=range(3): several values are a sweep, add -m"),
        (["optimizer=adam,sgd"], "several values are a sweep, add -m"),
        (["optimizer=glob(*)"], "-m optimizer=adadelta,adagrad,adam,adamw,rmsprop,sgd"),
        (["name=größe"], "name='größe' cannot name a folder; allowed: up to 100 letters"),
        (["model.groups=99999999999"], "allowed: an integer from 1 to 2147483647"),
        (['model.channels=[4,"8"]'], "'8' is text; allowed: a number without quotes"),
        (["data.root=${oc.env:NOPE}"], "data.root=${oc.env:NOPE}: the environment variable NOPE"),
        (["model.kernel_size==3"], "model.kernel_size==3: '=3' is not a size"),
        (["model"], "cannot read model; an override looks like key=value"),
        (["model=mlp", "model.hidden", "[32,", "64]"], "write it with =: model.hidden=[32,64]"),
        (["model.kernelsize", "5"], "did you mean 'model.kernel_size'?"),
        (["data", "minst"], "data=minst: there is no such choice"),
        (["=3"], "cannot read =3; an override looks like key=value"),
        (["data.batch_size=a,b"], "data.batch_size=a,b: allowed: one value"),
        (
            ["search=geometry", "~search.space.model.dropout"],
            "leaves model.dropout as it is; it changes model.kernel_size, model.stride",
        ),
        (
            ["search=geometry", "search.space.model.dropout.high=0.9"],
            "'+search.space.model.dropout={low:0.0,high:0.9}' adds it",
        ),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_has_no_other_way_is_told_why(words, said):
    sentence = said_of(*words)
    assert said in sentence
    assert sentence.count("\n") == 0
    assert "Exception" not in sentence


@pytest.mark.long
def test_a_key_that_is_removed_can_be_switched_off_as_the_sentence_says():
    switched_off = {}
    for key in known_keys([]):
        sentence = said_of(f"~{key}")
        if sentence is not None and (off := re.search(r"; (\S+) switches it off$", sentence)):
            switched_off[key] = off[1]
            assert refusal([off[1]]) is None
        else:
            ends = (
                "it has no default outside conf/",
                "cannot be left out",
                "makes another choice",
                "and everything else",
            )
            assert sentence is None or sentence.endswith(ends), sentence
    assert len(switched_off) > 40
    assert switched_off["model.dropout"] == "model.dropout=0"
    assert switched_off["model.pool"] == "model.pool=none"
    assert switched_off["data.augment.flip"] == "data.augment.flip=false"
    assert switched_off["trainer.early_stopping"] == "trainer.early_stopping=null"


@pytest.mark.parametrize(
    ("words", "advised"),
    [
        (["model.channels=32,64"], "model.channels=[32,64]"),
        (["model=mlp", "seed=0,1", "model.hidden=50,60"], "model.hidden=[50,60]"),
        (["model.channels=4,5", "model.dense=6,7"], "model.channels=[4,5]"),
    ],
)
def test_a_list_that_is_written_as_a_sweep_is_told_from_one(command, words, advised):
    for script in (["train", "-m"], ["plan"]):
        answer = command(*script, *words)
        (said,) = answer.err.splitlines()
        assert (answer.code, said.endswith(f"; write {advised}")) == (2, True), said
    others = [word for word in words if "," not in word]
    assert refusal([*others, advised]) is None


def test_what_other_libraries_call_a_key_leads_to_a_key():
    choices = itertools.zip_longest(
        ("cnn", "mlp"), ("adam", "sgd"), ("one_cycle", "step", "multistep"), fillvalue=None
    )
    known = {
        key
        for named in choices
        for key in known_keys(
            [
                f"{g}={c}"
                for g, c in zip(("model", "optimizer", "scheduler"), named, strict=True)
                if c
            ]
        )
    }
    assert set(aliases.KEYS.values()) <= known
    assert set(aliases.VALUES) <= known
    assert not set(aliases.KEYS) & set(aliases.NOTHING)


def test_a_value_that_has_another_name_here_leads_to_one_that_is_accepted():
    for key, values in aliases.VALUES.items():
        for value in values:
            way = aliases.named_here(key, value)
            assert refusal(way) is None or key == "model.output_layer", (key, value, way)


@pytest.mark.parametrize("word", ["optimizer.weight_decay=0,001", "optimizer.lr=0,05"])
def test_a_number_with_a_comma_is_no_sweep(command, word):
    answer = command("train", "-m", word)
    assert (answer.code, answer.err.splitlines()[-1].split()[-1]) == (2, word.replace(",", "."))


def test_options_are_refused_by_every_command_that_takes_overrides(command):
    for script in ("train", "plan", "search", "claim"):
        answer = command(script, "--epochs", "5")
        assert answer.code == 2
        assert answer.err == (
            "error: --epochs: there is no such option; write trainer.max_epochs=5\n"
        )
    assert command("train", "--cfg", "job").code == 0
    assert command("plan", "-m", "seed=0,1").code == 0


def test_a_recursion_of_the_users_is_not_called_one_of_the_config():
    def endless():
        endless()

    with pytest.raises(RecursionError) as error:
        endless()
    assert explain(error.value, ["model=own"]) is None


def test_the_added_key_of_a_search_is_accepted():
    from convscape.sweeps.search_config import checked_search

    words = ["search=geometry", "+search.space.model.dropout={low:0.0,high:0.9}"]
    with initialised():
        section = OmegaConf.to_container(hydra.compose("train", words))["search"]
    assert checked_search(section).space["model.dropout"].high == 0.9


def test_a_sweep_folder_is_told_from_a_run(command, tmp_path):
    for number in range(5):
        (tmp_path / "sweep" / f"run{number}").mkdir(parents=True)
        (tmp_path / "sweep" / f"run{number}" / "config.yaml").touch()
    answer = command("evaluate", "sweep")
    assert answer.code == 2
    assert "one of the 5 runs inside: sweep/run0, sweep/run1, sweep/run2 ..." in answer.err


def test_files_that_are_something_else_are_called_that(tmp_path):
    from convscape.data.cache import DataError
    from convscape.data.originals import read_idx
    from convscape.data.pictures import read_picture

    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "train-images-idx3-ubyte").mkdir()
    with pytest.raises(DataError, match=r"notes.txt' is not a picture; allowed: .*png"):
        read_picture(tmp_path / "notes.txt", (1, 8, 8))
    with pytest.raises(DataError, match="ubyte' is a folder"):
        read_idx(tmp_path / "train-images-idx3-ubyte", 3, {})
