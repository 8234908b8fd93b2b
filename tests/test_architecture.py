"""The rooms of the package: each imports only those below it, and none is a circle."""

import ast
import importlib.util
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
architecture = importlib.util.module_from_spec(spec)
spec.loader.exec_module(architecture)

IMPORTS = architecture.read_imports()
FLOOR = {room: floor for floor, rooms in enumerate(architecture.FLOORS) for room in rooms}
MAX_LINES_OF_FILE = 450
MAX_LINES_OF_FUNCTION = 60
SPELLED_OUT = {"sklearn": "__init__"}  # scikit-learn reads the parameters from the signature


def test_every_file_is_in_a_room():
    assert {architecture.room_of(module) for module in IMPORTS} == set(FLOOR)


def test_each_room_imports_only_those_below_it():
    upward = {
        f"{module} -> {target}"
        for module, targets in IMPORTS.items()
        for target in targets
        if (one := architecture.room_of(module)) != (other := architecture.room_of(target))
        and FLOOR[one] >= FLOOR[other]
    }
    assert not upward


def test_no_file_imports_one_that_imports_it():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_a_circle_and_an_import_upwards_would_be_found(tmp_path):
    package = tmp_path / "convscape"
    for room, text in (("base", "from convscape.data import cache"), ("data", "")):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").write_text(text)
    (package / "data" / "cache.py").write_text(
        "def load():\n    from convscape.base import errors\n"
    )
    imports = architecture.read_imports(package)
    assert imports["base"] == {"data.cache"}
    assert imports["data.cache"] == {"base"}
    with pytest.raises(CycleError):
        TopologicalSorter(imports).prepare()


@pytest.mark.parametrize(
    "path", sorted(architecture.PACKAGE.rglob("*.py")), ids=lambda path: path.stem
)
def test_files_and_functions_fit_their_length(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_LINES_OF_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name != SPELLED_OUT.get(path.stem):
            assert node.end_lineno - node.lineno < MAX_LINES_OF_FUNCTION, node.name


def test_the_drawing_is_that_of_the_code():
    drawn = architecture.draw(IMPORTS)
    assert architecture.PICTURE.read_text("utf-8") == drawn, "run: python docs/architecture.py"


@pytest.mark.parametrize("room", [room for room in FLOOR if (architecture.PACKAGE / room).is_dir()])
def test_each_room_says_what_lives_there_and_where_to_begin(room):
    opening = ast.get_docstring(
        ast.parse((architecture.PACKAGE / room / "__init__.py").read_text("utf-8"))
    )
    assert opening is not None
    assert opening.count(".") >= 3
    assert "Begin" in opening
