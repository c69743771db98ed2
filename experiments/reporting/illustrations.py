"""Plots of what equivariance looks like, and of what it changes for digits."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib import pyplot

from experiments.reporting.plots import digests
from experiments.reporting.style import GREY, ORANGE, label_ends, line_of, save


def plot_basis(path: Path, values: np.ndarray, title: str, rows: int = 6) -> None:
    """Writes the first functions of a basis `[k, k, t, r]`, a row each, rotated by 2 pi o / t from left to right."""
    num_rotations = values.shape[2]
    rows = min(rows, values.shape[3])
    figure, axes = pyplot.subplots(rows, num_rotations, figsize=(num_rotations, rows + 0.5), layout="constrained")
    for r in range(rows):
        limit = np.abs(values[..., r]).max()
        for o in range(num_rotations):
            axis = axes[r, o]
            axis.imshow(values[:, :, o, r], cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if r == 0:
                axis.set_title(f"{360 * o / num_rotations:g}°")
        axes[r, 0].set_ylabel(f"{r + 1}", rotation=0, labelpad=8)
    figure.suptitle(title)
    save(figure, path)


def plot_features(path: Path, rows: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    """Writes rows of two images and maps, {row title: [(title, values), ...]}; a row's maps share one scale."""
    width = max(map(len, rows.values()))
    figure, axes = pyplot.subplots(len(rows), width, figsize=(1.8 * width, 1.9 * len(rows)), layout="constrained")
    for index, (line, (name, maps)) in enumerate(zip(axes, rows.items(), strict=True)):
        limit = max(np.abs(values).max() for _, values in maps[2:])
        for column, (axis, (title, values)) in enumerate(zip(line, maps, strict=False)):
            grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
            axis.imshow(values, **(grey if column < 2 else {"cmap": "RdBu", "vmin": -limit, "vmax": limit}))
            axis.set(xticks=[], yticks=[], title=title if index == 0 else "")
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(name)
    save(figure, path)


def plot_mesh(path: Path, meshes, errors: dict[str, list[float]]) -> None:
    """Writes errors against the mesh, with slopes of orders 2 and 4."""
    figure, axis = pyplot.subplots(figsize=(7, 3.8), layout="constrained")
    labels = {
        "smooth": "fades smoothly",
        "kink": "fades with a kink",
        "cut": "the reference's mask",
    }
    lines = []
    for name, values in errors.items():
        lines += axis.loglog(meshes, values, marker="o", label=labels[name])
    for order, name, style in ((2, "kink", ":"), (4, "smooth", "--")):
        slope = errors[name][0] * (np.array(meshes) / meshes[0]) ** -float(order)
        lines += axis.loglog(meshes, slope, style, color=GREY, label=f"order {order}", zorder=1)
    axis.set(xlabel="pixels along a side", ylabel="relative equivariance error at 45°", xticks=meshes)
    axis.set_xticks(meshes, [str(n) for n in meshes])
    axis.minorticks_off()
    label_ends(axis, lines)
    save(figure, path)


def plot_choices(path: Path, panels: dict[str, tuple[tuple[int, ...], dict[str, list[float]]]]) -> None:
    """Writes a panel for each {label: (values, {line: errors})}."""
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.5 * len(panels) + 1, 3.5), sharey=True, layout="constrained"
    )
    lines = []
    for axis, (label, (values, named)) in zip(axes, panels.items(), strict=True):
        lines = [axis.plot(values, errors, marker="o", label=name)[0] for name, errors in named.items()]
        axis.set(xlabel=label, xticks=values)
    axes[0].set(ylabel="relative error between the group's angles", ylim=(0, None))
    label_ends(axes[-1], lines)
    save(figure, path)


def plot_upright(path: Path, lines: dict[str, tuple[np.ndarray, np.ndarray]], cells: Iterable[dict] = ()) -> None:
    """Writes accuracy against the angle of networks trained upright, {name: (angles, accuracy `[seed, angle]`)}."""
    figure, axis = pyplot.subplots(figsize=(8, 3.8), layout="constrained")
    drawn = []
    for name, (angles, accuracy) in lines.items():
        mean, low, high = accuracy.mean(0), accuracy.min(0), accuracy.max(0)
        (line,) = axis.plot(angles, mean, label=name, **line_of(name))
        axis.fill_between(angles, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        drawn.append(line)
    axis.set(xlabel="angle by which all test digits are rotated (degrees)", ylabel="test accuracy", ylim=(0, 1))
    axis.set_title("Trained on upright digits only: mean of the seeds (bands: lowest to highest)")
    axis.set(xticks=range(-180, 181, 45), xlim=(-180, 180))
    label_ends(axis, drawn)
    save(figure, path, digests(cells))


def plot_six_nine(path: Path, confusions: dict[str, np.ndarray], cells: Iterable[dict] = ()) -> None:
    """Writes what becomes of sixes and nines, {name: counts `[class, predicted]`}, a panel for each class."""
    figure, axes = pyplot.subplots(
        1, 2, figsize=(9, 0.4 * len(confusions) + 1.4), sharex=True, sharey=True, layout="constrained"
    )
    names = list(confusions)[::-1]
    for axis, (digit, other) in zip(axes, ((6, 9), (9, 6)), strict=True):
        rows = np.array([confusions[name][digit] / max(confusions[name][digit].sum(), 1) for name in names])
        taken, rest = rows[:, other], 1 - rows[:, digit] - rows[:, other]
        axis.barh(names, taken, color=ORANGE, label=f"read as {other}")
        axis.barh(names, rest, left=taken, color=GREY, alpha=0.6, label="read as another digit")
        axis.set(title=f"Errors on the digit {digit}", xlabel="share of this digit's test images")
        axis.grid(False, axis="y")
        axis.legend(loc="lower right")
    axes[0].set_xlim(0, None)
    save(figure, path, digests(cells))


def plot_ladder(path: Path, panels: dict[str, dict]) -> None:
    """Writes test accuracy on each rung, a panel for each ladder, a line for each setting.

    `panels`: {ladder: {setting: (plain network's accuracy or None, {rung: accuracies of the seeds})}}. Lines: means;
    small points: seeds; dashed: the plain network.
    """
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.8 * len(panels) + 1, 4), sharey=True, layout="constrained", squeeze=False
    )
    lines = []
    for axis, (name, settings) in zip(axes[0], panels.items(), strict=True):
        lines, rungs = [], []
        for setting, (plain, rows) in settings.items():
            rungs, width = list(rows), 2.6 if setting == 3 else 1.3
            at, means = range(len(rungs)), [np.mean(values) for values in rows.values()]
            lines += axis.plot(at, means, marker="o", linewidth=width, label=f"setting {setting}")
            color = lines[-1].get_color()
            for i, values in enumerate(rows.values()):
                axis.plot([i] * len(values), values, ".", color=color, markersize=3, alpha=0.7)
            if plain is not None:
                axis.axhline(plain, color=color, linestyle="--", linewidth=0.9)
        axis.set_xticks(range(len(rungs)), rungs, rotation=30, ha="right", fontsize=9)
        axis.set(title=name, ylim=(0, 1))
    axes[0][0].set_ylabel("test accuracy (dashed: plain network)")
    label_ends(axes[0][-1], lines)
    save(figure, path)
