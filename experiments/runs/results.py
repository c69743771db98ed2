"""What a run leaves behind in numbers: results.json, curves.csv and the table at its end."""

import math
import os
import platform
import statistics
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
from rich.table import Table

from experiments.runs.folder import write_csv
from experiments.settings import FAILED_BELOW, RunConfig

OF_CONFIG = (
    "model", "setting", "dataset", "seeds", "epochs", "batch_size", "learning_rate", "schedule", "weight_decay",
    "label_smoothing", "l2", "augmentation", "init", "precision", "data_seed",
)  # fmt: skip
"""Fields of the configuration that results.json repeats."""

FAILED_RULE = f"best validation accuracy under {FAILED_BELOW}, or loss not a number"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def summarize(config: RunConfig, curves: dict, best_epoch, test_confusion, *, num_validation: int, **measured) -> dict:
    """Returns the contents of results.json (fields: the design's; `confusion` is `[seed][class][predicted]`).

    `curves`: `train_loss` and `validation_correct`, `[seed][epoch]`; `best_epoch`: `[seed]`, from 1; `test_confusion`:
    int `[seed, class, predicted]` of the best epoch on the test split; `num_validation`: validation images;
    `measured`: `num_parameters`, speeds, `command`, `device`, ...
    """
    confusion = np.asarray(test_confusion)
    validation = [[correct / num_validation for correct in row] for row in curves["validation_correct"]]
    return {
        **{name: config.to_json()[name] for name in OF_CONFIG},
        **derived(config.seeds, confusion, curves["train_loss"], validation),
        "best_epoch": [int(epoch) for epoch in best_epoch],
        "confusion": confusion.tolist(),
        "train_loss": curves["train_loss"],
        "validation_curve": validation,
        **measured,
        "versions": versions(),
    }


def derived(seeds, confusion, train_loss, validation) -> dict:
    """What follows, in results.json, from the counts `[seed, class, predicted]` and the curves `[seed][epoch]`."""
    right = np.trace(confusion, axis1=1, axis2=2)
    test_accuracy = [int(r) / int(n) for r, n in zip(right, confusion.sum((1, 2)), strict=True)]
    best_validation = [max(row) for row in validation]
    failed = [
        seed
        for seed, accuracy, losses in zip(seeds, best_validation, train_loss, strict=True)
        if accuracy < FAILED_BELOW or not all(loss is not None and math.isfinite(loss) for loss in losses)
    ]
    good = [a for seed, a in zip(seeds, test_accuracy, strict=True) if seed not in failed]
    per_class = np.diagonal(confusion, axis1=1, axis2=2) / np.maximum(confusion.sum(2), 1)
    return {
        "test_accuracy": test_accuracy,
        "mean": statistics.fmean(good) if good else None,
        "std": statistics.stdev(good) if len(good) > 1 else None,
        "failed_seeds": failed,
        "mean_all": statistics.fmean(test_accuracy),
        "best_epoch": [1 + row.index(most) for row, most in zip(validation, best_validation, strict=True)],
        "validation_accuracy": best_validation,
        "per_class_accuracy": per_class.tolist(),
    }


def versions() -> dict:
    """Versions of Python and of the packages that decide numbers."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def with_last(before: list[str], now: str) -> list[str]:
    """Commits, commands or devices that trained a run, and the one that trains it now; each once.

    A command that differs from an earlier one in `--resume` only is that one.
    """

    def plain(text):
        return text.replace(" --resume", "")

    return before if plain(now) in map(plain, before) else [*before, now]


def commit() -> str:
    """The repository's commit; "and changes" if a Python file differs or is new; empty if this is no checkout."""
    git = ["git", "--no-optional-locks", "-C", str(Path(__file__).parents[2])]
    # A hook of another repository sets GIT_DIR.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    words = (["rev-parse", "--show-prefix", "--short", "HEAD"], ["status", "--porcelain", "--", "*.py"])
    try:
        found, changed = (
            subprocess.run([*git, *each], capture_output=True, text=True, env=outside, check=True).stdout
            for each in words
        )
    except (OSError, subprocess.CalledProcessError):  # no git here, or no repository
        return ""
    prefix, short = found.split("\n")[:2]
    # Not of somebody else's repository, in which this is a folder.
    return "" if prefix else f"{short}{' and changes' if changed else ''}"


def write_curves(path: Path, results: dict) -> None:
    """Writes curves.csv: one row for each seed and epoch (from 1)."""
    curves = zip(results["seeds"], results["train_loss"], results["validation_curve"], strict=True)
    rows = [
        [seed, epoch, f"{math.nan if loss is None else loss:.6g}", f"{accuracy:.6g}"]
        for seed, losses, accuracies in curves
        for epoch, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1)
    ]
    write_csv(path, ["seed", "epoch", "train_loss", "validation_accuracy"], rows)


def write_angles(path: Path, evaluation: dict) -> None:
    """Writes angles.csv from an evaluation.json: one row for each seed and angle, with the digest of the run."""
    rows = [
        [seed, angle, value]
        for seed, row in zip(evaluation["seeds"], evaluation["angles"]["accuracy"], strict=True)
        for angle, value in zip(evaluation["angles"]["angle"], row, strict=True)
    ]
    _write_accuracies(path, ["seed", "angle"], rows, evaluation)


def write_uniform(path: Path, evaluation: dict) -> None:
    """Writes uniform.csv from an evaluation.json: one row for each seed, interpolation and set of angles."""
    found = evaluation["uniform"]
    rows = [
        [seed, interpolation, angle_seed, value]
        for interpolation, of_angles in found["accuracy"].items()
        for angle_seed, row in zip(found["angle_seeds"], of_angles, strict=True)
        for seed, value in zip(evaluation["seeds"], row, strict=True)
    ]
    _write_accuracies(path, ["seed", "interpolation", "angle_seed"], rows, evaluation)


def _write_accuracies(path, head, rows, evaluation):
    """A table whose last column is the accuracy, and whose it is: the data set and the digest of the run."""
    whose = [evaluation["dataset"], evaluation["best_digest"]]
    rows = [[*row[:-1], f"{row[-1]:.6g}", *whose] for row in rows]
    write_csv(path, [*head, "accuracy", "dataset", "best_digest"], rows)


def print_tables(console, results: dict) -> None:
    """Prints the final table: a row for each seed, the means, and the accuracy of each class."""
    title = f"{results['model']}, setting {results['setting']}, {results['dataset']}: test accuracy"
    table = Table(title=title)
    for column in ("seed", "best epoch", "validation", "test", ""):
        table.add_column(column, justify="right")
    columns = ("seeds", "best_epoch", "validation_accuracy", "test_accuracy")
    for seed, epoch, validation, test in zip(*(results[name] for name in columns), strict=True):
        note = "failed" if seed in results["failed_seeds"] else ""
        table.add_row(str(seed), str(epoch), f"{validation:.4f}", f"{test:.4f}", note)
    table.add_section()
    table.add_row("mean", "", "", number(results["mean"]), "without failed" if results["failed_seeds"] else "")
    table.add_row("std", "", "", number(results["std"]), "")
    table.add_row("mean_all", "", "", number(results["mean_all"]), "")
    console.print(table)
    console.print(_class_table(results))
    if results["failed_seeds"]:
        names = ", ".join(map(str, results["failed_seeds"]))
        console.print(f"failed seeds ({FAILED_RULE}): {names}")


def _class_table(results):
    good = [row for s, row in zip(results["seeds"], results["per_class_accuracy"], strict=True)
            if s not in results["failed_seeds"]]  # fmt: skip
    means = np.mean(good or results["per_class_accuracy"], axis=0)
    table = Table(title="accuracy of each class" + (", seeds that did not fail" if good else ""), padding=0)
    for digit in range(len(means)):
        table.add_column(str(digit), justify="right")
    table.add_row(*(f"{value:.3f}" for value in means))
    return table


def number(value: float | None) -> str:
    """An accuracy in a table; a dash for none."""
    return "-" if value is None else f"{value:.4f}"
