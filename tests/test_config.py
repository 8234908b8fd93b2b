from contextlib import contextmanager

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from convscape.base.errors import ConfigError
from convscape.config.check import check
from convscape.config.directory import CONFIG_DIR
from convscape.config.hydra_insides import composed_once, with_own
from convscape.config.sentences import unknown_key


@contextmanager
def initialised():
    """Hydra, with the configs that ship; the files of a choice of groups are merged once in all."""
    with composed_once(), initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        yield


def composed(*overrides):
    with initialised():
        return OmegaConf.to_container(compose("train", with_own(overrides)), resolve=True)


def checked(*overrides):
    return check(composed(*overrides))


GROUPS = ("data", "model", "optimizer", "scheduler", "trainer", "sweep")


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={file.stem}"
        for group in GROUPS
        for file in sorted((CONFIG_DIR / group).glob("*.yaml"))
        if file.stem not in ("own", "torchvision", "image_folder", "csv", "npz")
    ],
)
def test_every_config_that_ships_is_valid_and_possible(choice):
    assert checked(choice).plan().num_parameters > 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.kernel_size=0", ["model.kernel_size=0", "too small", "1 or more"]),
        ("model.kernel_size=-3", ["model.kernel_size=-3", "too small"]),
        ("model.kernel_size=3.5", ["model.kernel_size=3.5", "not a size", "3x5"]),
        ("model.kernel_size=[3,0]", ["model.kernel_size=[3, 0]", "0 is too small"]),
        ("model.kernel_size=[3,3,3]", ["model.kernel_size=[3, 3, 3] has 3 entries for 2 blocks"]),
        ("model.kernel_size=[]", ["model.kernel_size=[]", "empty"]),
        ("model.stride=0", ["model.stride=0", "too small"]),
        ("model.padding=sane", ["model.padding=sane", "valid, same"]),
        ("model.padding=-1", ["model.padding=-1", "not a padding"]),
        ("model.pool=maxx", ["'maxx' is unknown", "max, avg, blur, aps", "did you mean 'max'?"]),
        ("model.activation=rely", ["did you mean 'relu'?"]),
        ("model.channels=[]", ["model.channels=[]: allowed: a list of 1 or more"]),
        ("model.channels=[32,0]", ["model.channels.1=0"]),
        ("model.batch_norm=3", ["model.batch_norm=3", "true or false"]),
        ("model.dropout=1", ["model.dropout=1", "not a probability"]),
        ("model.init=glorot", ["model.init=glorot", "did you mean 'glorot_uniform'?"]),
        ("optimizer.lr=abc", ["optimizer.lr=abc", "allowed: a number"]),
        ("optimizer.lr=0", ["optimizer.lr=0: allowed: more than 0"]),
        ("optimizer.lr=nan", ["optimizer.lr=nan", "finite"]),
        ("optimizer.betas=[0.9]", ["optimizer.betas=[0.9]: allowed: a list of 2 or more"]),
        ("optimizer.name=adamm", ["optimizer.name=adamm", "did you mean 'adam'?"]),
        ("trainer.max_epochs=abc", ["trainer.max_epochs=abc", "an integer"]),
        ("trainer.max_epochs=0", ["trainer.max_epochs=0: allowed: 1 or more"]),
        ("trainer.max_epochs=2147483648", ["allowed: up to 2147483647"]),
        ("trainer.max_epochs=null", ["trainer.max_epochs and trainer.max_steps are both null"]),
        ("trainer.device=gpu", ["device=gpu: allowed: auto", "write trainer.device=cuda"]),
        ("trainer.precision=bf17", ["trainer.precision=bf17", "did you mean 'bf16'?"]),
        (
            "trainer.steps_per_execution=often",
            ["trainer.steps_per_execution=often", "an integer, auto"],
        ),
        ("data.batch_size=1.5", ["data.batch_size=1.5", "an integer"]),
        ("data.val_size=1.5", ["data.val_size=1.5", "a fraction below 1"]),
        ("data.augment.shift=-1", ["data.augment.shift=-1: allowed: 0 or more"]),
        ("data.augment.rotate=200", ["data.augment.rotate=200: allowed: up to 180"]),
        ("seed=-1", ["seed=-1: allowed: 0 or more"]),
        ("seed=4294967296", ["seed=4294967296: allowed: less than 4294967296"]),
        ("seed=one", ["seed=one", "an integer"]),
        ("name=a/b", ["name='a/b'", "cannot name a folder"]),
        ("name=..", ["name='..'", "cannot name a folder"]),
        ("+model.kernal_size=3", ["model.kernal_size", "did you mean 'kernel_size'?"]),
        ("+kernel_size=3", ["kernel_size: there is no such key"]),
        ("~optimizer.lr", ["optimizer.lr: the key is missing"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_key_value_and_what_is_allowed(override, words):
    with pytest.raises(ConfigError) as error:
        checked(override)
    sentence = str(error.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("key", ["model.hidden", "model.layers.conv9.channels", "data.labels"])
def test_a_resumed_run_is_not_sent_to_another_network_or_data_set(key):
    sentence = unknown_key(key, ["resume=outputs/runs/x", f"{key}=9"])
    assert sentence.startswith(f"{key}: resume continues with that run's own ")


def test_one_gpu_cannot_be_two_devices():
    with pytest.raises(ConfigError, match="cuda:1 is one GPU, but "):
        checked("trainer.device=cuda:1", "trainer.devices=2")


def test_every_mistake_of_a_config_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        checked("model.stride=0", "seed=-1", "optimizer.lr=0")
    assert len(str(error.value).splitlines()) == 3


def test_numbers_may_be_written_as_integers():
    assert checked("optimizer.lr=1", "model.dropout=0").optimizer.lr == 1


def test_the_plan_comes_from_the_config():
    assert checked().plan().num_parameters == 34_826
    assert checked("model=mlp").plan().num_parameters == 669_706


def test_colour_images_choose_their_own_default_network():
    config = checked("data=cifar10")
    assert config.model.channels == [32, 64, 128]
    assert checked("data=cifar10", "model=mlp").model.hidden == [512, 512]


def test_epochs_are_those_of_the_data_unless_they_are_set():
    assert checked("data=mnist").trainer.max_epochs == 5
    assert checked("data=mnist", "trainer.max_epochs=2").trainer.max_epochs == 2


def test_a_class_of_a_package_that_is_not_allowed_is_refused():
    with pytest.raises(ConfigError, match=r"add allow_packages=\[mine\]"):
        checked("model=own", "model._target_=mine.Net")
    checked("model=own", "model._target_=mine.Net", "allow_packages=[mine]")


def test_a_model_without_a_target_is_refused():
    with pytest.raises(ConfigError, match=r"model\._target_ is not set"):
        checked("model=own")
