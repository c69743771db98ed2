"""Tests of a run's best epochs, on its own setting and data or on others, one angle after another; and its audit."""

import dataclasses
import functools
from argparse import Namespace

import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

import fconv_jax
from experiments import data
from experiments.reporting.plots import plot_angles, plot_audit
from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs.best import ANGLES, Evaluator
from experiments.runs.folder import write_json
from experiments.runs.progress import counted
from experiments.runs.results import versions, write_angles
from experiments.runs.train import resolve
from experiments.training.devices import device_name


def evaluate(options: Namespace, command: str) -> None:
    """Evaluates as the options of `experiments.evaluate` say.

    Raises:
      InputError: no such run, or a folder that cannot be written.
    """
    console = Console(soft_wrap=True, markup=False, emoji=False)
    if not options.run_dir.is_dir():
        raise InputError(f"{options.run_dir} is not a folder: name the folder of a finished run")
    evaluator = Evaluator(options.run_dir)
    config = evaluator.config
    setting = options.setting or config.setting
    options.data_seed = config.data_seed if options.data_seed is None else options.data_seed
    dataset = resolve(console, options, options.dataset or config.dataset, [setting])
    where = {"data_seed": options.data_seed, "data_dir": options.data_dir}
    test = data.load(dataset, setting, **where, splits=("test",), progress=console.print)["test"]
    contents = _contents(evaluator, evaluator.confusion(test)) | {
        "dataset": dataset, "setting": setting, "data_seed": options.data_seed, "command": command,
    }  # fmt: skip
    title = f"{config.model}, tested on {dataset}, setting {setting}"
    rows = zip(contents["seeds"], contents["best_epoch"], contents["test_accuracy"], strict=True)
    _print(console, title, ("seed", "best epoch", "test"), rows, ("mean_all", "", contents["mean_all"]))
    shown = functools.partial(counted, console, "angles")
    by_angle = evaluator.accuracy_by_angle(test, progress=shown) if options.angles else None
    if by_angle is not None:
        contents["angles"] = {"angle": list(ANGLES), "accuracy": by_angle.tolist()}
        title = "accuracy against the angle (mean of the seeds)"
        _print(console, title, ("angle", "accuracy"), zip(ANGLES, by_angle.mean(0), strict=True))
    _write(options.output or options.run_dir, contents, by_angle, console)


def _contents(evaluator, confusion):
    """evaluation.json: what depends on the run, and its counts `[seed, class, predicted]`."""
    config = evaluator.config
    accuracy = (np.trace(confusion, axis1=1, axis2=2) / confusion.sum((1, 2))).tolist()
    return {
        "model": config.model,
        "trained_on": {"dataset": config.dataset, "setting": config.setting, "data_seed": config.data_seed},
        "dataset": None,
        "setting": None,
        "data_seed": None,
        "seeds": list(config.seeds),
        "best_epoch": evaluator.best_epoch,
        "test_accuracy": accuracy,
        "mean_all": float(np.mean(accuracy)),
        "per_class_accuracy": (np.diagonal(confusion, axis1=1, axis2=2) / np.maximum(confusion.sum(2), 1)).tolist(),
        "confusion": confusion.tolist(),
        "command": None,
        "versions": versions(),
        "device": device_name(),
    }


def _write(output, contents, by_angle, console):
    with folders.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / folders.EVALUATION, contents)
        if by_angle is not None:
            write_angles(output / folders.ANGLES, contents["seeds"], ANGLES, by_angle)
            setting = contents["trained_on"]["setting"]
            title = f"{contents['model']}, trained in setting {setting}, {contents['dataset']}"
            plot_angles(output / folders.ANGLES_PLOT, title, ANGLES, by_angle)
    console.print(f"saved in {output}/: evaluation.json" + (", angles.csv, angles.png" if by_angle is not None else ""))


def _print(console, title, head, rows, last=None):
    table = Table(title=title)
    for column in head:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(str, row[:-1]), f"{row[-1]:.4f}")
    if last:
        table.add_section()
        table.add_row(*last[:-1], f"{last[-1]:.4f}")
    console.print(table)


def audit(options: Namespace, command: str) -> None:
    """Audits as the options of `experiments.audit` say.

    Raises:
      InputError: no such folder, or one that cannot be written.
    """
    if options.run_dir is not None and not options.run_dir.is_dir():
        raise InputError(f"{options.run_dir} is not a folder: name the folder of a finished run")
    title, model = _model(options)
    digits = data.load("mnist_5k", 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    chosen = digits.images[:: max(1, len(digits.labels) // 20)]  # two of each class: they are sorted
    images = jnp.asarray(chosen, jnp.float32) / 255
    height, width, channels = images.shape[1:]
    found = fconv_jax.audit(model, (height, width, channels), images=images)
    print(f"{title}: relative errors at quarter turns (so far; the stage alone) and at free angles; signal")
    print(found)
    output = options.output or options.run_dir
    if output is None:
        return
    with folders.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        stages = [dataclasses.asdict(stage) for stage in found.stages]
        contents = {"title": title, "command": command, "breaking": [stage.name for stage in found.breaking]}
        write_json(output / folders.AUDIT, {**contents, "stages": stages})
        plot_audit(output / folders.AUDIT_PLOT, title, found)
    print(f"saved in {output}/: audit.json, audit.png")


def _model(options):
    """A title and the network: one by name with initial weights, or that of a run."""
    if options.model:
        init = options.init or "report"
        model = fconv_jax.models.create(options.model, init=init, rngs=nnx.Rngs(0))
        return f"{options.model}, initial weights ({init})", model
    evaluator = Evaluator(options.run_dir)
    config = evaluator.config
    title = f"{config.model}, setting {config.setting}, {config.dataset}, seed {config.seeds[0]}"
    return title, evaluator.model(0)
