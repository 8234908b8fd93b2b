"""Names in scripts that the font of the pictures lacks: a font of the system's, or a number."""

from itertools import product

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from convscape.drawing import fonts, sheets
from convscape.reports.figures import figure_style

CAT, DOG, THAI = "猫", "犬", "หมา"
CJK, LATIN = fonts.USUAL[0], fonts.AROUND_NAMES


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Fonts of triangles, the only ones of the system; what is known of others is forgotten."""
    cached = [each for each in vars(fonts).values() if hasattr(each, "cache_clear")]

    def forget():
        for each in (*cached, sheets.text_width):
            each.cache_clear()

    def install(stem, letters):
        glyphs = {".notdef": [(0, 0), (0, 9), (9, 9)]}
        glyphs |= {f"u{ord(letter):04X}": [(0, 0), (0, 99), (99, 0)] for letter in letters}
        pens = {name: TTGlyphPen(None) for name in glyphs}
        for name, (first, *corners) in glyphs.items():
            pens[name].moveTo(first)
            for corner in corners:
                pens[name].lineTo(corner)
            pens[name].closePath()
        font = FontBuilder(100)
        font.setupGlyphOrder(list(glyphs))
        font.setupCharacterMap({ord(letter): f"u{ord(letter):04X}" for letter in letters})
        font.setupGlyf({name: pen.glyph() for name, pen in pens.items()})
        font.setupHorizontalMetrics(dict.fromkeys(glyphs, (100, 0)))
        font.setupHorizontalHeader(ascent=100, descent=0)
        font.setupNameTable({"familyName": stem, "styleName": "Regular"})
        font.setupOS2()
        font.setupPost()
        font.save(tmp_path / f"{stem}.ttf")

    look = font_manager.findSystemFonts
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: look([tmp_path]))
    manager = font_manager.fontManager
    own = [entry for entry in manager.ttflist if "mpl-data" in entry.fname]  # has DejaVu Sans
    monkeypatch.setattr(manager, "ttflist", own)
    forget()
    yield install
    forget()


def test_a_name_is_written_in_a_font_that_has_its_letters(install):
    install(CJK, CAT + LATIN)
    assert fonts.font_for(CAT, 22).getname()[0] == CJK
    assert fonts.font_for(f"is {CAT}…", 22).getname()[0] == CJK
    assert fonts.font_for("cat, кот, γάτα", 22).getname()[0] == fonts.DEJAVU
    assert fonts.readable([CAT, DOG, "dog"]) == [CAT, "class 1", "dog"]
    assert f"pictures number {DOG}; " in fonts.note([CAT, DOG, "dog"])
    matrix = np.asarray(sheets.confusion_matrix("val", np.eye(2, dtype=int), [CAT, "dog"]))
    # the triangle fills half of the letter, at the left of the first row
    assert (matrix[:, :30] < 100).all(-1).sum() > 150
    with figure_style():
        families = font_manager.FontProperties().get_family()
    assert families == [fonts.DEJAVU, CJK]


@pytest.mark.parametrize("letters", [CAT, CAT + LATIN.replace("…", ""), CAT + LATIN[1:]])
def test_a_font_without_the_letters_around_a_name_is_of_no_use_to_pictures(install, letters):
    install(CJK, letters)
    assert fonts.readable([CAT, "dog"]) == ["class 0", "dog"]
    assert fonts.note([CAT, "dog"])


def test_of_names_that_no_font_has_together_the_fewest_are_numbered(install):
    """Else a line with both, as "1x a taken for b", would have boxes."""
    install(CJK, CAT + DOG + LATIN)
    install("NotoSansThai-Regular", THAI + LATIN)
    names = [CAT, THAI, DOG]
    assert fonts.readable([THAI, "cat"]) == [THAI, "cat"]
    assert fonts.readable(names) == [CAT, "class 1", DOG]
    assert fonts.readable([CAT, DOG, "кот"]) == [CAT, DOG, "class 2"]
    assert fonts.note(names).startswith(
        f"no font of this system has the letters of all class names: pictures number {THAI}; "
    )


def test_any_regular_noto_sans_of_the_system_is_taken(install):
    install("NotoSansCherokee-Regular", "Ꮳ" + LATIN)
    assert fonts.readable(["Ꮳ"]) == ["Ꮳ"]
    assert fonts.families() == [fonts.DEJAVU]  # Matplotlib opens each that it is given


def test_what_no_font_has_is_numbered_and_said_in_a_sentence(install):
    assert fonts.others() == ()
    assert fonts.families() == [fonts.DEJAVU]
    names = ["dog", CAT, DOG, "한국", "ไทย"]
    assert fonts.readable(names) == ["dog", "class 1", "class 2", "class 3", "class 4"]
    assert fonts.note(names) == (
        "no font of this system has the letters of all class names: pictures number 猫, 犬, 한국, "
        "...; install a font that has these letters to see the names"
    )
    assert fonts.note(["dog", "собака", "كلب"]) is None


def test_that_names_are_numbered_is_said_by_a_run_and_by_a_comparison(install, command, tmp_path):
    rng = np.random.default_rng(0)
    for split, name, number in product(("train", "test"), (CAT, DOG), range(12)):
        file = tmp_path / "pictures" / split / name / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(file)
    words = ["data=image_folder", "data.root=pictures", "data.image_size=8", "data.channels=1"]
    words += ["model=mlp", "model.hidden=[4]", "trainer.max_epochs=1"]
    note = fonts.note(sorted([CAT, DOG]))
    for seed, progress in enumerate(("lines", "off")):
        answer = command("train", *words, f"trainer.progress={progress}", f"seed={seed}")
        assert answer.code == 0, answer.err
        assert (note in answer.err) == (progress == "lines")
    runs = list(tmp_path.glob("outputs/runs/*"))
    assert all(note in (run / "run.log").read_text() for run in runs)
    assert command("compare", *runs).code == 0
    assert note in (tmp_path / "outputs/compare/compare.html").read_text()
