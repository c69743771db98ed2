"""Restores a run's best epochs from its folder alone and tests them."""

import argparse
import csv
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from experiments import backends, folders, training
from experiments.arguments import InputError
from experiments.checkpoints import CheckpointError, check_basis, restore, restore_record
from experiments.data import Split, load, resolve_dataset
from experiments.plots import plot_angles
from experiments.results import device_name, versions, write_json
from experiments.rotated_mnist import rotate_images
from experiments.settings import COPIES_PER_IMAGE, RunConfig
from experiments.trainer import Trainer

ANGLES = tuple(range(-180, 181, 15))


class Evaluator:
    """A run's network with the best parameters of all its seeds.

    Raises:
      CheckpointError: no finished run in the folder, or a checkpoint that cannot be used.
    """

    def __init__(self, run_dir: Path):
        best = run_dir / folders.BEST
        if not best.is_dir():
            raise CheckpointError(f"{run_dir} holds no finished run ({folders.BEST}/ is missing): --resume finishes it")
        try:
            # Not yet checked against the digest: whatever it makes of a network may fail.
            rows = self._prepare(restore_record(best))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            what = " ".join(str(error).split())[:120]
            raise CheckpointError(
                f"{best}: the checkpoint's record is not a run's ({what}); use another copy"
            ) from error
        arrays, record = restore(best, {"params": rows["params"], "stats": rows["stats"]})
        check_basis(best, record["basis"], training.abstract_model(self.network))
        self.arrays, self.best_epoch = self.trainer.pad(arrays), record["best_epoch"]

    def _prepare(self, record):
        """Makes the network and its programs; returns the shapes of its arrays."""
        self.config = RunConfig(**{**record["config"], "seeds": tuple(record["config"]["seeds"])})
        config = self.config
        self.network = training.build(
            config.model, init=config.init, precision=config.precision, num_classes=record["num_classes"]
        )
        plan = backends.plan(
            config.model,
            len(config.seeds),
            config.batch_size,
            seed_map=config.seed_map,
            has_stats=self.network.has_stats,
        )
        self.trainer = Trainer(self.network, plan, config.seeds, (), batch_size=1, learning_rate=1.0)
        return self.trainer.abstract_rows()

    def model(self, row: int):
        """The network of one seed (`row` of `config.seeds`) as a module, in evaluation mode."""
        rows = self.trainer.rows(self.arrays)
        params, stats = (jax.tree.map(lambda x: jnp.asarray(x[row]), rows[name]) for name in ("params", "stats"))
        model = nnx.merge(self.network.graphdef, params, stats, copy=True)
        return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)

    def confusion(self, split: Split) -> np.ndarray:
        """Counts `[seed, class, predicted]` over a split."""
        return self.trainer.confusion(self.arrays["params"], self.arrays["stats"], self.trainer.place(split))

    def accuracy_by_angle(self, split: Split, angles=ANGLES) -> np.ndarray:
        """Accuracy `[seed, angle]` on the split's upright images, all turned by one angle after another.

        Turned as in the rotated data sets: cubic spline, zero outside, rounded to uint8.
        """
        # Every original is followed by its copies, some of which are turned by 0 degrees too.
        stride = 1 + COPIES_PER_IMAGE if split.angles.any() else 1
        upright = split.images[::stride]
        labels = split.labels[::stride]
        columns = []
        for angle in angles:
            counts = self.confusion(Split(turned(upright, angle), labels, np.full_like(labels, angle)))
            columns.append(np.trace(counts, axis1=1, axis2=2) / len(labels))
        return np.stack(columns, axis=1)


def turned(images: np.ndarray, angle: float) -> np.ndarray:
    """Turns uint8 images `[n, 28, 28, 1]` as those of the rotated data sets are: cubic spline, clipped, rounded."""
    found = rotate_images(images[..., 0].astype(np.float32) / 255, angle)
    return np.round(np.clip(found, 0, 1) * 255).astype(np.uint8)[..., None]


def run(options: argparse.Namespace, command: str) -> None:
    """Evaluates as the options of `experiments.evaluate` say."""
    console = Console(soft_wrap=True)
    if not options.run_dir.is_dir():
        raise InputError(f"{options.run_dir} is not a folder: name the folder of a finished run")
    output = options.output or options.run_dir
    evaluator = Evaluator(options.run_dir)
    config = evaluator.config
    setting = options.setting or config.setting
    data_seed = config.data_seed if options.data_seed is None else options.data_seed
    dataset, line = resolve_dataset(
        options.dataset or config.dataset, options.data_dir, settings=[setting], data_seed=data_seed
    )
    if line:
        console.print(line)
    test = load(
        dataset,
        setting,
        data_seed=data_seed,
        data_dir=options.data_dir,
        splits=("test",),
        progress=console.print,
    )["test"]
    confusion = evaluator.confusion(test)
    accuracy = (np.trace(confusion, axis1=1, axis2=2) / confusion.sum((1, 2))).tolist()
    contents = {
        "model": config.model,
        "trained_on": {"dataset": config.dataset, "setting": config.setting, "data_seed": config.data_seed},
        "dataset": dataset,
        "setting": setting,
        "data_seed": data_seed,
        "seeds": list(config.seeds),
        "best_epoch": evaluator.best_epoch,
        "test_accuracy": accuracy,
        "mean_all": float(np.mean(accuracy)),
        "per_class_accuracy": (np.diagonal(confusion, axis1=1, axis2=2) / np.maximum(confusion.sum(2), 1)).tolist(),
        "confusion": confusion.tolist(),
        "command": command,
        "versions": versions(),
        "device": device_name(),
    }
    _print(console, contents)
    by_angle = evaluator.accuracy_by_angle(test) if options.angles else None
    if by_angle is not None:
        contents["angles"] = {"angle": list(ANGLES), "accuracy": by_angle.tolist()}
        _print_angles(console, by_angle)
    _write(output, contents, by_angle, console)


def _write(output, contents, by_angle, console):
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "evaluation.json", contents)
        if by_angle is not None:
            _write_angles(output / "angles.csv", contents["seeds"], by_angle)
            title = (
                f"{contents['model']}, trained in setting {contents['trained_on']['setting']}, {contents['dataset']}"
            )
            plot_angles(output / "angles.png", title, ANGLES, by_angle)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}): choose another --output") from error
    console.print(f"saved in {output}/: evaluation.json" + (", angles.csv, angles.png" if by_angle is not None else ""))


def _write_angles(path, seeds, by_angle):
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seed", "angle", "accuracy"])
        writer.writerows(
            [seed, angle, f"{value:.6g}"]
            for seed, row in zip(seeds, by_angle.tolist(), strict=True)
            for angle, value in zip(ANGLES, row, strict=True)
        )
    os.replace(temporary, path)


def _print(console, contents):
    table = Table(title=f"{contents['model']}, tested on {contents['dataset']}, setting {contents['setting']}")
    for column in ("seed", "best epoch", "test"):
        table.add_column(column, justify="right")
    for row in zip(contents["seeds"], contents["best_epoch"], contents["test_accuracy"], strict=True):
        table.add_row(str(row[0]), str(row[1]), f"{row[2]:.4f}")
    table.add_section()
    table.add_row("mean_all", "", f"{contents['mean_all']:.4f}")
    console.print(table)


def _print_angles(console, by_angle):
    table = Table(title="accuracy against the angle (mean of the seeds)")
    table.add_column("angle", justify="right")
    table.add_column("accuracy", justify="right")
    for angle, value in zip(ANGLES, by_angle.mean(0), strict=True):
        table.add_row(str(angle), f"{value:.4f}")
    console.print(table)
