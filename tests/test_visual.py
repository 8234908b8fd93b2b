"""What TensorBoard shows of a run, read from its event file."""

import copy
import gc
import io
from collections import OrderedDict

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard._pytorch_graph import graph

from convscape.drawing import sheets
from convscape.training.torch_insides import trace

from .conftest import TINY

PICTURES = {
    *("view/training_images", "view/filters/first_layer", "view/feature_maps/block1"),
    *("view/confusion/val", "view/mistakes/val", "view/confusion/test", "view/mistakes/test"),
}


def events_of(outputs):
    (run,) = (outputs / "runs").iterdir()
    events = EventAccumulator(str(run), size_guidance={"images": 0, "histograms": 0})
    events.Reload()
    return run, events


@pytest.mark.parametrize("model", ["cnn", "mlp"])
def test_light_shows_pictures_text_and_graph(model, command, tmp_path):
    network = TINY if model == "cnn" else ("model=mlp", "model.hidden=[8]", *TINY[1:])
    assert command("train", *network).code == 0
    _, events = events_of(tmp_path / "outputs")
    expected = PICTURES if model == "cnn" else PICTURES - {"view/feature_maps/block1"}
    tags = events.Tags()
    assert set(tags["images"]) == expected
    assert tags["graph"]
    assert {"config/text_summary", "layers/text_summary"} <= set(tags["tensors"])
    assert not tags["histograms"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # how torch's own is made
def test_the_graph_is_torchs_own_and_leaves_nothing_behind():
    """Torch's keeps a class or two for each module that it has ever drawn."""
    layers = {"block": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())}
    layers |= {"flatten": nn.Flatten(), "dense": nn.Linear(72, 10)}
    network, images = nn.Sequential(OrderedDict(layers)).eval(), torch.zeros(1, 1, 8, 8)

    def operations(nodes):
        found = [node for node in nodes if node.op.startswith("aten::")]
        scopes = [node.name.rpartition("/")[0] for node in found]
        shapes = [str(node.attr["_output_shapes"]) for node in found]
        return list(zip(scopes, [node.op for node in found], shapes, strict=True))

    ours = trace(copy.deepcopy(network), images).node
    gc.collect()
    before = sum(issubclass(type(o), type) for o in gc.get_objects())
    trace(copy.deepcopy(network), images)
    gc.collect()
    assert sum(issubclass(type(o), type) for o in gc.get_objects()) == before
    assert operations(ours) == operations(graph(network, images)[0].node)
    (convolution,) = (node for node in ours if node.op == "aten::_convolution")
    place = "Sequential/Sequential[block]/Conv2d[0]"
    assert convolution.input[1:3] == [f"{place}/weight", f"{place}/bias"]
    assert {f"{place}/weight", f"{place}/bias"} < {node.name for node in ours}


def test_full_shows_histograms_curves_and_an_embedding_too(command, tmp_path):
    assert command("train", *TINY, "visual=full").code == 0
    run, events = events_of(tmp_path / "outputs")
    tags = events.Tags()
    assert "weights/network.block1.conv.weight" in tags["histograms"]
    assert "weights_gradient/network.block1.conv.weight" in tags["histograms"]
    assert any(tag.startswith("precision_recall_val/") for tag in tags["tensors"])
    assert "last_hidden_layer" in (run / "projector_config.pbtxt").read_text()
    assert (
        len(events.Images("view/confusion/val")) == 2
    )  # after epochs 1 and 2, and that is the end


def test_off_shows_nothing_and_trains_the_same(command, tmp_path):
    weights = {}
    for level in ("off", "full"):
        assert command("train", *TINY, f"visual={level}", f"output_dir={level}").code == 0
        (run,) = (tmp_path / level / "runs").iterdir()
        weights[level] = (run / "history.csv").read_text().replace("\r", "").splitlines()
    kept = [
        [row.rpartition(",")[0] for row in rows]  # all but the seconds
        for rows in weights.values()
    ]
    assert kept[0] == kept[1]
    _, events = events_of(tmp_path / "off")
    assert not events.Tags()["images"]


def test_scales_are_round_and_around_zero():
    assert sheets.Scale.of(np.array([0.0, 0.7])).high == 1
    scale = sheets.Scale.of(np.array([-0.3, 0.1]))
    assert (scale.low, scale.high) == (-0.5, 0.5)
    np.testing.assert_array_equal(scale.paint(np.zeros(1)), [[255, 255, 255]])
    assert sheets.Scale.of(np.zeros(3)).high == 1
    darkest = sheets.Scale.of(np.array([np.nan, 1.0])).paint(np.array([np.nan]))
    np.testing.assert_array_equal(darkest, [[68, 1, 84]])  # where viridis begins


@pytest.mark.parametrize("num_classes", [2, 10, 30, 1000])
def test_a_confusion_matrix_of_any_size_shows_who_was_taken_for_whom(num_classes):
    counts = np.roll(np.eye(num_classes, dtype=int) * 5, 1, axis=1)  # each for the next
    names = [f"a class with a long name, number {i}" for i in range(num_classes)]
    picture = sheets.confusion_matrix("test", counts, names)
    assert max(picture.size) < 1400
    above_the_scale = np.asarray(picture)[:-60]
    full = (above_the_scale == (0, 40, 80)).all(-1)  # the colour of 100 %
    rows, columns = (np.flatnonzero(full.any(axis)) for axis in (1, 0))
    cells = full[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = len(cells) // num_classes
    assert cells.shape == (num_classes * side, num_classes * side)
    np.testing.assert_array_equal(cells[::side, ::side], counts > 0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 28, 20), (1, 500, 7), (3, 7, 900)])
def test_a_tile_repeats_the_pixels_of_an_image_or_averages_them(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    tile = sheets.tile(image)
    assert max(tile.size) <= 1.5 * sheets.TILE
    pixels = np.asarray(tile).transpose(2, 0, 1)
    if times := pixels.shape[1] // shape[1]:
        expected = np.broadcast_to(image.repeat(times, 1).repeat(times, 2), pixels.shape)
        np.testing.assert_array_equal(pixels, expected)
    else:
        mean = np.broadcast_to(image.mean((1, 2)), 3)
        np.testing.assert_allclose(pixels.mean((1, 2)), mean, atol=2)


@pytest.mark.parametrize("names", [list("0123456789"), [f"a long name {i}" for i in range(10)]])
def test_letters_have_eleven_pixels_in_a_card_of_tensorboards(names):
    images = np.zeros((16, 1, 28, 28), np.uint8)
    kernels = np.ones((32, 1, 5, 5))
    pictures = [
        sheets.confusion_matrix("test", np.eye(10, dtype=int), names),
        sheets.images_with_captions("images", images, (names * 2)[:16], 4),
        sheets.mistakes("val", images[:10], names, names, [0.5] * 10),
        sheets.filters(kernels, kernels),
        sheets.feature_maps("block1", images[:4], np.ones((4, 32, 13, 13)), names[:4]),
    ]
    for picture in pictures:
        assert 22 * 310 / picture.width >= 10.9
        assert picture.height < 2 * picture.width


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (1, 5), (130, 41)])
def test_a_picture_is_read_from_its_file_as_it_was(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    with Image.open(io.BytesIO(sheets.as_png(Image.fromarray(pixels)))) as read:
        assert read.size == size
        np.testing.assert_array_equal(np.asarray(read), pixels)
