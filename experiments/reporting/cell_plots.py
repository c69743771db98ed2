"""Plots with one panel a cell: settings as rows, networks as columns; what was not run is shown as such."""

from pathlib import Path

import numpy as np

from experiments.reporting import tables
from experiments.reporting.plots import pyplot, save
from experiments.settings import REPORT_MODELS, SETTINGS


def plot_curves(path: Path, cells: list[dict]) -> None:
    """Writes the report's figure 3: loss and validation accuracy of the cells of one data set.

    Loss blue, accuracy orange; seeds as thin lines, the mean of those that did not fail bold.
    """
    _plot(path, cells, _plot_curves)


def plot_confusion(path: Path, cells: list[dict]) -> None:
    """Writes the confusion matrices of the cells of one data set: per cent of each class, predicted as each class."""
    _plot(path, cells, _plot_confusion)


def _plot(path, cells, panel):
    found = {(cell["setting"], tables.label(cell)): cell for cell in cells}
    extra = sorted({name for _, name in found} - set(REPORT_MODELS))
    columns = [name for model in REPORT_MODELS for name in (model, *_variants(model, extra))]
    columns += [name for name in extra if name not in columns]
    shape = (len(SETTINGS), len(columns))
    size = (2.9 * shape[1], 2.5 * shape[0])
    figure, axes = pyplot.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for row, setting in zip(axes, SETTINGS, strict=True):
        for axis, name in zip(row, columns, strict=True):
            axis.set_title(f"{name}, setting {setting}", fontsize=8)
            axis.tick_params(labelsize=7)
            if (setting, name) in found:
                panel(axis, found[setting, name])
            else:
                axis.text(0.5, 0.5, "not run", ha="center", va="center", color="gray", transform=axis.transAxes)
                axis.set(xticks=[], yticks=[])
    figure.suptitle(cells[0]["dataset"], fontsize=10)
    save(figure, path)


def _variants(model, names):
    return [name for name in names if name.startswith(f"{model} (")]


def _plot_curves(axis, cell):
    epochs, marker = np.arange(1, cell["epochs"] + 1), "." if cell["epochs"] < 8 else None
    right = axis.twinx()
    good = [seed not in cell["failed_seeds"] for seed in cell["seeds"]]
    for side, name, color in ((axis, "train_loss", "tab:blue"), (right, "validation_curve", "tab:orange")):
        values = np.array(cell[name], dtype=float)  # null, a loss that is no number, becomes NaN
        side.plot(epochs, values.T, color=color, linewidth=0.5, alpha=0.6, marker=marker)
        if any(good):
            side.plot(epochs, values[good].mean(0), color=color, linewidth=1.6)
        side.tick_params(labelsize=7, colors=color, axis="y")
    right.set_ylim(0, 1)
    steps = tables.num_steps(cell)
    axis.set_xlabel(f"epoch ({steps:,} steps)", fontsize=7)


def _plot_confusion(axis, cell):
    counts = np.array(cell["confusion"], dtype=float)
    good = [seed not in cell["failed_seeds"] for seed in cell["seeds"]]
    counts = (counts[good] if any(good) else counts).sum(0)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for i, j in np.argwhere(share >= 2):
        axis.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=5,
                  color="white" if share[i, j] > 50 else "black")  # fmt: skip
    axis.set(xticks=range(len(share)), yticks=range(len(share)))
