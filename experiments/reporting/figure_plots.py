"""Plots of what equivariance looks like: bases, features, errors, and accuracy of networks trained upright."""

from pathlib import Path

import numpy as np

from experiments.reporting.plots import pyplot, save


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


def plot_upright(path: Path, lines: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
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
    save(figure, path)


def plot_six_nine(path: Path, confusions: dict[str, np.ndarray]) -> None:
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
    save(figure, path)
