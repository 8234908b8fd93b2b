"""Data as people have them: a CSV of labels or pixels, and .npz files."""

import csv
import itertools

import numpy as np
import pytest
from PIL import Image

from convscape.base.errors import ConfigError
from convscape.data.cache import DataError
from convscape.data.given import Wanted, load_given
from convscape.data.module import ImageDataModule
from convscape.data.splits import split
from convscape.data.tables import Columns
from convscape.runs.data import describe
from convscape.runs.fingerprint import fingerprint
from convscape.runs.resolved import ResolvedRun
from convscape.training.build import data_module
from convscape.training.unread import refuse_unread
from tests.test_config import checked

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
NAMES = [f"{colour}{index}" for index in range(5) for colour in COLOURS]


@pytest.fixture
def folder(tmp_path):
    """Five pictures of each of three colours, without a table."""
    root = tmp_path / "pictures"
    root.mkdir()
    for name in NAMES:
        Image.new("RGB", (9, 8), COLOURS[name[:-1]]).save(root / f"{name}.png")
    return root


@pytest.fixture
def load(tmp_path):
    def load(root, name="csv", labels="labels.csv", size=8, use_val=True, **columns):
        wanted = Wanted(
            *(name, root, size, None, 0.2, "error", use_val),
            columns=Columns(labels, **columns) if name == "csv" else None,
        )
        return load_given(wanted, tmp_path / "cache")

    return load


def write(path, header, lines, encoding="utf-8", **dialect):
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file, **dialect).writerows([header, *lines] if header else lines)
    return path


def colours_are_right(images, labels, classes):
    return all(
        tuple(image[:, 4, 4]) == COLOURS[classes[label]]
        for image, label in zip(images, labels, strict=True)
    )


@pytest.mark.parametrize(
    ("header", "suffix", "dialect"),
    [
        (["image", "label"], ".png", {}),
        (["id_code", "diagnosis"], "", {}),  # Kaggle: without the suffix
        (["filename", "what it is"], ".png", {"delimiter": ";"}),  # a German Excel
        (["filename", "label"], ".png", {"encoding": "utf-8-sig"}),
        (["filename", "label"], ".png", {"encoding": "utf-16", "delimiter": "\t"}),
        (["File", " Class"], ".png", {"quoting": csv.QUOTE_ALL, "lineterminator": "\n\n"}),
        (None, ".png", {}),
    ],
)
def test_labels_beside_a_folder_are_found_whatever_the_dialect(
    folder, load, header, suffix, dialect
):
    write(folder / "labels.csv", header, [[n + suffix, n[:-1]] for n in NAMES], **dialect)
    data = load(folder)
    assert data.classes == ("blue", "green", "red")
    assert np.bincount(data.train_labels).tolist() == [4, 4, 4]
    assert np.bincount(data.test_labels).tolist() == [1, 1, 1]
    assert colours_are_right(data.train_images, data.train_labels, data.classes)
    assert colours_are_right(data.test_images, data.test_labels, data.classes)


def test_a_split_column_says_what_validates_and_what_tests(folder, load):
    split = dict(zip("01234", ["train", "Training", "train", "valid", "test"], strict=True))
    lines = [[n + ".png", n[:-1], split[n[-1]]] for n in NAMES]
    write(folder / "labels.csv", ["path", "label", "split"], lines)
    data = load(folder)
    assert [len(x) for x in (data.train_labels, data.val_labels, data.test_labels)] == [9, 3, 3]
    assert colours_are_right(data.val_images, data.val_labels, data.classes)
    assert load(folder, use_val=False).val_labels is None
    with pytest.raises(DataError, match=r"data\.fold=1: no train image is .*data\.val_size=0\.2"):
        ImageDataModule(data, fold=1, val_size=None)
    assert len(ImageDataModule(data, fold=1, val_size=0.2).indices["val"]) == 2


def test_columns_and_a_second_table_may_be_said(folder, load, tmp_path):
    def lines(names):
        return [["x", n, n[:-1], len(n)] for n in names]

    header = ["id", "image", "colour", "label"]
    write(tmp_path / "a.csv", header, lines(NAMES[:9]))
    write(tmp_path / "b.csv", header, lines(NAMES[9:]))
    said = {"image_column": "image", "label_column": "colour"}
    data = load(folder, labels="../a.csv", test_labels="../b.csv", **said)
    assert len(data.train_labels) == 9
    assert len(data.test_labels) == 6
    assert colours_are_right(data.test_images, data.test_labels, data.classes)


def test_numbers_are_sorted_as_numbers_and_floats_are_the_same_classes(folder, load):
    numbers = {"blue": "10.0", "green": "9", "red": "2"}
    write(folder / "labels.csv", ["id", "y"], [[n, numbers[n[:-1]]] for n in NAMES])
    data = load(folder)
    assert data.classes == ("2", "9", "10")
    assert tuple(data.train_images[data.train_labels == 2][0][:, 4, 4]) == COLOURS["blue"]


def test_a_repeated_row_counts_once(folder, load):
    lines = [[n, n[:-1]] for n in [*NAMES, *NAMES[:4]]]
    write(folder / "labels.csv", ["id", "label"], lines)
    data = load(folder)
    assert len(data.train_labels) + len(data.test_labels) == len(NAMES)


GOOD = [[n, n[:-1]] for n in NAMES]
HEADER = ["id", "label"]


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        (HEADER, [*GOOD, ["nobody", "red"]], r"1 picture that is not in .*nobody.*data\.root"),
        (HEADER, [*GOOD, ["red0", "blue"]], r"line 17 .*'red0' has two labels, 'red' \(line 4\)"),
        (HEADER, [*GOOD, ["red0.png", "blue"]], r"line 17 .*'red0.png' has two labels, 'red'"),
        (HEADER, [*GOOD, ["red0"]], "line 17 .* has 1 column, and the first one 2"),
        (HEADER, [*GOOD, ["red0", "a", "b"]], "line 17 .* has 3 columns.*quote"),
        (HEADER, [*GOOD, ["red0", " "]], "line 17 .*has no label"),
        (HEADER, [*GOOD, ["", "red"]], "line 17 .*names no picture"),
        (HEADER, [[n, "red"] for n in NAMES], "holds one class, 'red'"),
        (HEADER, [], "holds no image"),
        (HEADER, [[n, 0.25] for n in NAMES], "labels such as 0.25, which are measurements"),
        (["id", "label", "label"], [], "has 2 columns 'label'"),
        (["a", "b", "c"], [], r"which column .*names the picture: a, b, c\? Add data\.image_col"),
        (["id", "b", "c"], [], r"which column .*is the label: id, b, c\? Add data\.label_column"),
        (["id", "label", "class"], [], r"is the label: label, class\? Add data\.label_column"),
        (["id", "label", "split"], [["red0", "red", "7"]], "line 2 .*split is '7'; allowed: train"),
        (["id", "label", "split"], [["red0", "red", "test"]], "holds no image"),
        (["only"], [], "begins with 'only', which is one column"),
        (None, [], "is empty"),
        (None, [["a.png", "b.png"]], "no header and 2 columns; .* add a first line with"),
        (None, [["a.png", "train", "test"]], "no header and 3 columns; .* add a first line"),
        (None, [["a.png", "red", "x"]], "no header and 3 columns; .* add a first line with"),
        (None, [["a.png", "b", "test"], ["b.png", "a", "b"]], "line 2 .*: column 3 is 'b'; allo"),
        (["label", *map(str, range(16))], [[1, *"123456789012345x"]], "line 2 .*not a number"),
        (["label", *map(str, range(17))], [[y, *[0] * 17] for y in (0, 0, 1, 1)], "not a square"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_in_one_sentence(
    folder, load, header, lines, message
):
    write(folder / "labels.csv", header, lines)
    with pytest.raises(DataError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,label\nred0,\xe9t\xe9\n", "is not UTF-8 from line"),
        (b"PK\x03\x04anything", "is a workbook or an archive; save the table as CSV"),
        (b"a,b\0\n", "zero bytes"),
        (b'id,label\nred0,"' + b"a" * 5_000_000, "cannot be read: field larger"),
    ],
)
def test_bytes_that_are_no_table_are_refused(folder, load, content, message):
    (folder / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_a_table_that_is_nowhere_and_columns_that_are_not_there_are_named(folder, load):
    with pytest.raises(
        DataError, match=r"there is no file .*labels\.csv.* or .*; set data\.labels"
    ):
        load(folder)
    write(folder / "labels.csv", HEADER, GOOD)
    with pytest.raises(DataError, match=r"label_column=labl: .*allowed: id, label; did you mean"):
        load(folder, label_column="labl")
    with pytest.raises(DataError, match=r"needs data\.image_size"):
        load(folder, size=None)


@pytest.mark.parametrize("has_header", [True, False])
def test_pixels_in_the_table_are_the_images(tmp_path, load, has_header):
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4))
    header = ["label", *(f"pixel{i}" for i in range(16))] if has_header else None
    lines = [[i % 2, *image.ravel()] for i, image in enumerate(images)]
    write(tmp_path / "t.csv", header, lines)
    data = load(tmp_path, labels="t.csv", size=None)
    assert data.train_images.dtype == np.uint8
    assert data.image_shape == (1, 4, 4)
    every = np.concatenate([data.train_images, data.test_images])
    assert {image.tobytes() for image in every} == {i.astype(np.uint8).tobytes() for i in images}
    assert load(tmp_path, labels="t.csv", size="2x8").image_shape == (1, 2, 8)


def test_colour_pixels_have_their_channels_last(tmp_path, load):
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3))
    header = ["label", *(f"pixel{i:04}" for i in range(48))]
    for name, part in (("a.csv", images[:4]), ("b.csv", images[4:])):
        write(tmp_path / name, header, [[i % 2, *x.ravel()] for i, x in enumerate(part)])
    data = load(tmp_path, labels="a.csv", test_labels="b.csv", size=None)
    assert data.train_images.tolist() == images[:4].transpose(0, 3, 1, 2).tolist()
    assert data.test_images.tolist() == images[4:].transpose(0, 3, 1, 2).tolist()


def test_pixels_in_one_column_and_the_usage_of_kaggle(tmp_path, load):
    """As FER2013 has them."""
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 3))
    usage = ["Training"] * 3 + ["PublicTest", "PrivateTest", "PrivateTest"]
    lines = [
        [i % 2, " ".join(map(str, image.ravel())), use]
        for i, (image, use) in enumerate(zip(images, usage, strict=True))
    ]
    write(tmp_path / "fer.csv", ["emotion", "pixels", "Usage"], lines)
    data = load(tmp_path, labels="fer.csv", size=None)
    assert data.train_images.tolist() == images[:3, None].tolist()
    assert data.val_images.tolist() == images[3:4, None].tolist()
    assert data.test_images.tolist() == images[4:, None].tolist()
    assert data.test_labels.tolist() == [0, 1]
    lines[4][1] += " 7"
    write(tmp_path / "fer.csv", ["emotion", "pixels", "Usage"], lines)
    with pytest.raises(DataError, match=r"line 6 .* has 10 pixels, and line 2 of .* 9; all"):
        load(tmp_path, labels="fer.csv", size=None)


def test_a_column_for_each_class_says_the_class(folder, load):
    """As the skin lesions of ISIC have it; the names have no suffix."""
    lines = [[n, *(f"{float(n[:-1] == c)}" for c in COLOURS)] for n in NAMES]
    write(folder / "labels.csv", ["image", *COLOURS], lines)
    data = load(folder)
    assert data.classes == ("blue", "green", "red")
    assert colours_are_right(data.train_images, data.train_labels, data.classes)
    lines[3][1:] = ["1.0", "0.0", "1.0"]
    write(folder / "labels.csv", ["image", *COLOURS], lines)
    with pytest.raises(DataError, match=r"line 5 .* 1 in several columns \(blue, red\).*one class"):
        load(folder)
    assert load(folder, label_column="blue").classes == ("0", "1")  # which the sentence says
    lines[3][1:] = ["0", "0", "0"]
    write(folder / "labels.csv", ["image", *COLOURS], lines)
    with pytest.raises(DataError, match=r"line 5 .* has a 1 in none of blue, green, red; fill it"):
        load(folder)


@pytest.mark.parametrize("columns", [*itertools.permutations(["label", "image", "split"])])
@pytest.mark.parametrize("kind", ["file", "packed", "pixels"])
@pytest.mark.parametrize("words", [True, False])
def test_without_a_header_the_first_line_says_which_column_is_which(
    folder, load, columns, kind, words
):
    """As FER2013 is passed on, and MNIST; a label that is a number comes before its pixels."""
    if kind == "pixels" and not words and columns.index("label") > columns.index("image"):
        columns = columns[::-1]
    images = np.random.default_rng(0).integers(0, 256, (len(NAMES), 16))
    lines = []
    for name, image in zip(NAMES, images, strict=True):
        cells = {
            "label": [name[:-1] if words else [*COLOURS].index(name[:-1])],
            "image": {
                "file": [f"{name}.png"],
                "packed": [" ".join(map(str, image))],
                "pixels": [*image],
            }[kind],
            "split": [{"3": "PublicTest", "4": "PrivateTest"}.get(name[-1], "Training")],
        }
        lines.append([cell for column in columns for cell in cells[column]])
    write(folder / "labels.csv", None, lines)
    data = load(folder, size=8 if kind == "file" else None)
    assert data.classes == (("blue", "green", "red") if words else ("0", "1", "2"))
    counts = [len(x) for x in (data.train_labels, data.val_labels, data.test_labels)]
    assert counts == [9, 3, 3]
    if kind == "file":
        assert colours_are_right(data.test_images, data.test_labels, tuple(COLOURS))
    else:
        assert data.test_images.reshape(3, 16).tolist() == images[-3:].tolist()


@pytest.mark.parametrize("names", [[*map(str, range(20))], [f"p{i}" for i in range(20)]])
@pytest.mark.parametrize("are_numbers", [True, False])
def test_numbered_columns_are_classes_beside_files_and_pixels_beside_numbers(
    folder, load, names, are_numbers
):
    lines = [
        [index if are_numbers else name, *(int(i == index % 5) for i in range(20))]
        for index, name in enumerate(NAMES)
    ]
    write(folder / "labels.csv", ["image", *names], lines)
    if are_numbers:
        with pytest.raises(DataError, match=r"20 pixels in a line, which is not a square"):
            load(folder, label_column="image")
        return
    data = load(folder)
    assert data.classes == tuple(sorted(names[:5], key=lambda n: int(n.strip("p"))))
    assert (data.image_shape, len(data.train_labels)) == ((3, 8, 8), 10)
    lines[2][1:] = [128] * 20  # what is more than 0 and 1 is no class
    write(folder / "labels.csv", ["image", *names], lines)
    with pytest.raises(DataError, match=r"20 pixels|label_column"):
        load(folder)


def test_names_of_two_words_are_classes_beside_those_words(folder, load):
    """A white wine is one thing, whatever else is white or a wine."""
    names = ["white", "red", "wine", "white wine", "red wine"]
    lines = [[name, names[index % 5]] for index, name in enumerate(NAMES)]
    write(folder / "labels.csv", HEADER, lines)
    assert load(folder).classes == tuple(sorted(names))
    for several in ("white red wine", "wine red"):
        lines[0][1] = several
        write(folder / "labels.csv", HEADER, lines)
        with pytest.raises(DataError, match="has labels of several classes, such as 'red wine'"):
            load(folder)


@pytest.mark.parametrize("order", [("png", "bmp"), ("bmp", "png")])
@pytest.mark.parametrize("place", ["", "deeper"])
def test_two_files_of_one_name_need_the_suffix(folder, load, order, place):
    where = folder / place
    where.mkdir(exist_ok=True)
    for suffix in order:
        Image.new("RGB", (9, 8)).save(where / f"twin.{suffix}")
    write(folder / "labels.csv", HEADER, [*GOOD, ["twin", "red"]])
    with pytest.raises(DataError, match=r"'twin' is several files, as .*bmp.*; write the suffix"):
        load(folder)
    write(folder / "labels.csv", HEADER, [*GOOD, ["twin.bmp", "red"], ["twin.png", "red"]])
    data = load(folder)  # which the sentence says
    assert len(data.train_labels) + len(data.test_labels) == len(NAMES) + 2


def test_a_missing_picture_is_counted_once(folder, load):
    write(folder / "labels.csv", HEADER, [*GOOD, *[["nobody", "red"]] * 3, ["no one", "red"]])
    with pytest.raises(DataError, match=r"2 pictures that are not in .*\(nobody, no one\)"):
        load(folder)


@pytest.mark.parametrize("mark", ["|", ", ", " "])
def test_labels_of_several_classes_are_refused(folder, load, mark):
    labels = [n[:-1] for n in NAMES]
    labels[:2] = labels[3:5] = [f"red{mark}blue", f"green{mark}red"]
    write(folder / "labels.csv", HEADER, zip(NAMES, labels, strict=True))
    with pytest.raises(
        DataError, match=r"several classes, such as 'green.*another mark: green_red"
    ):
        load(folder)
    written = [label.replace(mark, "_") for label in labels]  # which the sentence says
    write(folder / "labels.csv", HEADER, zip(NAMES, written, strict=True))
    assert load(folder).classes[1:3] == ("green", "green_red")


def test_pictures_in_folders_are_found_by_their_names(folder, load):
    """As HAM10000 is in two parts; the names have no suffix."""
    for name in NAMES:
        part = folder / f"part_{int(name[-1]) % 2}" / "of it"
        part.mkdir(exist_ok=True, parents=True)
        (folder / f"{name}.png").rename(part / f"{name}.png")
    write(folder / "labels.csv", HEADER, GOOD)
    data = load(folder)
    assert len(data.train_labels) + len(data.test_labels) == len(NAMES)
    assert colours_are_right(data.train_images, data.train_labels, data.classes)
    twin = folder / "red0.png"
    Image.new("RGB", (9, 8)).save(folder / "part_1" / twin.name)
    with pytest.raises(DataError, match=r"'red0' is in several folders, as .*; write the folder"):
        load(folder)
    write(folder / "labels.csv", HEADER, [*GOOD[:2], ["part_1/red0.png", "red"], *GOOD[3:]])
    assert load(folder).classes == data.classes  # which the sentence says


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
        ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ],
)
def test_an_npz_brings_its_splits(tmp_path, load, names):
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), np.uint8)
    labels = np.arange(12)[:, None] % 3
    arrays = dict(zip(names, (images[:8], labels[:8], images[8:], labels[8:]), strict=True))
    np.savez(tmp_path / "a.npz", **arrays, val_images=images[:2], val_labels=labels[:2])
    data = load(tmp_path / "a.npz", "npz", size=None)
    assert data.train_images.tolist() == images[:8].transpose(0, 3, 1, 2).tolist()
    assert data.test_labels.tolist() == [2, 0, 1, 2]
    assert data.val_labels.tolist() == [0, 1]


def test_one_pair_of_arrays_in_an_npz_is_split_and_may_be_flat(tmp_path, load):
    np.savez(tmp_path / "a.npz", X=np.arange(160.0).reshape(10, 16), y=list("ababababab"))
    data = load(tmp_path / "a.npz", "npz", size=None)
    assert data.image_shape == (1, 4, 4)
    assert data.classes == ("a", "b")
    assert (len(data.train_labels), len(data.test_labels)) == (8, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no file .*set data\.root to an \.npz with train_images"),
        (b"garbage", "is not an .npz"),
        ({"a": [1], "b": [2]}, "holds a, b; expected train_images"),
        ({"x": np.zeros((4, 4, 4)), "y": np.array([{}] * 4)}, "Python objects, which is not"),
        ({"x": np.zeros((4, 4, 4)), "y": [0, 1]}, "holds labels of int64"),
        ({"x": np.zeros((4, 4)), "y": [0, 1, 0]}, "labels of int64 .* for 4 images"),
        ({"x": np.zeros((4, 3)), "y": [0, 1, 0, 1]}, "holds images of .*2 axes"),
    ],
)
def test_an_npz_that_makes_no_sense_is_refused(tmp_path, load, content, message):
    path = tmp_path / "a.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(DataError, match=message):
        load(path, "npz", size=None)


def test_the_fingerprint_is_that_of_the_content_and_not_of_the_path(folder, tmp_path):
    write(folder / "labels.csv", HEADER, GOOD)
    write(tmp_path / "other.csv", ["filename", "colour"], GOOD)
    changed = [*GOOD[:-1], [GOOD[-1][0], "blue"]]
    write(tmp_path / "changed.csv", HEADER, changed)
    words = ["data=csv", "data.image_size=8", f"data.cache_dir={tmp_path / 'cache'}"]
    configs = [
        checked(*words, f"data.root={folder}", f"data.labels={labels}")
        for labels in ("labels.csv", tmp_path / "other.csv", tmp_path / "changed.csv")
    ]
    first, moved, other = map(fingerprint, configs)
    assert first == moved != other
    assert describe(configs[0]) == ["pictures: 15; 3 classes (blue 5, green 5, red 5)"]


def test_a_table_is_trained_evaluated_and_found_elsewhere(command, folder, tmp_path):
    write(folder / "labels.csv", HEADER, GOOD)
    sizes = ["model=mlp", "model.hidden=[4]", "trainer.max_epochs=1", "trainer.threads=1"]
    out = command(
        *("train", "data=csv", f"data.root={folder}", "data.image_size=8", *sizes),
        *("data.cache_dir=cache", "logger=[]"),
    ).out
    assert "3 classes (blue 5, green 5, red 5)" in out
    folder.rename(tmp_path / "moved")
    answer = command("evaluate", "latest")
    assert answer.code == 2
    assert "add data.root=<where they are now>" in answer.err
    answer = command("evaluate", "latest", f"data.root={tmp_path / 'moved'}")
    assert answer.code == 0, answer.err


def test_keys_of_a_table_are_refused_where_there_is_none():
    with pytest.raises(ConfigError, match=r"data=digits reads no table; data=csv does"):
        refuse_unread(checked("+data.labels=a.csv"))


def test_folds_part_the_train_images_and_each_is_stratified():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 100, 51]))
    folds = [split(labels, 0.2, None, 3, fold) for fold in range(5)]
    assert all(
        np.array_equal(a, b) for a, b in zip(folds[0], split(labels, 0.2, None, 3), strict=True)
    )
    validated = np.concatenate([val for _, val in folds])
    assert len(np.unique(validated)) == len(validated) == 200  # of 201
    for train, val in folds:
        assert np.array_equal(np.union1d(train, val), np.arange(201))
        assert not np.intersect1d(train, val).size
        assert np.abs(np.bincount(labels[val]) - [10, 20, 10]).max() <= 1
    with pytest.raises(DataError, match=r"data\.fold=5: .* allowed: 0 to 4"):
        split(labels, 0.2, None, 3, 5)
    with pytest.raises(DataError, match=r"data\.fold=1: .* allowed: 0, the only one"):
        split(labels, 0, None, 3, 1)


@pytest.mark.parametrize("name", ["image_folder", "csv", "npz"])
def test_plan_and_train_refuse_a_fold_in_the_same_words(command, tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    rows = [(i, i % 2, ("train", "val", "test")[i % 3]) for i in range(30)]
    if name == "image_folder":
        for i, label, part in rows:
            (tmp_path / f"data/{part}/{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[i]).save(tmp_path / f"data/{part}/{label}/{i}.png")
    elif name == "csv":
        (tmp_path / "data").mkdir()
        lines = [[label, part, *pixels[i].ravel()] for i, label, part in rows]
        write(tmp_path / "data/labels.csv", ["label", "split", *map(str, range(64))], lines)
    else:
        parts = {part: [i for i, _, p in rows if p == part] for part in ("train", "val", "test")}
        arrays = {f"{part}_images": pixels[which] for part, which in parts.items()}
        labels = {f"{part}_labels": np.array(which) % 2 for part, which in parts.items()}
        np.savez(tmp_path / "data", **arrays, **labels)
    place = "data.npz" if name == "npz" else "data"
    words = [f"data={name}", f"data.root={place}", "data.cache_dir=cache", "data.image_size=8"]
    words += ["model=mlp", "trainer.max_epochs=1", "trainer.threads=1", "logger=[]"]
    for more in (["data.fold=1"], ["data.fold=1", "data.val_size=0"]):
        answers = [command(verb, *words, *more) for verb in ("plan", "train")]
        assert [answer.code for answer in answers] == [2, 2], [a.err for a in answers]
        assert "data.fold=1: no train image is used for validation" in answers[0].err
        assert answers[0].err == answers[1].err
    tried = command("plan", *words, "data.fold=1", "data.val_size=0.2")  # as the sentence says
    assert tried.code == 0, tried.err


def test_a_run_validates_on_its_fold_and_the_first_is_the_run_it_was():
    words = ["data.val_size=0.2"]
    data = [data_module(ResolvedRun(checked(*words, f"data.fold={k}"))) for k in range(5)]
    parts = [set(each.indices["val"].tolist()) for each in data]
    assert len(set.union(*parts)) >= 0.99 * data[0].image_set.train_labels.size
    run = ResolvedRun(checked(*words, "data.fold=2"))
    assert run.train_indices.tolist() == data[2].indices["train"].tolist()
    prints = [
        fingerprint(checked(*words, *more)) for more in ([], ["data.fold=0"], ["data.fold=1"])
    ]
    assert prints[0] == prints[1] != prints[2]
