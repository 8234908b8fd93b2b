"""Draws the package's rooms from its imports: python docs/architecture.py writes architecture.svg.

A room is a sub-package, or one of the doors at the top. It imports only rooms on the floors below
it; tests/test_architecture.py holds that.
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "convscape"
PICTURE = Path(__file__).with_name("architecture.svg")

# from the top floor down; rooms on one floor do not import each other
FLOORS = (
    ("__main__",),
    ("completion",),
    ("api", "cli", "sklearn"),
    ("board",),
    ("claims", "doctor", "living"),
    ("trained", "sweeps"),
    ("training", "reports"),
    ("models", "runs"),
    ("config", "drawing"),
    ("data",),
    ("geometry",),
    ("base",),
)


def read_imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """For each module of the package, as "room.file", the modules that it imports.

    Imports inside functions and those only for type checkers count like any others.
    """
    files = {_module(path, package): path for path in sorted(package.rglob("*.py"))}
    return {
        module: {
            target
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package.name)
            for target in _targets(node, files)
        }
        - {module, ""}
        for module, path in files.items()
        if module
    }


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(node: ast.ImportFrom, files: dict[str, Path]) -> set[str]:
    origin = str(node.module).partition(".")[2]
    names = {f"{origin}.{alias.name}".lstrip(".") for alias in node.names}
    return {name if name in files else origin for name in names}


def room_of(module: str) -> str:
    """The sub-package of a module, or the module itself at the top."""
    return module.partition(".")[0]


def draw(imports: dict[str, set[str]]) -> str:
    """The floors as an SVG picture: a box for each room with its files and what it imports."""
    width, height, gap = 980, 74, 10
    boxes = []
    for floor, rooms in enumerate(FLOORS):
        room_width = (width - gap * (len(rooms) + 1)) / len(rooms)
        for place, room in enumerate(rooms):
            x, y = gap + place * (room_width + gap), gap + floor * (height + gap)
            files = sorted(m.partition(".")[2] for m in imports if room_of(m) == room and "." in m)
            below = {room_of(t) for m, ts in imports.items() if room_of(m) == room for t in ts}
            below = {name for name in below - {room} if any(name in names for names in FLOORS)}
            order = [name for names in FLOORS for name in names if name in below]
            lines = [" ".join(files), f"imports {', '.join(order) or 'nothing of ours'}"]
            boxes.append(_box(x, y, room_width, height, room if files else f"{room}.py", lines))
    total = gap + len(FLOORS) * (height + gap)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{total}" fill="#ffffff"/>\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


def _box(x: float, y: float, width: float, height: float, title: str, lines: list[str]) -> str:
    characters = int(width / 6.3)
    words = [part for line in lines for part in _wrapped(line, characters)]
    texts = [
        f'<text x="{x + 10:g}" y="{y + 34 + 14 * number:g}" fill="#444">{escape(part)}</text>'
        for number, part in enumerate(words)
    ]
    return "\n".join(
        [
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            'fill="#f3f6fa" stroke="#7f93ab"/>',
            f'<text x="{x + 10:g}" y="{y + 18:g}" font-weight="bold" fill="#1d3557">'
            f"{escape(title)}</text>",
            *texts,
        ]
    )


def _wrapped(line: str, characters: int) -> list[str]:
    lines = [""]
    for word in line.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > characters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [text for text in lines if text]


if __name__ == "__main__":
    PICTURE.write_text(draw(read_imports()), "utf-8")
