"""Plots of runs: curves, accuracy against the angle, audits, and all cells side by side."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator

from experiments.reporting import tables
from experiments.reporting.style import BLUE, GREY, INK, ORANGE, label_ends, line_of, save
from experiments.settings import REPORT_MODELS

_FEW_EPOCHS = 8  # below, each epoch is a point


def plot_curves(path: Path, results: dict) -> None:
    """Writes curves.png: training loss and validation accuracy, seeds as thin lines, their mean bold."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = np.arange(1, results["epochs"] + 1)
    marker = "." if len(epochs) < _FEW_EPOCHS else None
    for axis, name, label in zip(
        axes, ("train_loss", "validation_curve"), ("training loss", "validation accuracy"), strict=True
    ):
        values = np.array(results[name], dtype=float)
        for seed, row in zip(results["seeds"], values, strict=True):
            failed = seed in results["failed_seeds"]
            axis.plot(epochs, row, color=ORANGE if failed else BLUE, linewidth=0.7, alpha=0.7, marker=marker)
        good = tables.good(results)
        if any(good):
            axis.plot(epochs, values[good].mean(0), color=INK, linewidth=2, marker=marker)
        axis.set(xlabel="epoch", ylabel=label)
    words = "thin: seeds, grey: mean" + ", orange: failed" * bool(results["failed_seeds"])
    figure.suptitle(f"{results['model']}, setting {results['setting']}, {results['dataset']} ({words})")
    save(figure, path)


def plot_angles(path: Path, title: str, angle, accuracy, *, mean, digest: str | None = None) -> None:
    """Writes angles.png: test accuracy `[seed, angle]` of images all rotated by one angle; the mean is bold."""
    figure, axis = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    accuracy = np.asarray(accuracy)
    for row in accuracy:
        axis.plot(angle, row, color=BLUE, linewidth=0.7, alpha=0.7)
    axis.plot(angle, mean, color=INK, linewidth=2)
    axis.set(xlabel="angle of all test images (degrees)", ylabel="test accuracy", ylim=(0, 1))
    axis.set_title(title, fontsize=9)
    axis.set_xticks(range(-180, 181, 45))
    save(figure, path, digest)


def plot_angle_lines(path: Path, lines: dict[tuple, tuple[np.ndarray, np.ndarray]], cells: Iterable[dict] = ()) -> None:
    """Writes accuracy against the angle, the seeds' mean: a panel for each data set and setting, axes shared.

    `lines`: {(data set, setting, label): (angles, accuracy `[seed, angle]`)}.
    """
    panels = list(dict.fromkeys(key[:2] for key in lines))
    columns = min(2, len(panels))
    shape = (-(-len(panels) // columns), columns)
    figure, axes = pyplot.subplots(
        *shape, figsize=(5.6 * shape[1], 3 * shape[0]), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (dataset, setting) in zip(axes.flat, panels, strict=False):
        drawn = []
        for (*panel, label), (angles, accuracy) in lines.items():
            if tuple(panel) == (dataset, setting):
                drawn += axis.plot(angles, accuracy.mean(0), label=label, **line_of(label))
        axis.set(title=f"{dataset}, setting {setting}", ylim=(0, 1), xticks=range(-180, 181, 90))
        label_ends(axis, drawn, gap=0.08)
    for axis in axes.flat[max(len(panels) - columns, 0) : len(panels)]:  # the lowest of each column
        axis.tick_params(labelbottom=True)
    figure.supxlabel("angle of all test images (degrees)", fontsize=10)
    figure.supylabel("test accuracy", fontsize=10)
    save(figure, path, digests(cells))


def plot_audit(path: Path, title: str, report, digest: str | None = None) -> None:
    """Writes an `Audit`: errors of the network up to each stage; stages that break quarter turns are marked."""
    stages = report.stages
    figure, axis = pyplot.subplots(figsize=(max(6, 0.45 * len(stages) + 2.5), 4), layout="constrained")
    at, floor = np.arange(len(stages)), 1e-8  # exact zeros stand at the bottom
    values = {"quarter turn": [stage.error for stage in stages]}
    for angle in stages[0].free_errors:
        values[f"{angle:g} degrees, in a disk"] = [stage.free_errors[angle] for stage in stages]
    values["depends on the image"] = [stage.signal for stage in stages]
    lines = []
    for (label, row), style in zip(values.items(), ("o-", "s--", "^--", ":"), strict=False):
        row = np.maximum(np.array(row, dtype=float), floor)
        lines += axis.plot(at, row, style, label=label, markersize=4)
    axis.set(yscale="log", ylabel="relative error (dotted: change with the image)", title=title, ylim=(floor / 2, 4))
    axis.set_xticks(at, [stage.name for stage in stages], rotation=60, ha="right", fontsize=8)
    for i, stage in enumerate(stages):
        if stage.reason:
            axis.axvline(i, color=GREY, alpha=0.3, linewidth=6)
            axis.get_xticklabels()[i].set(fontweight="bold")
    label_ends(axis, lines)
    save(figure, path, digest)


def digests(cells: Iterable[dict]) -> str:
    """Of the `best/` of some results.json, where they are known, separated by spaces."""
    return " ".join(sorted({cell["best_digest"] for cell in cells if "best_digest" in cell}))


def plot_cell_curves(path: Path, cells: list[dict]) -> None:
    """Writes the report's figure 3: loss and validation accuracy of the cells of one data set, axes shared.

    Loss blue, accuracy orange; seeds as thin lines, the mean of those that did not fail bold. Above each panel stands
    the test accuracy, and the report's where the cell was trained by the report's protocol. Cells of one epoch have no
    curve and are left out; where there is no other cell, they are drawn as points.
    """
    chosen = [cell for cell in cells if cell["epochs"] > 1] or cells
    losses = [np.array(cell["train_loss"], dtype=float) for cell in chosen]
    highest = max((float(np.nanmax(loss)) for loss in losses if np.isfinite(loss).any()), default=0.0)

    def panel(axis, cell, first, last):
        _cell_curves(axis, cell, first, last, 1.05 * highest or 1.0)

    words = "training loss (left, blue) and validation accuracy (right, orange); seeds thin, mean bold"
    _plot_cells(path, chosen, panel, words)


def plot_confusion(path: Path, cells: list[dict]) -> None:
    """Writes the confusion matrices of the cells of one data set: per cent of each class, predicted as each class."""
    _plot_cells(path, cells, _cell_confusion, "per cent of each class (rows), predicted as each class (columns)")


def _plot_cells(path, cells, panel, words):
    """A row for each setting, a column for each network; `panel`: (axis, cell, first in its row, last in its row)."""
    found = {(cell["setting"], tables.label(cell)): cell for cell in cells}
    names = {name for _, name in found}
    columns = [name for model in REPORT_MODELS for name in (model, *_variants(model, names)) if name in names]
    others = Counter(name for _, name in found if name not in columns)
    columns += sorted(others, key=lambda name: (-others[name], name))  # those with most cells first
    settings = sorted({setting for setting, _ in found})
    shape = (len(settings), len(columns))
    size = (max(2.6 * shape[1], 6.5), 2.5 * shape[0] + 0.5)
    figure, axes = pyplot.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for row, setting in zip(axes, settings, strict=True):
        present = [name for name in columns if (setting, name) in found]
        for axis, name in zip(row, columns, strict=True):
            if name not in present:
                axis.set_axis_off()
                continue
            axis.set_title(f"{name}, setting {setting}{_accuracy(found[setting, name])}", fontsize=8)
            axis.tick_params(labelsize=7)
            panel(axis, found[setting, name], name == present[0], name == present[-1])
    figure.suptitle(f"{cells[0]['dataset']}: {words}", fontsize=9)
    save(figure, path, digests(cells))


def _accuracy(cell):
    (row,) = tables.table_rows([cell])
    if row["mean"] is None:
        return ""
    has_report = row["report"] is not None and not tables.of_protocol(cell)
    return f"\ntest {row['mean']:.3f}" + (f", report {row['report']:.3f}" if has_report else "")


def _variants(model, names):
    return sorted(name for name in names if name.startswith(f"{model} ("))


def _cell_curves(axis, cell, first, last, highest):
    epochs, marker = np.arange(1, cell["epochs"] + 1), "." if cell["epochs"] < _FEW_EPOCHS else None
    right = axis.twinx()
    good = tables.good(cell)
    for side, name, color in ((axis, "train_loss", BLUE), (right, "validation_curve", ORANGE)):
        values = np.array(cell[name], dtype=float)  # null, a loss that is not a number, becomes NaN
        side.plot(epochs, values.T, color=color, linewidth=0.5, alpha=0.6, marker=marker)
        if any(good):
            side.plot(epochs, values[good].mean(0), color=color, linewidth=1.8)
        side.tick_params(labelsize=7, colors=color, axis="y")
    axis.tick_params(labelleft=first)
    right.tick_params(labelright=last)
    right.spines["right"].set_visible(True)
    right.grid(False)
    axis.set(ylim=(0, highest))
    right.set_ylim(0, 1)
    axis.set_xlabel(f"epoch ({tables.num_steps(cell):,} steps)", fontsize=7)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _cell_confusion(axis, cell, *_):
    counts = tables.of_good(cell, np.array(cell["confusion"], dtype=float)).sum(0)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for i, j in np.argwhere(share >= 2):
        axis.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=5,
                  color="white" if share[i, j] > 50 else "black")  # fmt: skip
    axis.set(xticks=range(len(share)), yticks=range(len(share)))
    axis.grid(False)
