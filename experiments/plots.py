"""Pictures of a run: its curves, and accuracy against the angle."""

import os
from pathlib import Path

import numpy as np


def plot_curves(path: Path, results: dict) -> None:
    """Writes curves.png: training loss and validation accuracy, seeds as thin lines, their mean bold."""
    figure, axes = _pyplot().subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = np.arange(1, results["epochs"] + 1)
    for axis, name, label in zip(
        axes, ("train_loss", "validation_curve"), ("training loss", "validation accuracy"), strict=True
    ):
        values = np.array(results[name], dtype=float)
        for seed, row in zip(results["seeds"], values, strict=True):
            failed = seed in results["failed_seeds"]
            axis.plot(epochs, row, color="tab:red" if failed else "tab:blue", linewidth=0.7, alpha=0.6)
        good = [seed not in results["failed_seeds"] for seed in results["seeds"]]
        if any(good):
            axis.plot(epochs, values[good].mean(0), color="black", linewidth=1.8, label="mean")
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(alpha=0.3)
    figure.suptitle(f"{results['model']}, setting {results['setting']}, {results['dataset']}, {len(epochs)} epochs")
    _save(figure, path)


def plot_angles(path: Path, title: str, angles, accuracy) -> None:
    """Writes angles.png: test accuracy `[seed, angle]` of images that are all turned by one angle."""
    figure, axis = _pyplot().subplots(figsize=(6, 3.5), layout="constrained")
    accuracy = np.asarray(accuracy)
    for row in accuracy:
        axis.plot(angles, row, color="tab:blue", linewidth=0.7, alpha=0.6)
    axis.plot(angles, accuracy.mean(0), color="black", linewidth=1.8)
    axis.set(xlabel="angle (degrees)", ylabel="test accuracy", ylim=(0, 1), title=title)
    axis.set_xticks(range(-180, 181, 45))
    axis.grid(alpha=0.3)
    _save(figure, path)


def plot_cells(path: Path, cells: list[dict]) -> None:
    """Writes the report's figure 3: loss and validation accuracy of each cell, settings as rows, models as columns."""
    settings = sorted({cell["setting"] for cell in cells})
    models = sorted({(cell["dataset"], cell["model"]) for cell in cells})
    size = (3.2 * len(models), 2.4 * len(settings))
    figure, axes = _pyplot().subplots(len(settings), len(models), figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for cell in cells:
        axis = axes[settings.index(cell["setting"]), models.index((cell["dataset"], cell["model"]))]
        axis.set_axis_on()
        _plot_cell(axis, cell)
    _save(figure, path)


def _plot_cell(axis, cell):
    epochs = np.arange(1, cell["epochs"] + 1)
    right = axis.twinx()
    good = [seed not in cell["failed_seeds"] for seed in cell["seeds"]]
    for side, name, color in ((axis, "train_loss", "tab:blue"), (right, "validation_curve", "tab:orange")):
        values = np.array(cell[name], dtype=float)
        side.plot(epochs, values.T, color=color, linewidth=0.5, alpha=0.6)
        if any(good):
            side.plot(epochs, values[good].mean(0), color=color, linewidth=1.6)
        side.tick_params(labelsize=7, colors=color, axis="y")
    right.set_ylim(0, 1)
    axis.tick_params(labelsize=7, axis="x")
    title = f"{cell['model']}, setting {cell['setting']}\n{cell['dataset']}: loss (blue), validation (orange)"
    axis.set_title(title, fontsize=7)


def plot_angle_files(path: Path, files: dict[str, Path]) -> None:
    """Writes accuracy against the angle, the mean of the seeds, for each {title: angles.csv}."""
    figure, axis = _pyplot().subplots(figsize=(8, 4), layout="constrained")
    for title, file in files.items():
        table = np.genfromtxt(file, delimiter=",", names=True)
        angles = np.unique(table["angle"])
        axis.plot(angles, [table["accuracy"][table["angle"] == a].mean() for a in angles], marker=".", label=title)
    axis.set(xlabel="angle of all test digits (degrees)", ylabel="test accuracy", ylim=(0, 1))
    axis.set_xticks(range(-180, 181, 45))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)


def _save(figure, path):
    temporary = path.with_name(f".{path.name}.part")
    figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})
    os.replace(temporary, path)
    _pyplot().close(figure)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    from matplotlib import pyplot

    return pyplot
