"""The arithmetic of the living page in a real browser, against torch."""

import json

import pytest

from convscape.living.document import document
from convscape.living.page import html
from convscape.trained.load import load_run

from .conftest import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run."""
    from tests.dying import train_apart

    path = tmp_path_factory.mktemp("living")
    assert train_apart([*TINY, "visual=off"], path) == "ok"
    return load_run(path)


def test_a_run_answers_in_the_page_as_in_torch(run, browser, tmp_path):
    values = json.loads(json.dumps(document(run)))
    (tmp_path / "page.html").write_text(html(values))
    page = browser.new_page(offline=True)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    places = values["images"]["places"]
    images, _ = run.data.tensors("test")
    logits = page.evaluate(
        "all => all.map(pixels => convscape.predict(Uint8Array.from(pixels)))",
        images[places].flatten(1).tolist(),
    )
    expected = run.logits(images[places])
    for found, wanted in zip(logits, expected.tolist(), strict=True):
        assert found == pytest.approx(wanted, abs=1e-5 * float(expected.abs().max()))
    assert page.evaluate("convscape.classes") == run.classes
    assert not complaints
