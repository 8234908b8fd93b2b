"""The drawing of a planned network, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.files import make_folder, write_atomic
from convscape.drawing.network import as_svg, as_tikz

if TYPE_CHECKING:
    from convscape.sweeps.grid import SweepPlan

WRITERS = {".svg": as_svg, ".tex": as_tikz}


def write_figure(plan: SweepPlan, file: Path) -> None:
    """Write the network of a plan as SVG or TikZ, depending on the file's name.

    Raises:
        ConfigError: if the plan has several networks or one without known layers, or the file's
            name has another ending.
        CannotWrite: if it cannot be written.
    """
    if file.suffix not in WRITERS:
        raise ConfigError(f"--figure {file}: allowed: a file that ends in {' or '.join(WRITERS)}")
    if len(plan.runs) > 1:
        raise ConfigError(
            f"--figure {file}: it shows one network, and these are {len(plan.runs)}; "
            "give each key one value"
        )
    if (planned := plan.runs[0].plan) is None:
        raise ConfigError(f"--figure {file}: only its class knows the layers of this network")
    try:
        make_folder(file.parent, within=file.parent)
        write_atomic(file, WRITERS[file.suffix](planned), within=file.parent)
    except OSError as error:
        raise CannotWrite(file, error, "--figure <file>") from None
