"""Steps without a graph are those of autograd to the bit, and stand aside where they must."""

import random

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import convscape
from convscape.base.quick_lightning import pl
from convscape.models import CNN, MLP, Sequential, classifier
from convscape.models.quick_steps import DenseChain, begin_momentum, bound_step

ADAM = {"name": "adam", "lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.01}
OPTIMIZERS = (
    *({"name": "adam", "lr": 0.001}, ADAM, ADAM | {"name": "adamw"}),
    *({"name": "sgd", "lr": 0.1, "momentum": 0.9}, {"name": "rmsprop", "lr": 0.001}),
)


def drawn_mlp(draw):
    return {
        "hidden": [draw.choice([1, 2, 7, 64, 129]) for _ in range(draw.randrange(4))],
        "activation": draw.choice(["relu", "relu", "tanh", "sigmoid"]),
        "dropout": draw.choice([0.0, 0.0, 0.3]),
    }


LOSSES = {
    "cross_entropy": nn.functional.cross_entropy,
    "smoothed": lambda logits, labels: nn.functional.cross_entropy(
        logits, labels, label_smoothing=0.1
    ),
    "in place": lambda logits, labels: logits.exp_().sum(),
}


@pytest.mark.parametrize("seed", range(60))
def test_gradients_are_those_of_autograd_to_the_bit(seed):
    draw = random.Random(seed)
    shape = draw.choice([(1, 8, 8), (3, 5, 7), (1, 28, 28)])
    network = MLP(shape, draw.choice([2, 10]), **drawn_mlp(draw)).network.train()
    labels = torch.randint(0, 2, (draw.choice([1, 3, 128]),))
    images = torch.randn(len(labels), *shape)
    loss_of = LOSSES[draw.choice([*LOSSES])]
    if draw.random() < 0.2:  # as of images that are mixed
        labels = nn.functional.one_hot(labels, network(images).shape[1]).float() * 0.8
    with torch.autocast("cpu", torch.bfloat16, enabled=draw.random() < 0.5):
        check_gradients(network, images, labels, loss_of, seed)


def check_gradients(network, images, labels, loss_of, seed):
    torch.manual_seed(seed)
    logits = network(images)
    loss = loss_of(logits.clone(), labels)
    loss.backward()
    torch.clear_autocast_cache()
    expected = [parameter.grad for parameter in network.parameters()]
    drawn = torch.rand(())

    chain = DenseChain.of(network, loss_of)
    for gradients in ([None] * len(expected), [torch.full_like(g, torch.nan) for g in expected]):
        torch.manual_seed(seed)
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        found, found_loss = chain.gradients(images, labels)
        assert torch.equal(found, logits)
        assert found.dtype == logits.dtype
        assert torch.equal(found_loss, loss)
        for parameter, gradient in zip(network.parameters(), expected, strict=True):
            assert torch.equal(parameter.grad, gradient)
        assert torch.equal(torch.rand(()), drawn)  # as many random numbers were used


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda given: given["name"])
def test_a_bound_step_is_the_optimisers_own(optimizer):
    pairs = []
    for _ in range(2):
        torch.manual_seed(0)
        model = MLP((1, 4, 4), 3, hidden=[5], training={"optimizer": optimizer})
        pairs.append((list(model.parameters()), model.configure_optimizers()))
    (ours, quick), (theirs, plain) = pairs
    for count in range(12):
        if count in (0, 1, 5):
            step = bound_step(quick)
        for mine, other in zip(ours, theirs, strict=True):
            other.grad = torch.randn_like(other)
            mine.grad = None if other.grad is None else other.grad.clone()
        if count in (3, 6):  # one is left out
            ours[1].grad = theirs[1].grad = None
        for each in (quick, plain):
            each.param_groups[0]["lr"] *= 0.9
        step()
        plain.step()
        assert all(map(torch.equal, ours, theirs))
    states = [each.state_dict()["state"] for each in (quick, plain)]
    for number, state in states[1].items():
        assert all(torch.equal(states[0][number][name], value) for name, value in state.items())


@pytest.mark.parametrize("watch", ["before", "after", "every optimiser", "replaced", "class"])
def test_whoever_watches_the_optimiser_is_told(watch, monkeypatch):
    model = MLP((1, 4, 4), 3, hidden=[5])
    optimizer, told = model.configure_optimizers(), []
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert bound_step(optimizer) != optimizer.step
    hear = lambda *_: told.append(1)  # noqa: E731
    if watch == "before":
        optimizer.register_step_pre_hook(hear)
    elif watch == "after":
        optimizer.register_step_post_hook(hear)
    elif watch == "every optimiser":
        handle = register_optimizer_step_post_hook(hear)
    elif watch == "class":
        monkeypatch.setattr(torch.optim.Adam, "step", hear)
    else:
        optimizer.step = hear
    bound_step(optimizer)()
    if watch == "every optimiser":
        handle.remove()
    assert told == [1]


def fitted(network, training, monkeypatch, *, quick, precision="32-true"):
    """A model after two epochs on the digits, and whether a chain was used."""
    used = []
    with monkeypatch.context() as patch:
        if quick:
            gradients = DenseChain.gradients
            patch.setattr(DenseChain, "gradients", lambda *args: used.append(1) or gradients(*args))
        else:
            patch.setattr(DenseChain, "of", lambda *_: None)
            patch.setattr(classifier, "bound_step", lambda optimizer: optimizer.step)
        pl.seed_everything(1, verbose=False)
        data = convscape.data_module("digits", train_size=300)
        model = network(data, training)
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            precision=precision,
            **dict.fromkeys(
                [
                    *("logger", "enable_checkpointing", "enable_progress_bar"),
                    "enable_model_summary",
                ],
                False,
            ),
        )
        trainer.fit(model, data)
    return model, trainer.callback_metrics, bool(used)


class OwnLoss(MLP):
    def loss(self, logits, labels):
        return super().loss(logits, labels) * 2


class OwnForward(MLP):
    def forward(self, images):
        return super().forward(images) + 1


def watched(data, training):
    model = MLP.for_data(data, hidden=[8], training=training)
    model.seen = []
    model.network[1].register_forward_hook(lambda *_: model.seen.append(1))
    return model


def half_frozen(data, training):
    model = MLP.for_data(data, hidden=[8], training=training)
    model.network[1].requires_grad_(False)
    return model


def watched_whole(data, training):
    model = MLP.for_data(data, hidden=[8], training=training)
    model.seen = []
    model.register_forward_pre_hook(lambda *_: model.seen.append(1))
    return model


def replaced_forward(data, training):
    model = MLP.for_data(data, hidden=[8], training=training)
    forward = model.forward
    model.forward = lambda images: forward(images) * 2
    return model


def replaced_loss(data, training):
    model = MLP.for_data(data, hidden=[8], training=training)
    model.loss = lambda logits, labels: nn.functional.cross_entropy(logits, labels) * 2
    return model


def a_layer_twice(data, training):
    model = MLP.for_data(data, hidden=[8, 8, 8], training=training)
    model.network.hidden3.dense = model.network.hidden2.dense
    return model


def a_shared_weight(data, training):
    model = MLP.for_data(data, hidden=[8, 8, 8], training=training)
    model.network.hidden3.dense.weight = model.network.hidden2.dense.weight
    return model


def of(kind, **knobs):
    return lambda data, training: kind.for_data(data, training=training, **knobs)


QUICK = {
    "mlp": (of(MLP, hidden=[16, 8], dropout=0.1), {"optimizer": ADAM}),
    "softmax regression": (of(MLP, hidden=[]), {}),
    "clipped": (of(MLP, hidden=[8]), {"gradient_clip_norm": 0.1}),
    "sgd": (of(MLP, hidden=[8]), {"optimizer": OPTIMIZERS[3]}),
    "smoothed": (of(MLP, hidden=[8]), {"label_smoothing": 0.1}),
    "weighted": (of(MLP, hidden=[8]), {"class_weights": [1.0, 2.0] * 5}),
    "another loss": (of(MLP, hidden=[8]), {"loss": "mse"}),
    "bf16": (of(MLP, hidden=[16, 8], dropout=0.1), {"optimizer": ADAM}),
    "sequential": (of(Sequential, layers=["flatten", {"dense": 8}]), {}),
}
ASIDE = {
    "cnn": (of(CNN, channels=[3]), {"optimizer": ADAM}),
    "batch norm": (of(MLP, hidden=[8], batch_norm=True), {}),
    "gelu": (of(MLP, hidden=[8], activation="gelu"), {}),
    "own loss": (of(OwnLoss, hidden=[8]), {}),
    "own forward": (of(OwnForward, hidden=[8]), {}),
    "hook": (watched, {}),
    "hook of the whole": (watched_whole, {}),
    "replaced forward": (replaced_forward, {}),
    "replaced loss": (replaced_loss, {}),
    "frozen": (half_frozen, {}),
    "a layer twice": (a_layer_twice, {}),
    "a shared weight": (a_shared_weight, {}),
}


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
@pytest.mark.parametrize("name", [*QUICK, *ASIDE])
def test_a_training_is_the_same_to_the_bit(name, monkeypatch):
    network, training = (QUICK | ASIDE)[name]
    how = {"precision": "bf16-mixed" if name == "bf16" else "32-true"}
    quick, values, was_used = fitted(network, training, monkeypatch, quick=True, **how)
    plain, expected, _ = fitted(network, training, monkeypatch, quick=False, **how)
    assert was_used == (name in QUICK)
    assert all(map(torch.equal, quick.parameters(), plain.parameters()))
    assert values == expected
    if name.startswith("hook"):
        assert quick.seen == plain.seen != []


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("watch", ["global hook", "parameter", "anomaly", "compiled", "replaced"])
def test_whoever_watches_the_network_is_served(watch):
    network = MLP((1, 4, 4), 3, hidden=[5]).network.train()
    assert DenseChain.of(network) is not None
    if watch == "global hook":
        handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert DenseChain.of(network) is None
        handle.remove()
    elif watch == "parameter":
        network[1][0].weight.register_hook(lambda gradient: gradient * 2)
        assert DenseChain.of(network) is None
    elif watch == "anomaly":
        with torch.autograd.detect_anomaly(check_nan=False):
            assert DenseChain.of(network) is None
    else:
        if watch == "compiled":
            network.compile()
        else:
            network.forward = lambda images: images.flatten(1)
        assert DenseChain.of(network) is None


@pytest.mark.parametrize("nesterov", [False, True])
def test_who_learns_later_begins_without_momentum_as_in_torchs_plain_steps(nesterov):
    def trained(**arguments):
        parameters = [nn.Parameter(torch.arange(6.0) + place) for place in range(3)]
        arguments |= {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.01}
        optimizer = torch.optim.SGD(parameters, **arguments)
        if optimizer.param_groups[0]["fused"]:
            optimizer.register_step_pre_hook(begin_momentum)
        for learning in ([0], [0], [0, 1], [1, 2], [0, 1, 2]):
            optimizer.zero_grad()
            for place in learning:
                parameters[place].grad = torch.sin(parameters[place].detach() + place)
            optimizer.step()
        return torch.stack([each.detach() for each in parameters])

    torch.testing.assert_close(trained(fused=True), trained(fused=False, foreach=False))


def test_steps_without_momentum_keep_no_state():
    model = MLP((1, 4, 4), 3, hidden=[5], training={"optimizer": {"name": "sgd", "lr": 0.1}})
    optimizer = model.configure_optimizers()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert not optimizer.state
