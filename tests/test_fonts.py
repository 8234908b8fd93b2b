"""Names in scripts that the font of the pictures lacks: a font of the system's, or a number."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from convscape.drawing import fonts, sheets
from convscape.reports.figures import figure_style

CAT, DOG = "猫", "犬"


@pytest.fixture
def forgetful():
    """What is known of the system's fonts is looked for anew, before and after."""

    def forget():
        for cached in (fonts.others, fonts.families, fonts._is_in, sheets.text_width):
            cached.cache_clear()

    known = list(font_manager.fontManager.ttflist)
    forget()
    yield
    font_manager.fontManager.ttflist[:] = known
    forget()


@pytest.fixture
def installed(tmp_path, forgetful):
    """A font with one Chinese letter, a triangle, under the name of a usual one."""
    pens = {name: TTGlyphPen(None) for name in (".notdef", "cat")}
    for name, corners in (
        (".notdef", [(0, 0), (0, 9), (9, 9)]),
        ("cat", [(0, 0), (0, 99), (99, 0)]),
    ):
        pens[name].moveTo(corners[0])
        for corner in corners[1:]:
            pens[name].lineTo(corner)
        pens[name].closePath()
    font = FontBuilder(100)
    font.setupGlyphOrder(list(pens))
    font.setupCharacterMap({ord(CAT): "cat"})
    font.setupGlyf({name: pen.glyph() for name, pen in pens.items()})
    font.setupHorizontalMetrics(dict.fromkeys(pens, (100, 0)))
    font.setupHorizontalHeader(ascent=100, descent=0)
    font.setupNameTable({"familyName": "Usual CJK", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    file = tmp_path / f"{fonts.USUAL[0]}.ttf"
    font.save(file)
    font_manager.fontManager.addfont(file)
    return file


def test_a_name_is_written_in_a_font_that_has_its_letters(installed):
    assert fonts.font_for(CAT, 22).getname()[0] == "Usual CJK"
    assert fonts.font_for("cat, кот, γάτα", 22).getname()[0] == fonts.DEJAVU
    assert fonts.readable([CAT, DOG, "dog"]) == [CAT, "class 1", "dog"]
    assert f"the letters of {DOG}: " in fonts.note([CAT, DOG, "dog"])
    matrix = np.asarray(sheets.confusion_matrix("val", np.eye(2, dtype=int), [CAT, "dog"]))
    # the triangle fills half of the letter, at the left of the first row
    assert (matrix[:, :30] < 100).all(-1).sum() > 150
    with figure_style():
        families = font_manager.FontProperties().get_family()
    assert families == [fonts.DEJAVU, "Usual CJK"]


def test_what_no_font_has_is_numbered_and_said_in_a_sentence(forgetful, monkeypatch):
    monkeypatch.setattr(fonts, "USUAL", ())
    assert fonts.others() == ()
    assert fonts.families() == [fonts.DEJAVU]
    names = ["dog", CAT, DOG, "한국", "ไทย"]
    assert fonts.readable(names) == ["dog", "class 1", "class 2", "class 3", "class 4"]
    assert fonts.note(names).startswith(
        "no font of this system has the letters of 猫, 犬, 한국, ...: "
    )
    assert fonts.note(["dog", "собака", "كلب"]) is None
