import contextlib
import io
import logging
import os
import random

import numpy as np
import pytest
from PIL import Image

from convscape.base.errors import ConfigError
from convscape.data.cache import DataError
from convscape.data.datasets import image_shape, load_images
from convscape.data.folders import find_pictures
from convscape.data.pictures import describe_fit, read_picture, resized, split_by_name
from convscape.runs.data import describe
from convscape.runs.fingerprint import fingerprint
from convscape.runs.resolved import ResolvedRun
from convscape.training.build import data_module
from tests.test_config import checked

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLOURS = {"blue": BLUE, "green": GREEN, "red": RED}


def paint(path, colour=RED, size=(12, 10), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


@pytest.fixture
def tree(tmp_path):
    """Three classes of plain colours, 10 pictures each to train on and 2 to test."""
    root = tmp_path / "pictures"
    for split, count in (("train", 10), ("test", 2)):
        for name, colour in COLOURS.items():
            for index in range(count):
                paint(root / split / name / f"{index}.png", colour)
    return root


@pytest.fixture
def load(tmp_path):
    def load(root, **options):
        options = {"image_size": 8, "channels": 3} | options
        return load_images("image_folder", root=root, cache_dir=tmp_path / "cache", **options)

    return load


def colours_of(images):
    return images[:, :, 4, 4].tolist()


# One picture


def test_a_ramp_of_sixteen_bits_is_scaled_over_its_full_range(tmp_path):
    values = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "ramp.png")
    result = read_picture(tmp_path / "ramp.png", (1, 1, 5))
    assert result.tolist() == [[[0, 0, 1, 128, 255]]]


@pytest.mark.parametrize(
    ("mode", "value", "file", "expected"),
    [
        ("1", 1, "a.png", (255, 255, 255)),
        ("L", 7, "a.png", (7, 7, 7)),
        ("LA", (0, 0), "a.png", (255, 255, 255)),
        ("RGBA", (200, 0, 0, 0), "a.png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 255), "a.webp", (255, 0, 0)),
        ("RGBA", (0, 0, 0, 51), "a.png", (204, 204, 204)),
        ("CMYK", (0, 255, 255, 0), "a.tif", (255, 0, 0)),
        ("I;16", 65535, "a.tif", (255, 255, 255)),
        ("RGB", (10, 20, 30), "a.bmp", (10, 20, 30)),
        ("RGB", (10, 20, 30), "a.ppm", (10, 20, 30)),
        ("RGB", (10, 20, 30), "a.tga", (10, 20, 30)),
    ],
)
def test_every_mode_becomes_colour(tmp_path, mode, value, file, expected):
    Image.new(mode, (9, 9), value).save(
        tmp_path / file, **({"lossless": True} if "webp" in file else {})
    )
    pixels = read_picture(tmp_path / file, (3, 4, 4))
    assert pixels.dtype == np.uint8
    assert (pixels == np.array(expected).reshape(3, 1, 1)).all()


def test_a_cmyk_jpeg_keeps_its_colour(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    pixels = read_picture(tmp_path / "a.jpg", (3, 4, 4)).astype(int)
    assert (abs(pixels - np.array([255, 0, 0]).reshape(3, 1, 1)) < 12).all()


def test_palette_with_a_transparent_colour_is_put_on_white(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "a.gif", transparency=0)
    pixels = read_picture(tmp_path / "a.gif", (3, 4, 4))
    assert tuple(pixels[:, 0, 0]) == (255, 255, 255)
    assert tuple(pixels[:, 3, 3]) == BLUE


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (GREEN, RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert tuple(read_picture(tmp_path / "a.gif", (3, 8, 8))[:, 0, 0]) == GREEN


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (2, (0, 7)), (3, (7, 7)), (6, (0, 7)), (8, (7, 0))]
)
def test_pictures_are_turned_upright(tmp_path, orientation, corner):
    # where the EXIF standard puts the pixel that is stored first
    picture = Image.new("RGB", (8, 8), RED)
    picture.putpixel((0, 0), BLUE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    pixels = read_picture(tmp_path / "a.png", (3, 8, 8))
    assert tuple(pixels[:, corner[0], corner[1]]) == BLUE


def test_the_aspect_ratio_is_kept_and_the_sides_are_cut_off(tmp_path):
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(BLUE, (10, 0, 30, 20))
    picture.save(tmp_path / "wide.png")
    assert (read_picture(tmp_path / "wide.png", (3, 20, 20))[2] == 255).all()


def test_sizes_are_height_times_width(tmp_path):
    paint(tmp_path / "a.png", size=(50, 60))
    assert read_picture(tmp_path / "a.png", (1, 4, 6)).shape == (1, 4, 6)


def test_grey_images_repeat_into_colour_and_colour_becomes_luma():
    grey = np.full((2, 1, 4, 4), 90, dtype=np.uint8)
    assert (resized(grey, (3, 8, 8)) == 90).all()
    red = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    red[:, 0] = 255
    assert (resized(red, (1, 4, 4)) == round(0.299 * 255)).all()


def encoded(suffix):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format=suffix)
    return buffer.getvalue()


def bomb():
    """A PNG that claims 60,000 x 60,000 pixels."""
    content = bytearray(encoded("png"))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a picture at all", id="text"),
        pytest.param(encoded("jpeg")[:900], id="cut off"),
        pytest.param(bomb(), id="bomb"),
    ],
)
def test_an_unreadable_picture_is_named(tmp_path, content):
    path = tmp_path / "broken é.png"
    path.write_bytes(content)
    words = r"cannot read the picture '.*broken é\.png' \(.+\)|'.*broken é\.png' holds no picture"
    with pytest.raises(DataError, match=words):
        read_picture(path, (3, 8, 8))


def test_floating_point_pixels_have_no_known_range(tmp_path):
    Image.new("F", (4, 4), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="no known range"):
        read_picture(tmp_path / "a.tif", (1, 4, 4))


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it mends
@pytest.mark.parametrize("suffix", ["jpeg", "png", "gif", "bmp", "tiff", "webp", "ppm"])
def test_garbled_pictures_are_read_or_refused_but_never_crash(tmp_path, suffix):
    original, dice = encoded(suffix), random.Random(0)
    for number in range(150):
        content = bytearray(original)
        for _ in range(dice.choice([1, 3, 30])):
            content[dice.randrange(min(len(content), dice.choice([64, 10**6])))] = dice.randrange(
                256
            )
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(content[: dice.choice([len(content), dice.randrange(len(content))])])
        with contextlib.suppress(DataError):
            assert read_picture(path, (3, 8, 8)).shape == (3, 8, 8)


# Folders


def test_folders_become_sorted_classes_and_official_splits(tree, load):
    data = load(tree)
    assert data.classes == ("blue", "green", "red")
    assert data.train_images.shape == (30, 3, 8, 8)
    assert data.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert colours_of(data.test_images) == [list(c) for c in (BLUE, BLUE, GREEN, GREEN, RED, RED)]
    assert data.mean == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert data.std == pytest.approx((np.sqrt(2) / 3,) * 3)


@pytest.mark.parametrize("names", [("Training", "Testing"), ("Train", "Test"), ("TRAIN", "test")])
def test_splits_are_known_by_their_names_in_any_case(tree, load, names):
    before = load(tree)
    for split, name in zip(("train", "test"), names, strict=True):
        (tree / split).rename(tree / "other")
        (tree / "other").rename(tree / name)
    data = load(tree)
    assert (data.classes, data.checksum) == (before.classes, before.checksum)


def test_a_train_may_be_a_class_among_others(tree, load, tmp_path):
    for name in ("Train", "car", "plane"):
        for index in range(3):
            paint(tmp_path / "vehicles" / name / f"{index}.png")
    assert load(tmp_path / "vehicles").classes == ("Train", "car", "plane")


@pytest.mark.parametrize("name", ["val", "Validation", "valid"])
def test_a_folder_for_validation_is_used_unless_a_size_is_said(tree, load, tmp_path, name):
    root, cache = f"data.root={tree}", f"data.cache_dir={tmp_path / 'cache'}"
    words = ["data=image_folder", root, cache, "data.image_size=8"]
    before = checked(*words)
    assert before.data.val_size == 0.1
    old = before.load_images()
    for colour in ("red", "blue"):
        paint(tree / name / colour / "a.png", COLOURS[colour])
    with_val = checked(*words)
    data = data_module(ResolvedRun(with_val))
    images, labels = data.tensors("val")
    assert labels.tolist() == [0, 2]
    assert colours_of(images) == [list(BLUE), list(RED)]
    assert len(data.labels("train")) == 30
    assert not any("left out" in line for line in describe(with_val))
    assert "val 2" in describe(with_val)[0]
    # a size means what it meant before there was a choice: data, fingerprint and cache
    sized = checked(*words, "data.val_size=0.1")
    assert sized.load_images().checksum == old.checksum != data.image_set.checksum
    assert fingerprint(sized) == fingerprint(before) != fingerprint(with_val)
    assert len(data_module(ResolvedRun(sized)).labels("val")) == 3
    assert f"the folder {name!r}; data.val_size=null" in describe(sized)[1]


def test_only_a_folder_can_bring_its_own_validation():
    with pytest.raises(ConfigError, match=r"data\.val_size=null: data=digits has no images"):
        checked("data.val_size=null")


def test_classes_and_numbers_are_said_and_what_is_left_out(tree, command):
    for name in ("a.heic", "b.HEIC", "c.jp2", "notes.txt", "README"):
        (tree / "train" / "red" / name).write_bytes(b"")
    (tree / "labels.csv").write_bytes(b"")
    (tree / "raw").mkdir()
    words = ["data=image_folder", f"data.root={tree}", "data.image_size=8"]
    first, second = describe(checked(*words))
    assert first == "pictures: train 30, test 6; 3 classes (blue 10, green 10, red 10)"
    assert second.startswith("left out: 2 .heic, 1 ")
    for kind in ("1 .jp2", "1 .txt", "1 without a suffix", "1 .csv beside", "1 folder 'raw'"):
        assert kind in second
    sizes = ["model=cnn", "model.channels=[2]", "trainer.max_epochs=1", "trainer.threads=1"]
    out = command("train", *words, *sizes, "logger=[]").out
    assert out.index(first) < out.index(second) < out.index("test acc")


def test_of_many_classes_the_first_are_named(tmp_path):
    for number in range(30):
        paint(tmp_path / "many" / f"{number:02}" / "a.bmp", size=(2, 2))
    (line,) = find_pictures(tmp_path / "many").describe()
    assert line.startswith("pictures: 30; 30 classes (00 1, 01 1, ")
    assert line.endswith("09 1, ...)")


def test_pictures_that_come_between_two_runs_of_a_process_change_the_fingerprint(tree):
    words = ["data=image_folder", f"data.root={tree}", "data.image_size=8"]
    before = fingerprint(checked(*words))
    assert fingerprint(checked(*words)) == before
    paint(tree / "test" / "green" / "new.png")
    assert fingerprint(checked(*words)) != before


def test_the_shape_is_known_without_reading_pictures(tree):
    (tree / "train" / "red" / "0.png").write_bytes(b"garbage")
    assert image_shape("image_folder", root=tree, image_size="8x12", channels=1) == ((1, 8, 12), 3)


def test_one_tree_is_split_in_the_same_way_everywhere(tree, tmp_path, load):
    (tree / "train").rename(tmp_path / "one tree")
    first = load(tmp_path / "one tree", test_fraction=0.3)
    assert np.bincount(first.test_labels).tolist() == [3, 3, 3]
    assert np.bincount(first.train_labels).tolist() == [7, 7, 7]
    (tmp_path / "one tree").rename(tmp_path / "moved")
    assert load(tmp_path / "moved", test_fraction=0.3).checksum == first.checksum


def test_a_new_picture_moves_at_most_one_other_between_the_splits():
    names = [f"{i}.png" for i in range(100)]
    _, before = split_by_name(names, [0] * 100, 0.2)
    _, after = split_by_name([*names, "new.png"], [0] * 101, 0.2)
    assert len(before) == 20
    assert len(set(before) - set(after)) <= 1


def test_pictures_with_odd_names_count(tree, load):
    paint(tree / "train" / "red" / "x.PNG")
    paint(tree / "train" / "red" / ("n" * 250 + ".png"))
    paint(tree / "train" / "Größe 日本" / "ä=,ö.png", GREEN)
    for ignored in (".hidden.png", "notes.txt", "Thumbs.db"):
        (tree / "train" / "red" / ignored).write_bytes(b"")
    data = load(tree)
    assert data.classes == ("Größe 日本", "blue", "green", "red")
    assert np.bincount(data.train_labels).tolist() == [1, 10, 10, 12]


def test_two_thousand_classes_work(tmp_path, load):
    for split in ("train", "test"):
        for number in range(2000):
            paint(tmp_path / "many" / split / f"{number:04}" / "a.bmp", size=(2, 2))
    data = load(tmp_path / "many", image_size=2)
    assert data.train_labels.tolist() == list(range(2000))


@pytest.mark.long
def test_two_thousand_classes_are_trained_reported_and_explained(command, browser, tmp_path):
    for split in ("train", "test"):
        for number in range(2000):
            colour = tuple(number // 13**place % 13 * 20 for place in range(3))
            paint(tmp_path / "many" / split / f"{number:04}" / "a.bmp", colour, size=(4, 4))
    words = ["data=image_folder", f"data.root={tmp_path / 'many'}", "data.image_size=8"]
    words += ["data.val_size=100", "model=cnn", "model.channels=[4]", "trainer.max_epochs=1"]
    answer = command("train", *words, f"data.cache_dir={tmp_path / 'cache'}")
    assert answer.code == 0, answer.err
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    answer = command("evaluate", run)
    assert "1999" in answer.out
    assert len(answer.out.splitlines()) < 2010  # no matrix of four million counts
    assert command("predict", run, tmp_path / "many" / "test" / "0007").code == 0
    assert command("explain", run, 1234).code == 0
    assert command("report", run).code == 0
    for name in ("explain.html", "report.html"):
        assert (run / name).stat().st_size < 8e6
        page = browser.new_page()
        page.goto((run / name).as_uri())
        if name == "explain.html":
            assert "20 most probable of 2000 classes" in page.locator("body").text_content()
            assert page.locator("#softmax tr").count() < 30
        page.close()


def test_an_unreadable_picture_is_refused_or_left_out_as_configured(tree, load, caplog):
    for name in ("3.png", "7.png"):
        (tree / "train" / "green" / name).write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"green/3\.png.*data\.on_unreadable=skip"):
        load(tree)
    with caplog.at_level(logging.WARNING):
        data = load(tree, on_unreadable="skip")
    assert np.bincount(data.train_labels).tolist() == [10, 8, 10]
    (record,) = caplog.records
    assert "left out 2 unreadable pictures" in record.message
    assert "green/3.png" in record.message
    with pytest.raises(DataError, match=r"green/3\.png"):  # not hidden by the cache without it
        load(tree)


def test_a_class_of_which_nothing_can_be_read_is_refused(tree, load):
    for path in (tree / "train" / "green").iterdir():
        path.write_bytes(b"garbage")
    with pytest.raises(DataError, match="not one train picture of class 'green'"):
        load(tree, on_unreadable="skip")


def test_dangling_links_are_unreadable_pictures(tree, load):
    (tree / "train" / "red" / "z.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"z\.png"):
        load(tree)
    assert len(load(tree, on_unreadable="skip").train_labels) == 30


def test_a_pipe_is_not_waited_for(tree, load):
    os.mkfifo(tree / "train" / "red" / "pipe.png")
    assert len(load(tree).train_labels) == 30


def test_links_to_folders_are_followed(tree, load, tmp_path):
    (tree / "train" / "green").rename(tmp_path / "elsewhere")
    (tree / "train" / "green").symlink_to(tmp_path / "elsewhere")
    (tree / "train" / "self").symlink_to("self")
    assert np.bincount(load(tree).train_labels).tolist() == [10, 10, 10]


def spoil_missing(tree):
    return tree / "nowhere", "there is no folder .*nowhere"


def spoil_empty(tree):
    (tree / "nothing").mkdir()
    return tree / "nothing", "two class folders or more expected.*none found"


def spoil_file(tree):
    return tree / "train" / "red" / "0.png", "cannot read the folder .*Not a directory"


def spoil_no_test(tree):
    (tree / "test").rename(tree / "val")
    return tree, "holds train/ but no test/"


def spoil_no_train(tree):
    (tree / "train").rename(tree / "valid")
    return tree, "holds test/ but no train/"


def spoil_two_trains(tree):
    paint(tree / "Training" / "red" / "a.png")
    return tree, "holds '[Tt]rain(ing)?' and '[Tt]rain(ing)?'; keep one"


def spoil_flat_splits(tree):
    for name in COLOURS:
        for split in ("train", "test"):
            for path in (tree / split / name).iterdir():
                path.rename(tree / split / f"{name}{path.name}")
            (tree / split / name).rmdir()
    return tree, "two class folders or more expected in '.*train', none found"


def spoil_folders_of_folders(tree):
    (tree / "both").mkdir()
    for split in ("train", "test"):
        (tree / split).rename(tree / "both" / f"my {split}")
    return tree / "both", r"my test' holds folders \(blue, green, red\).*set data\.root"


def spoil_pictures_in_deeper_folders(tree):
    paint(tree / "train" / "red" / "deeper" / "x.png")
    return tree, r"red' holds folders \(deeper\)"


def spoil_circle(tree):
    (tree / "train" / "red" / "loop").symlink_to("..")
    return tree, r"red' holds folders \(loop\)"


def spoil_suffixes(tree):
    for path in (tree / "train" / "red").iterdir():
        path.rename(path.with_suffix(".heic"))
    return tree, r"red' holds no picture \(.*\), only 10 \.heic; fill"


def spoil_one_class(tree):
    for name in ("blue", "green"):
        (tree / "train" / name).rename(tree / name)
    return tree, "two class folders or more expected.*only 'red' found"


def spoil_empty_class(tree):
    (tree / "train" / "yellow").mkdir()
    return tree, "class folder '.*yellow' holds no picture"


def spoil_unknown_test_class(tree):
    paint(tree / "test" / "yellow" / "a.png")
    return tree, "'.*yellow' is a class without a folder in '.*train'"


def spoil_too_few_to_split(tree):
    paint(tree / "train" / "yellow" / "a.png")
    return tree / "train", "'yellow' in .* has only one picture"


def spoil_name(tree):
    os.mkdir(os.fsencode(tree / "train") + b"/\xff")
    return tree, "is not UTF-8"


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_missing,
        spoil_empty,
        spoil_file,
        spoil_no_test,
        spoil_no_train,
        spoil_two_trains,
        spoil_flat_splits,
        spoil_folders_of_folders,
        spoil_pictures_in_deeper_folders,
        spoil_circle,
        spoil_suffixes,
        spoil_one_class,
        spoil_empty_class,
        spoil_unknown_test_class,
        spoil_too_few_to_split,
        spoil_name,
    ],
)
def test_folders_that_make_no_sense_are_refused_in_one_sentence(tree, load, spoil):
    root, message = spoil(tree)
    with pytest.raises(DataError, match=message) as caught:
        load(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["red", "Green"], r"val/Green' is a class without a folder.*; did you mean 'green'\?"),
        ([], r"no class folder in '.*val'; fill .*, remove it, or .*: data\.val_size=0\.1"),
    ],
)
def test_validation_that_does_not_match_is_refused(tree, load, names, message):
    (tree / "val").mkdir()
    for name in names:
        paint(tree / "val" / name / "a.png")
    with pytest.raises(DataError, match=message):
        load(tree, use_val=True)


def test_a_folder_or_picture_without_permission_is_named(tree, load, as_nobody):
    load(tree)  # what is imported on the way may be root's
    (tree / "train" / "green" / "3.png").chmod(0)
    with as_nobody(), pytest.raises(DataError, match=r"green/3\.png' \(Permission denied\)"):
        load(tree, image_size=9)
    (tree / "train" / "red").chmod(0)
    with as_nobody(), pytest.raises(DataError, match=r"red.*Permission denied"):
        load(tree)


def test_a_picture_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png' \(it is not a file\)"):
        read_picture(tmp_path / "pipe.png", (3, 8, 8))


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it mends
def test_an_animation_cut_off_anywhere_is_described_or_refused(tmp_path):
    frames = [Image.effect_noise((30, 30), 90).convert("P") for _ in range(4)]
    frames[0].save(tmp_path / "whole.gif", save_all=True, append_images=frames[1:])
    content, path = (tmp_path / "whole.gif").read_bytes(), tmp_path / "cut.gif"
    for place in range(0, len(content), 41):
        path.write_bytes(content[:place])
        with contextlib.suppress(DataError):
            read_picture(path, (3, 8, 8))
            assert "30x30" in describe_fit(path, (3, 8, 8))


def test_a_changed_picture_is_noticed(tree, load):
    first = load(tree)
    paint(tree / "train" / "red" / "0.png", BLUE)
    assert load(tree).checksum != first.checksum
