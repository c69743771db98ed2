"""How every figure looks: colours that the colour-blind tell apart, labels beside their lines, no background."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.runs.folder import replaced
from experiments.settings import MODELS, REPORT_MODELS

matplotlib.use("Agg")  # files only: no screen is needed

INK = "#767676"
"""Text and axes. Figures are transparent: this grey has a contrast of 4 or more on white and on a dark page."""
BLUE, ORANGE, GREEN, PURPLE, GREY = "#1f83c4", "#d55e00", "#159a74", "#b56aa0", "#8f8f8f"
"""Okabe and Ito's colours, of a lightness between the two pages'."""
COLORS = (BLUE, ORANGE, GREEN, PURPLE, GREY)

pyplot.rcParams.update({
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "axes.titlecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": INK, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLORS), "lines.linewidth": 1.6, "lines.markersize": 5,
    "font.size": 10, "axes.titlesize": 10, "figure.titlesize": 11, "legend.fontsize": 9, "legend.frameon": False,
    "image.interpolation": "nearest",
})  # fmt: skip


def line_of(label: str) -> dict:
    """How a network's line is drawn: plain networks dashed, F-Conv solid in the same colour, invariant ones wide.

    `label`: as `tables.label` gives it, a model's name and its initial weights if they are not the report's.
    """
    name, *other_init = label.split(" ")
    spec = MODELS.get(name)
    if spec and spec.page:
        beside = [other for other, found in MODELS.items() if found.page == spec.page]
        return {"color": (ORANGE, PURPLE)[beside.index(name) % 2], "linewidth": 2.6}
    families = [other for other in REPORT_MODELS if MODELS[other].plain is None]
    family = spec.plain or name if spec else name
    color = (BLUE, GREEN)[families.index(family) % 2] if family in families else GREY
    style = ":" if other_init else "-" if spec and spec.plain else "--"
    return {"color": color, "linestyle": style, "linewidth": 1.5}


def label_ends(axis: Axes, lines: Sequence[Line2D], gap: float = 0.065) -> None:
    """Writes the labels of lines at their right ends, in their colours.

    Call it when the limits of the axis are set. Labels stand at least `gap` of the axis' height apart, and as near
    as that allows to where the lines end (least squares).
    """
    to_height = axis.transData + axis.transAxes.inverted()
    ends = []
    for line in lines:
        y = np.asarray(line.get_ydata(), dtype=float)
        shown = np.flatnonzero(np.isfinite(y))
        if len(shown):
            x = 0.0 if axis.get_xscale() == "linear" else 1.0  # any value will do: only the height matters
            ends.append((float(np.asarray(to_height.transform(np.array([x, y[shown[-1]]])))[1]), line))
    ends.sort(key=lambda end: end[0])
    heights = _spread([height for height, _ in ends], gap)
    for height, (_, line) in zip(heights, ends, strict=True):
        axis.annotate(
            str(line.get_label()), (1, height), xycoords="axes fraction", xytext=(5, 0), textcoords="offset points",
            color=line.get_color(), va="center", fontsize=9, annotation_clip=False,
        )  # fmt: skip


def _spread(heights, gap):
    """The nearest ascending numbers that are at least `gap` apart: isotonic regression by pooling neighbours."""
    pools: list[tuple[float, int]] = []
    for i, height in enumerate(heights):
        mean, count = height - i * gap, 1
        while pools and pools[-1][0] > mean:
            other, number = pools.pop()
            mean, count = (mean * count + other * number) / (count + number), count + number
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [mean + i * gap for i, mean in enumerate(flat)]


def save(figure: Figure, path: Path, digest: str | None = None) -> None:
    """Writes a figure as PNG in one piece and closes it; `digest`: of the `best/` that it was made from."""
    metadata = {"Software": None} | ({"best_digest": digest} if digest else {})
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png", metadata=metadata)
    pyplot.close(figure)
