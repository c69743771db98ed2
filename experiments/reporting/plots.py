"""Plots of a run: its curves, accuracy against the angle, its audit."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot

from experiments.runs.files import replaced
from experiments.runs.results import read_angles

matplotlib.use("Agg")  # files only: no screen is needed


def plot_curves(path: Path, results: dict) -> None:
    """Writes curves.png: training loss and validation accuracy, seeds as thin lines, their mean bold."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
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
    save(figure, path)


def plot_angles(path: Path, title: str, angles, accuracy) -> None:
    """Writes angles.png: test accuracy `[seed, angle]` of images that are all rotated by one angle."""
    figure, axis = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    accuracy = np.asarray(accuracy)
    for row in accuracy:
        axis.plot(angles, row, color="tab:blue", linewidth=0.7, alpha=0.6)
    axis.plot(angles, accuracy.mean(0), color="black", linewidth=1.8)
    axis.set(xlabel="angle (degrees)", ylabel="test accuracy", ylim=(0, 1), title=title)
    axis.set_xticks(range(-180, 181, 45))
    axis.grid(alpha=0.3)
    save(figure, path)


def plot_angle_files(path: Path, files: dict[str, Path]) -> None:
    """Writes accuracy against the angle, the mean of the seeds, for each {title: angles.csv}."""
    figure, axis = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for index, (title, file) in enumerate(files.items()):  # runs that share a training share a line: wide below narrow
        angles, accuracy = read_angles(file)
        axis.plot(angles, accuracy.mean(0), label=title, color=pyplot.colormaps["tab20"](index % 20),
                  linewidth=4 - 3 * index / len(files), linestyle="-" if "fconv" in title else "--")  # fmt: skip
    axis.set(xlabel="angle of all test digits (degrees)", ylabel="test accuracy", ylim=(0, 1))
    axis.set_xticks(range(-180, 181, 45))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def plot_audit(path: Path, title: str, report) -> None:
    """Writes an `Audit`: errors of the network up to each stage; stages that break quarter turns are marked red."""
    stages = report.stages
    figure, axis = pyplot.subplots(figsize=(max(6, 0.45 * len(stages) + 2), 4), layout="constrained")
    at, floor = np.arange(len(stages)), 1e-8  # exact zeros stand at the bottom
    lines = {"quarter turn": [stage.error for stage in stages]}
    for angle in stages[0].free_errors:
        lines[f"{angle:g} degrees, in a disk"] = [stage.free_errors[angle] for stage in stages]
    lines["part that depends on the image"] = [stage.signal for stage in stages]
    for (label, values), style in zip(lines.items(), ("o-", "s--", "^--", ":"), strict=False):
        axis.plot(at, np.maximum(values, floor), style, label=label, markersize=4)
    for i, stage in enumerate(stages):
        if stage.reason:
            axis.axvline(i, color="tab:red", alpha=0.3, linewidth=6)
    axis.set(yscale="log", ylabel="relative", title=title, ylim=(floor / 2, 4))
    axis.set_xticks(at, [stage.name for stage in stages], rotation=60, ha="right", fontsize=8)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    save(figure, path)


def save(figure, path: Path) -> None:
    """Writes a figure as PNG in one piece and closes it."""
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})
    pyplot.close(figure)
