"""What a run leaves behind in numbers: results.json, curves.csv and the table at its end."""

import csv
import json
import math
import os
import platform
import statistics
from importlib import metadata
from pathlib import Path

import numpy as np

from experiments.arguments import InputError
from experiments.settings import FAILED_BELOW, RunConfig

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def summarize(config: RunConfig, curves: dict, best_epoch, test_confusion, *, num_validation: int, **measured) -> dict:
    """Returns the contents of results.json (fields: the design's; `confusion` is `[seed][class][predicted]`).

    Args:
      curves: `train_loss` and `validation_correct`, `[seed][epoch]`.
      best_epoch: `[seed]`, from 1.
      test_confusion: int `[seed, class, predicted]` of the best epoch on the test split.
      num_validation: validation images.
      measured: `num_parameters`, speeds, `command`, `device`, ...
    """
    confusion = np.asarray(test_confusion)
    right = np.trace(confusion, axis1=1, axis2=2)
    test_accuracy = [int(r) / int(n) for r, n in zip(right, confusion.sum((1, 2)), strict=True)]
    validation = [[correct / num_validation for correct in row] for row in curves["validation_correct"]]
    best_validation = [max(row) for row in validation]
    failed = [
        seed
        for seed, accuracy, losses in zip(config.seeds, best_validation, curves["train_loss"], strict=True)
        if accuracy < FAILED_BELOW or not all(map(math.isfinite, losses))
    ]
    good = [a for seed, a in zip(config.seeds, test_accuracy, strict=True) if seed not in failed]
    per_class = np.diagonal(confusion, axis1=1, axis2=2) / np.maximum(confusion.sum(2), 1)
    return {
        **{name: getattr(config, name) for name in ("model", "setting", "dataset")},
        "seeds": list(config.seeds),
        **{name: getattr(config, name) for name in ("epochs", "batch_size", "learning_rate", "schedule")},
        **{name: getattr(config, name) for name in ("weight_decay", "label_smoothing", "init", "precision")},
        "data_seed": config.data_seed,
        "test_accuracy": test_accuracy,
        "mean": statistics.fmean(good) if good else None,
        "std": statistics.stdev(good) if len(good) > 1 else None,
        "failed_seeds": failed,
        "mean_all": statistics.fmean(test_accuracy),
        "best_epoch": [int(epoch) for epoch in best_epoch],
        "validation_accuracy": best_validation,
        "per_class_accuracy": per_class.tolist(),
        "confusion": confusion.tolist(),
        "train_loss": curves["train_loss"],
        "validation_curve": validation,
        **measured,
        "versions": versions(),
    }


def versions() -> dict:
    """Versions of Python and of the packages that decide numbers."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def device_name() -> str:
    """The devices that jax computes on, in words."""
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind if devices[0].platform != "cpu" else f"{cpu_name()} CPU, {os.cpu_count()} cores"
    return kind if len(devices) == 1 else f"{kind} ({len(devices)} devices)"


def write_json(path: Path, contents: dict) -> None:
    """Writes strict JSON (NaN and infinities become null) in one piece: the file is whole or unchanged."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(_strict(contents), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def write_curves(path: Path, results: dict) -> None:
    """Writes curves.csv: one row a seed and epoch (from 1)."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "epoch", "train_loss", "validation_accuracy"])
        for seed, losses, accuracies in zip(
            results["seeds"], results["train_loss"], results["validation_curve"], strict=True
        ):
            for epoch, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), 1):
                writer.writerow([seed, epoch, f"{loss:.6g}", f"{accuracy:.6g}"])
    os.replace(temporary, path)


def read_angles(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the angles and the accuracy `[seed, angle]` of an angles.csv, as `experiments.evaluate` writes it.

    Raises:
      InputError: a file that is not one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(float(row["angle"]), float(row["accuracy"])) for row in csv.DictReader(file)]
        angles = np.unique([angle for angle, _ in rows])
        accuracy = np.stack([[value for other, value in rows if other == angle] for angle in angles], axis=1)
        if not (np.isfinite(angles).all() and ((accuracy >= 0) & (accuracy <= 1)).all()):
            raise ValueError("angles must be finite and accuracies from 0 to 1")
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is not a table of angles ({type(error).__name__}: {error})") from error
    return angles, accuracy


def print_tables(console, results: dict) -> None:
    """Prints the final table: a row for each seed, the means, and the accuracy of each class."""
    from rich.table import Table

    title = f"{results['model']}, setting {results['setting']}, {results['dataset']}: test accuracy"
    table = Table(title=title)
    for column in ("seed", "best epoch", "validation", "test", ""):
        table.add_column(column, justify="right")
    rows = zip(
        results["seeds"],
        results["best_epoch"],
        results["validation_accuracy"],
        results["test_accuracy"],
        strict=True,
    )
    for seed, epoch, validation, test in rows:
        note = "failed" if seed in results["failed_seeds"] else ""
        table.add_row(str(seed), str(epoch), f"{validation:.4f}", f"{test:.4f}", note)
    table.add_section()
    table.add_row("mean", "", "", _number(results["mean"]), "without failed" if results["failed_seeds"] else "")
    table.add_row("std", "", "", _number(results["std"]), "")
    table.add_row("mean_all", "", "", _number(results["mean_all"]), "")
    console.print(table)
    console.print(_class_table(results))
    if results["failed_seeds"]:
        names = ", ".join(map(str, results["failed_seeds"]))
        console.print(f"failed seeds (best validation accuracy under {FAILED_BELOW}, or loss not a number): {names}")


def _class_table(results):
    from rich.table import Table

    good = [row for s, row in zip(results["seeds"], results["per_class_accuracy"], strict=True)
            if s not in results["failed_seeds"]]  # fmt: skip
    means = np.mean(good or results["per_class_accuracy"], axis=0)
    table = Table(title="accuracy of each class" + (", seeds that did not fail" if good else ""), padding=0)
    for digit in range(len(means)):
        table.add_column(str(digit), justify="right")
    table.add_row(*(f"{value:.3f}" for value in means))
    return table


def _number(value):
    return "-" if value is None else f"{value:.4f}"


def _strict(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    return value


def cpu_name() -> str:
    """The processor, in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
