"""Draws results/speed.json for the documentation, as the last step of make bench."""

import argparse
import json
import statistics
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
OURS, OTHERS = COLORS[0], "0.7"


def main() -> None:
    """Write docs/speed.png: each way to train each network, beside the best loop by hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/speed.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/speed.png")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        draw(results).savefig(arguments.out, dpi=150)


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
                f"{ratio:.2f}", (ratio, place), (3, 0), textcoords="offset points", va="center"
            )
        axis.axvline(1, color="black", linewidth=1, linestyle="--")
        axis.set_yticks(
            range(len(ratios)), [name.replace("convscape", "Convscape") for _, name in ratios]
        )
        axis.set_title(TITLES.get(network, network), loc="left", fontweight="bold")
    panels[-1, 0].set_xlabel(
        "training speed, as a multiple of the best hand-written PyTorch loop beside it (dashed)\n"
        f"{results['cores']} cores of {results['cpu']}"
    )
    return figure


def ratio_of(processes: list[dict[str, list[float]]]) -> float:
    """Of images/s, each epoch to that of the loop after it: the median."""
    pairs = [zip(each["variant"], each["loop"], strict=True) for each in processes]
    return statistics.median(ours / loop for pair in pairs for ours, loop in pair)


if __name__ == "__main__":
    main()
