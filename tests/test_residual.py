"""Layers whose output is added to their input: a tree that is planned, built and trained."""

import json

import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from convscape.base.errors import ConfigError
from convscape.base.values import typed_value
from convscape.config.directory import CONFIG_DIR
from convscape.geometry.plan import plan_layers
from convscape.geometry.sequential import sequential_layers, whole_layers
from convscape.geometry.window import InfeasibleGeometry
from convscape.models import inside
from convscape.models.modules import build_network
from convscape.models.networks import Sequential
from convscape.runs.fingerprint import fingerprint
from convscape.runs.folder import RunFolder
from convscape.runs.names import run_name
from tests.dying import train_apart
from tests.test_config import checked
from tests.test_resume import assert_equal_runs

RESNET20 = yaml.safe_load((CONFIG_DIR / "model" / "resnet20.yaml").read_text("utf-8"))["layers"]
# the whole recipe, on few digits of a size of which an epoch takes seconds
TINY = [
    *("experiment=resnet20", "data=digits", "model=resnet20", "data.image_size=8"),
    *("data.train_size=200", "data.val_size=100", "data.batch_size=20"),
    *(
        "trainer.max_epochs=2",
        "trainer.threads=1",
        "trainer.steps_per_execution=2",
        "trainer.progress=off",
        "visual=off",
    ),
]
CONV = {"channels": 4, "padding": "same", "bias": False}


def small(*residual, **keys):
    """A network with one residual layer, on 6 channels."""
    return {"conv1": 6, "residual1": {"layers": list(residual), **keys}, "global_pool1": "avg"}


# --- the plan against torch -------------------------------------------------------------------

leaves = st.one_of(
    st.fixed_dictionaries(
        {
            "channels": st.integers(1, 4),
            "kernel_size": st.sampled_from([1, 2, 3, "3x1"]),
            "stride": st.sampled_from([1, 1, 2, "1x2"]),
            "padding": st.sampled_from(["same", "same", "valid", 1]),
            "activation": st.sampled_from(["none", "relu"]),
        }
    ).map(lambda keys: {"conv": keys}),
    st.sampled_from([{"pool": {"kind": "avg", "padding": "same"}}, "batch_norm", "activation"]),
    st.just({"pool": {"size": 3, "stride": 1, "padding": "same"}}),
)
layers_of = st.recursive(
    leaves,
    lambda inner: st.fixed_dictionaries(
        {
            "layers": st.lists(inner, min_size=1, max_size=3),
            "shortcut": st.sampled_from(["identity", "projection"]),
            "activation": st.sampled_from(["none", "relu"]),
        }
    ).map(lambda keys: {"residual": keys}),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(layers_of, min_size=1, max_size=4))
def test_shapes_parameters_and_macs_are_those_of_torch_at_every_place_of_the_tree(layers):
    try:
        plan = plan_layers(sequential_layers(3, layers=layers), (2, 16, 13))
    except InfeasibleGeometry:
        assume(False)
    network = build_network(plan).eval()
    shapes = {}
    for row in plan.all_layers:
        network.get_submodule(row.name).register_forward_hook(
            lambda module, inputs, output, name=row.name: shapes.update(
                {name: (tuple(inputs[0].shape[1:]), tuple(output.shape[1:]))}
            )
        )
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 2, 16, 13))
    # a ReLU runs behind the max pooling that follows it, and sees its output
    swapped = {row.name for row in plan.all_layers if row.layer.describe() == "relu"}
    swapped |= {row.name for row in plan.all_layers if row.layer.describe().startswith("max pool")}
    for row in plan.all_layers:
        if row.name not in swapped:
            assert shapes[row.name] == (row.input_shape, row.output_shape), row.name
    assert plan.num_parameters == sum(values.numel() for values in network.parameters())
    assert 2 * plan.macs == counter.get_total_flops()


@settings(max_examples=100, deadline=None)
@given(st.lists(layers_of, min_size=1, max_size=3))
def test_the_receptive_field_of_every_row_holds_the_gradient_of_a_unit(layers):
    side = 40
    named = sequential_layers(3, layers=layers, output_layer="none")
    try:
        plan = plan_layers(named, (1, side, side))
    except InfeasibleGeometry:
        assume(False)
    network = build_network(plan).eval()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    outputs = {}
    for row in plan.layers:
        network.get_submodule(row.name).register_forward_hook(
            lambda module, inputs, output, name=row.name: outputs.update({name: output})
        )
    image = torch.rand(1, 1, side, side, requires_grad=True)
    network(image)
    for row in plan.layers:
        if row.layer.describe() == "relu":
            continue  # which may run behind the pooling that follows it
        unit = [n // 2 for n in row.output_shape[1:]]
        (gradient,) = torch.autograd.grad(
            outputs[row.name][0, :, unit[0], unit[1]].sum(), image, retain_graph=True
        )
        for axis in range(2):
            touched = gradient[0, 0].abs().sum(1 - axis).nonzero().flatten().tolist()
            first = unit[axis] * row.field.stride[axis] - row.field.padding[axis]
            last = first + row.field.size[axis] - 1
            assert touched[0] >= max(first, 0), row.name
            assert touched[-1] <= min(last, side - 1), row.name


@pytest.mark.parametrize("padding", ["same", 1])
def test_the_field_of_a_sum_ends_where_the_gradient_ends(padding):
    """Where the branch pads on one side alone, the shortcut reaches beyond its other edge."""
    conv = {"channels": 1, "kernel_size": 2 if padding == "same" else 3, "padding": padding}
    layers = [{"conv": 1}, {"residual": [{"conv": {**conv, "stride": 2}}, {"conv": conv}]}]
    named = sequential_layers(1, layers=layers, output_layer="none")
    plan = plan_layers(named, (1, 32, 32))
    network = build_network(plan)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    image = torch.rand(1, 1, 32, 32, requires_grad=True)
    network(image)[0, 0, 7, 7].backward()
    touched = image.grad[0, 0].sum(0).nonzero().flatten().tolist()
    field = plan.layers[-1].field
    first = 7 * field.stride[0] - field.padding[0]
    assert [touched[0], touched[-1]] == [first, first + field.size[0] - 1]
    assert plan.receptive_field == field.size


# --- what is computed -------------------------------------------------------------------------


def he_block(images, block, stride, new_channels):
    """The block of He et al. with option A, by torch.nn.functional alone."""

    def norm(values, module):
        return F.batch_norm(
            *(values, module.running_mean, module.running_var, module.weight, module.bias)
        )

    values = F.conv2d(images, block.conv1.weight, stride=stride, padding=1)
    values = F.relu(norm(values, block.batch_norm1))
    values = norm(F.conv2d(values, block.conv2.weight, padding=1), block.batch_norm2)
    zeros = torch.zeros(len(images), new_channels, *values.shape[2:])
    return F.relu(values + torch.cat([images[:, :, ::stride, ::stride], zeros], 1))


def test_resnet20_is_the_network_of_he_layer_by_layer():
    torch.manual_seed(0)
    model = Sequential((3, 32, 32), 10, layers=RESNET20, init="kaiming_normal").eval()
    for name, values in model.named_buffers():
        if name.startswith("network") and values.is_floating_point():
            values.data = torch.rand_like(values) + 0.5
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    net = model.network
    with torch.no_grad():
        values = F.conv2d(images / 255, net.conv1.weight, padding=1)
        values = F.relu(net.batch_norm1(values))
        for number in range(1, 10):
            stride, new = {4: (2, 16), 7: (2, 32)}.get(number, (1, 0))
            values = he_block(values, net.get_submodule(f"residual{number}"), stride, new)
        expected = net.output(values.mean((2, 3)))
        torch.testing.assert_close(model(images), expected)
    assert model.plan.num_parameters == 269_722
    assert sum(values.numel() for values in model.parameters()) == 269_722
    layers = [row for row in model.plan.all_layers if row.num_parameters > 200]
    assert len(layers) == 20


def test_projections_where_the_shape_changes_are_option_b():
    layers = json.loads(json.dumps(RESNET20))
    for name in ("residual4", "residual7"):
        layers[name]["shortcut"] = "projection"
    plan = plan_layers(sequential_layers(10, layers=layers), (3, 32, 32))
    assert plan.num_parameters == 272_474
    names = [row.name for row in plan.all_layers if "shortcut" in row.name]
    assert names[:2] == ["residual4.shortcut.conv", "residual4.shortcut.batch_norm"]


def test_dense_layers_have_shortcuts_too():
    layers = {
        "residual1": {"layers": {"dense1": {"units": 12, "activation": "relu"}, "dense2": 20}},
        "residual2": {"layers": {"dense1": 7}, "shortcut": "projection"},
    }
    model = Sequential((1, 4, 4), 3, layers=layers).eval()
    net = model.network
    images = torch.randint(0, 256, (2, 1, 4, 4), dtype=torch.uint8)
    values = (images / 255).flatten(1)
    inner = net.residual1.dense2(F.relu(net.residual1.dense1(values)))
    values = inner + torch.cat([values, torch.zeros(2, 4)], 1)
    values = net.residual2.dense1(values) + net.residual2.shortcut(values)
    torch.testing.assert_close(model(images), net.output(values))
    assert [row.name for row in model.plan.layers] == [
        *("flatten", "residual1", "residual2", "output")
    ]


def test_channels_last_stays_and_every_size_of_batch_has_its_own_zeros():
    layers = small({"conv": {"channels": 9, "stride": 2, "padding": 1}})
    model = Sequential((1, 12, 12), 2, layers=layers)
    images = torch.randn(3, 6, 10, 10).to(memory_format=torch.channels_last)
    output = model.network.residual1(images)
    assert output.is_contiguous(memory_format=torch.channels_last)
    branch = model.network.residual1.conv1(images)
    torch.testing.assert_close(output[:, 6:], branch[:, 6:])
    torch.testing.assert_close(output[:, :6], branch[:, :6] + images[:, :, ::2, ::2])


def test_feature_maps_are_those_of_each_sum():
    model = Sequential((1, 12, 12), 2, layers=small({"conv": {**CONV, "channels": 6}})).eval()
    images = torch.randint(0, 256, (2, 1, 12, 12), dtype=torch.uint8)
    maps = inside.feature_maps(model, images)
    first = model.network.conv1(model.normalize(images))
    torch.testing.assert_close(maps["conv1"], first)
    torch.testing.assert_close(maps["residual1"], model.network.residual1(first))


# --- what is written --------------------------------------------------------------------------


def test_a_list_and_a_mapping_are_the_same_network():
    listed = whole_layers(["activation", {"residual": [{"conv": CONV}, "batch_norm"]}])
    mapping = {"layers": {"conv1": CONV, "batch_norm1": None}, "shortcut": "identity"}
    assert listed == whole_layers({"activation1": None, "residual1": mapping})
    assert listed["residual1"]["layers"]["conv1"]["kernel_size"] == 3


def test_the_table_is_a_tree():
    layers = small({"conv": CONV}, {"residual": [{"conv": CONV}]}, shortcut="projection")
    plan = plan_layers(sequential_layers(2, layers=layers), (1, 8, 8))
    names = [row[0] for row in plan.rows()]
    assert names[2:9] == [
        *("residual1", "  conv1", "  residual1", "    conv1"),
        *("  shortcut.conv", "  shortcut.batch_norm", "global_pool1"),
    ]
    assert [row.name for row in plan.all_layers][3] == "residual1.residual1"
    total = sum(int(row[3].replace(",", "") or 0) for row in plan.rows()[1:-1])
    assert f"{total:,}" == plan.rows()[-1][3]
    assert "    conv1</td>" in plan._repr_html_()


def test_the_fingerprint_knows_the_tree_and_no_names():
    def digest(layers):
        words = ["model=sequential", "~model.layers", f"+model.layers={typed_value(layers)}"]
        return fingerprint(checked(*words))

    conv = {**CONV, "channels": 6}
    network = small({"conv": conv}, "batch_norm")
    same = small({"conv7": {**conv, "stride": 1}}, "batch_norm3", {"dropout": 0})
    others = [
        small({"conv": conv}, "batch_norm", shortcut="projection"),
        small({"conv": conv}, "batch_norm", activation="relu"),
        small({"conv": {**conv, "kernel_size": 5}}, "batch_norm"),
        small({"conv": conv}, {"residual": ["batch_norm"]}),
        {"conv1": 6, "conv2": conv, "batch_norm1": None, "global_pool1": "avg"},
    ]
    assert digest(network) == digest(same)
    assert len({digest(layers) for layers in (network, *others)}) == 6


def test_the_name_of_a_run_says_the_groups_and_the_value_that_was_chosen():
    override = "model.layers.residual1.layers.conv1.kernel_size=5"
    config = checked("model=resnet20", override)
    assert run_name(config, ["model=resnet20", override], "abc") == (
        "seq_conv16-3xresidual16-3xresidual32-3xresidual64_residual1.conv1.kernel_size5-abc"
    )


def in_residual4(key, value):
    return f"model.layers.residual4.layers.{key}={value}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([in_residual4("conv1.chanels", 8)], "did you mean 'channels'?"),
        ([in_residual4("conv3.channels", 8)], "there is no layer conv3 in model.layers.residual4"),
        ([in_residual4("conv2.stride", 2)], "+model.layers.residual4.layers.conv2.stride=... adds"),
        (
            [in_residual4("convv.stride", 2)],
            "residual4.layers.convv: there is no such",
        ),
        (["model.layers.residual4.shortcat=conv"], "did you mean 'shortcut'?"),
        (["model.layers.residual4.shortcut=conv"], "allowed: identity, projection"),
        (
            [in_residual4("conv1.channels", "many")],
            "model.layers.residual4.layers.conv1.channels=many: 'many' is not allowed",
        ),
        (
            ["+model.layers.residual4.layers.dense1=3"],
            "dense1: its output is a vector",
        ),
        (["+model.layers.residual10={layers:{}}"], "model.layers.residual10.layers is empty"),
        (["+model.layers.residual10={layers:{dropout:0}}"], "none of them does anything"),
        (["+model.layers.residual10={layers:3}"], "model.layers.residual10.layers=3: allowed:"),
        (["+model.layers.residual10=[conv]"], "residual10.layers.conv1.channels: the key is"),
        (["+model.layers.residual10=[{conv:3}]"], "put residual10 before global_pool1"),
    ],
)
def test_a_mistake_is_one_sentence(command, overrides, words):
    answer = command("plan", "model=resnet20", *overrides)
    assert (answer.code, words in answer.err) == (2, True), answer.out + answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("overrides", "words", "ways"),
    [
        (
            [in_residual4("conv1.padding", 0)],
            "layer residual4: its layers make 32x13x13 of 16x28x28, and its shortcut makes "
            "32x14x14 of that; try padding=same in layer residual4.conv1",
            [in_residual4("conv1.padding", "same")],
        ),
        (
            [in_residual4("conv1.padding", 0), in_residual4("conv2.padding", 0)],
            "padding=same in layers residual4.conv1 and residual4.conv2",
            [in_residual4("conv1.padding", "same"), in_residual4("conv2.padding", "same")],
        ),
        (
            [in_residual4("conv2.channels", 8)],
            "its shortcut leaves out no channels; try shortcut=projection",
            ["model.layers.residual4.shortcut=projection"],
        ),
        (
            [in_residual4("conv1.kernel_size", 50)],
            "layer residual4.conv1: a 50x50 kernel at stride 2 does not fit its 28x28 input "
            "(padding 1: floor((28+2-50)/2)+1 = -9); try padding=same",
            [in_residual4("conv1.padding", "same")],
        ),
        (
            ["+" + in_residual4("conv2.groups", 3)],
            "layer residual4.conv2: groups=3 must divide its 32 input channels and its 32 output "
            "channels; try groups=32 or groups=1",
            ["+" + in_residual4("conv2.groups", 32)],
        ),
    ],
)
def test_what_cannot_be_names_the_layer_and_the_advice_is_right(command, overrides, words, ways):
    answer = command("plan", "model=resnet20", *overrides)
    assert (answer.code, words in answer.err) == (2, True), answer.out + answer.err
    kept = [o for o in overrides if o.partition("=")[0] not in {w.partition("=")[0] for w in ways}]
    assert command("plan", "model=resnet20", *kept, *ways).code == 0


def test_python_is_told_the_key_too():
    with pytest.raises(ConfigError, match=r"^layers\.residual1\.layers\.conv1\.stride=0: 0 is"):
        Sequential((1, 8, 8), 2, layers=small({"conv": {**CONV, "stride": 0}}))


# --- what is trained --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    assert train_apart(TINY, path) == "ok"
    return RunFolder(path)


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path, whole):
    assert train_apart(TINY, tmp_path, "step", 7) is None
    assert train_apart(TINY, tmp_path) == "ok"
    assert_equal_runs(RunFolder(tmp_path), whole)


@pytest.mark.long
def test_a_trained_resnet_is_evaluated_explained_exported_and_probed(command, whole, tmp_path):
    result = whole.read_result()
    assert result.num_parameters == 269_722 - 2 * 16 * 9  # grey images
    assert result.receptive_field == [81, 81]
    evaluation = json.loads(command("evaluate", whole.path, "--json").out)
    assert evaluation["test/acc"] == pytest.approx(result.metrics["test/acc"], abs=1e-6)
    page = tmp_path / "page.html"
    assert command("explain", whole.path, 3, "--out", page).code == 0
    assert "residual9.conv2" in page.read_text("utf-8")
    for form, suffix in (("onnx", "onnx"), ("torch_export", "pt2"), ("safetensors", "safetensors")):
        file = tmp_path / f"model.{suffix}"
        answer = command("export", whole.path, "--format", form, "--out", file)
        assert (answer.code, file.is_file()) == (0, True), answer.err
    probes = tmp_path / "probes"
    for probe in ("permute", "prune"):
        answer = command("probe", whole.path, probe, "--images", 20, "--out", probes)
        assert answer.code == 0, answer.err


def test_values_in_a_residual_layer_are_swept_and_reported(command, tmp_path):
    inner = {"conv1": CONV, "conv2": {**CONV, "channels": 6, "kernel_size": 3}}
    layers = {"conv1": 6, "residual1": {"layers": inner}}
    words = ["model=sequential", "~model.layers", f"+model.layers={typed_value(layers)}"]
    words += [*TINY[3:], "trainer.max_epochs=1"]
    words += ["model.layers.residual1.layers.conv1.channels=2,3"]
    words += ["model.layers.residual1.layers.conv2.kernel_size=3,5", "name=inner"]
    answer = command("train", "-m", *words)
    assert answer.code == 0, answer.err
    table = (tmp_path / "outputs/sweeps/inner/results.csv").read_text("utf-8")
    assert "model.layers.residual1.layers.conv1.channels" in table.splitlines()[0]
    assert len(table.splitlines()) == 5
