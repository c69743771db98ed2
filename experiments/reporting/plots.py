"""Plots: of one run, of all cells side by side, of what equivariance looks like."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot

from experiments.reporting import tables
from experiments.runs.folder import replaced
from experiments.settings import REPORT_MODELS, SETTINGS

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


def plot_angles(path: Path, title: str, angle, accuracy, digest: str | None = None) -> None:
    """Writes angles.png: test accuracy `[seed, angle]` of images that are all rotated by one angle."""
    figure, axis = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    accuracy = np.asarray(accuracy)
    for row in accuracy:
        axis.plot(angle, row, color="tab:blue", linewidth=0.7, alpha=0.6)
    axis.plot(angle, accuracy.mean(0), color="black", linewidth=1.8)
    axis.set(xlabel="angle (degrees)", ylabel="test accuracy", ylim=(0, 1))
    axis.set_title(title, fontsize=9)
    axis.set_xticks(range(-180, 181, 45))
    axis.grid(alpha=0.3)
    save(figure, path, digest)


def plot_angle_lines(path: Path, lines: dict[str, tuple[np.ndarray, np.ndarray]], cells: Iterable[dict] = ()) -> None:
    """Writes accuracy against the angle, the seeds' mean, for each {title: (angles, accuracy `[seed, angle]`)}."""
    figure, axis = pyplot.subplots(figsize=(9, 4), layout="constrained")
    # Runs that share a training share a line: wide below narrow.
    for index, (title, (angles, accuracy)) in enumerate(lines.items()):
        axis.plot(angles, accuracy.mean(0), label=title, color=pyplot.colormaps["tab20"](index % 20),
                  linewidth=4 - 3 * index / len(lines), linestyle="-" if "fconv" in title else "--")  # fmt: skip
    axis.set(xlabel="angle of all test digits (degrees)", ylabel="test accuracy", ylim=(0, 1))
    axis.set_xticks(range(-180, 181, 45))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path, digests(cells))


def plot_audit(path: Path, title: str, report, digest: str | None = None) -> None:
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
    save(figure, path, digest)


def digests(cells: Iterable[dict]) -> str:
    """Of the `best/` of some results.json, where they are known, separated by spaces."""
    return " ".join(dict.fromkeys(cell["best_digest"] for cell in cells if "best_digest" in cell))


def save(figure, path: Path, digest: str | None = None) -> None:
    """Writes a figure as PNG in one piece and closes it; `digest`: of the `best/` that it was made from."""
    metadata = {"Software": None} | ({"best_digest": digest} if digest else {})
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", metadata=metadata)
    pyplot.close(figure)


def plot_cell_curves(path: Path, cells: list[dict]) -> None:
    """Writes the report's figure 3: loss and validation accuracy of the cells of one data set.

    Loss blue, accuracy orange; seeds as thin lines, the mean of those that did not fail bold.
    """
    _plot_cells(path, cells, _cell_curves)


def plot_confusion(path: Path, cells: list[dict]) -> None:
    """Writes the confusion matrices of the cells of one data set: per cent of each class, predicted as each class."""
    _plot_cells(path, cells, _cell_confusion)


def _plot_cells(path, cells, panel):
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
    save(figure, path, digests(cells))


def _variants(model, names):
    return [name for name in names if name.startswith(f"{model} (")]


def _cell_curves(axis, cell):
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


def _cell_confusion(axis, cell):
    counts = np.array(cell["confusion"], dtype=float)
    good = [seed not in cell["failed_seeds"] for seed in cell["seeds"]]
    counts = (counts[good] if any(good) else counts).sum(0)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for i, j in np.argwhere(share >= 2):
        axis.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=5,
                  color="white" if share[i, j] > 50 else "black")  # fmt: skip
    axis.set(xticks=range(len(share)), yticks=range(len(share)))


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
            if r == 0:
                axis.set_title(f"{360 * o / num_rotations:g}°", fontsize=8)
        axes[r, 0].set_ylabel(f"{r + 1}", fontsize=8, rotation=0, labelpad=8)
    figure.suptitle(title, fontsize=9)
    save(figure, path)


def plot_features(path: Path, rows: dict[str, list[tuple[str, np.ndarray]]]) -> None:
    """Writes rows of two images and maps, {row title: [(title, values), ...]}; a row's maps share one scale."""
    width = max(map(len, rows.values()))
    figure, axes = pyplot.subplots(len(rows), width, figsize=(1.7 * width, 2 * len(rows)), layout="constrained")
    for line, (name, maps) in zip(axes, rows.items(), strict=True):
        limit = max(np.abs(values).max() for _, values in maps[2:])
        for column, (axis, (title, values)) in enumerate(zip(line, maps, strict=False)):
            axis.imshow(values, **({"cmap": "gray"} if column < 2 else {"cmap": "RdBu", "vmin": -limit, "vmax": limit}))
            axis.set_title(title, fontsize=8)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=9)
    save(figure, path)


def plot_mesh(path: Path, meshes, errors: dict[str, list[float]]) -> None:
    """Writes errors against the mesh, with slopes of orders 2 and 4."""
    figure, axis = pyplot.subplots(figsize=(6, 4), layout="constrained")
    labels = {
        "smooth": "filter that fades smoothly",
        "kink": "filter that fades with a kink",
        "cut": "the layers' own mask",
    }
    for name, values in errors.items():
        axis.loglog(meshes, values, marker="o", label=labels[name])
    for order, name, style in ((2, "kink", ":"), (4, "smooth", "--")):
        slope = errors[name][0] * (np.array(meshes) / meshes[0]) ** -float(order)
        axis.loglog(meshes, slope, style, color="gray", label=f"order {order}")
    axis.set(xlabel="pixels along a side", ylabel="relative equivariance error at 45°", xticks=meshes)
    axis.set_xticks(meshes, [str(n) for n in meshes])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save(figure, path)


def plot_choices(path: Path, panels: dict[str, tuple[tuple[int, ...], dict[str, list[float]]]]) -> None:
    """Writes a panel for each {label: (values, {line: errors})}."""
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.5), sharey=True, layout="constrained")
    for axis, (label, (values, lines)) in zip(axes, panels.items(), strict=True):
        for name, errors in lines.items():
            axis.plot(values, errors, marker="o", label=name)
        axis.set(xlabel=label, xticks=values)
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="relative error at free angles", ylim=(0, None))
    axes[-1].legend(fontsize=8)
    save(figure, path)


def plot_upright(path: Path, lines: dict[str, tuple[np.ndarray, np.ndarray]], cells: Iterable[dict] = ()) -> None:
    """Writes accuracy against the angle of networks trained upright, {name: (angles, accuracy `[seed, angle]`)}."""
    figure, axis = pyplot.subplots(figsize=(8, 3.8), layout="constrained")
    for name, (angles, accuracy) in lines.items():
        invariant = "invariant" in name
        mean, low, high = accuracy.mean(0), accuracy.min(0), accuracy.max(0)
        (line,) = axis.plot(angles, mean, label=name, linewidth=2.6 if invariant else 1.3,
                            linestyle="-" if "fconv" in name else "--")  # fmt: skip
        axis.fill_between(angles, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set(xlabel="angle by which all test digits are rotated (degrees)", ylabel="test accuracy", ylim=(0, 1))
    axis.set_title("trained on upright digits only (mean of the seeds; bands: lowest to highest)", fontsize=10)
    axis.set_xticks(range(-180, 181, 45))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path, digests(cells))


def plot_six_nine(path: Path, confusions: dict[str, np.ndarray], cells: Iterable[dict] = ()) -> None:
    """Writes what becomes of sixes and nines, {name: counts `[class, predicted]`}, a panel for each class."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 0.45 * len(confusions) + 1.6), sharey=True, layout="constrained")
    names = list(confusions)[::-1]
    for axis, (digit, other) in zip(axes, ((6, 9), (9, 6)), strict=True):
        rows = np.array([confusions[name][digit] / max(confusions[name][digit].sum(), 1) for name in names])
        taken, rest = rows[:, other], 1 - rows[:, digit] - rows[:, other]
        axis.barh(names, taken, color="tab:red", label=f"taken for a {other}")
        axis.barh(names, rest, left=taken, color="tab:gray", alpha=0.5, label="taken for another digit")
        axis.set(title=f"a {digit} that is not read as {digit}", xlabel="share of the test digits", xlim=(0, None))
        axis.grid(alpha=0.3, axis="x")
        axis.legend(fontsize=8)
    save(figure, path, digests(cells))
