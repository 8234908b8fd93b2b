"""Puts the results into docs/speed.md, as the last step of make bench: a picture and tables."""

import argparse
import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from convscape.reports.figures import COLORS

ROOT = Path(__file__).parents[1]
TITLES = {
    "cnn": "CNN, 34,826 parameters",
    "mlp": "MLP 784-512-512-10",
    "small_mlp": "MLP 784-64-10",
}
# the only one that is not compared with the loop in the precision that Convscape would choose
IN_FP32 = {"convscape, fp32": "Convscape and the loop in fp32"}
OURS, OTHERS = COLORS[0], "0.7"


def main() -> None:
    """Write docs/speed.png, and between the marks in docs/speed.md the tables of all results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    files = [arguments.results / f"{name}.json" for name in ("speed", "sweeps", "startup")]
    if missing := [file for file in files if not file.is_file()]:
        parser.error(f"{missing[0]} is missing; run benchmarks/{missing[0].stem}.py first")
    speed, sweeps, startup = (json.loads(file.read_text("utf-8")) for file in files)
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        draw(speed).savefig(arguments.docs / "speed.png", dpi=150)
    places = {
        "machine": f"{speed['cores']} cores of {speed['cpu']}, torch {speed['torch']}, "
        f"batches of {speed['batch_size']} images",
        "speed": speed_table(speed["images_per_second"]),
        "sweeps": sweeps_table(sweeps),
        "startup": startup_table(startup),
    }
    page = arguments.docs / "speed.md"
    text = page.read_text("utf-8")
    for name, content in places.items():
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- -->)",
            lambda found, content=content: f"{found[1]}{content}\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
        assert count == 1, f"{page} has no place for {name}"
    page.write_text(text, "utf-8")


def speed_table(networks: dict[str, dict[str, list]]) -> str:
    """Images/s of each way to train each network, and the ratio to the loop by hand beside it."""
    # speed.py --variants may have left ours out
    measured = (each.get("convscape") or next(iter(each.values())) for each in networks.values())
    loops = [speed_of(processes, "loop") for processes in measured]
    rows = [["the best hand-written loop", *(f"{speed:,.0f} (1.00)" for speed in loops)]]
    for name in dict.fromkeys(name for variants in networks.values() for name in variants):
        rows.append([title(name)])
        for variants in networks.values():
            processes = variants.get(name)
            rows[-1].append(
                f"{speed_of(processes):,.0f} ({ratio_of(processes):.2f})" if processes else ""
            )
    return table(["", *(TITLES.get(network, network) for network in networks)], rows)


def sweeps_table(rates: dict[str, list[float]]) -> str:
    """Runs per minute of each way to sweep, and the ratio to the first."""
    first = statistics.median(next(iter(rates.values())))
    middles = {name: statistics.median(values) for name, values in rates.items()}
    return table(
        ["", "runs per minute"],
        ([name, f"{value:.1f} ({value / first:.2f})"] for name, value in middles.items()),
    )


def startup_table(seconds: dict[str, list[float]]) -> str:
    """How long each command takes."""
    return table(
        ["", "seconds, median (range)"],
        (
            [f"`{name}`", f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"]
            for name, each in seconds.items()
        ),
    )


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def title(variant: str) -> str:
    """The name of a variant for readers."""
    return IN_FP32.get(variant, variant.replace("convscape", "Convscape"))


def draw(results: dict) -> Figure:
    """A panel for each network, with a bar for each way: the fastest on top."""
    networks = results["images_per_second"]
    figure = Figure(
        figsize=(8, 0.8 + 0.24 * sum(map(len, networks.values()))), layout="constrained"
    )
    heights = [len(variants) + 1 for variants in networks.values()]
    panels = figure.subplots(len(networks), 1, sharex=True, height_ratios=heights, squeeze=False)
    for axis, (network, variants) in zip(panels[:, 0], networks.items(), strict=True):
        ratios = sorted((ratio_of(processes), name) for name, processes in variants.items())
        for place, (ratio, name) in enumerate(ratios):
            axis.barh(place, ratio, color=OURS if name.startswith("convscape") else OTHERS)
            axis.annotate(
                f"{ratio:.2f}",
                (ratio, place),
                (3, 0),
                textcoords="offset points",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        axis.axvline(1, color="black", linewidth=1, linestyle="--", zorder=2)
        axis.set_yticks(range(len(ratios)), [title(name) for _, name in ratios])
        axis.set_title(TITLES.get(network, network), loc="left", fontweight="bold")
    panels[-1, 0].set_xlabel(
        "training speed, as a multiple of the best hand-written PyTorch loop beside it (dashed)\n"
        f"{results['cores']} cores of {results['cpu']}"
    )
    return figure


def speed_of(processes: list[dict[str, list[float]]], whose: str = "variant") -> float:
    """Images/s: the median of all epochs of the variant, or of the loop beside it."""
    return statistics.median(speed for each in processes for speed in each[whose])


def ratio_of(processes: list[dict[str, list[float]]]) -> float:
    """Of images/s, each epoch to that of the loop after it: the median."""
    pairs = [zip(each["variant"], each["loop"], strict=True) for each in processes]
    return statistics.median(ours / loop for pair in pairs for ours, loop in pair)


if __name__ == "__main__":
    main()
