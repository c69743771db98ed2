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
from experiments.data.rotation import INTERPOLATIONS
from experiments.reporting.plots import plot_angles, plot_audit
from experiments.reporting.tables import good, of_good
from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs import reading
from experiments.runs.best import Evaluator
from experiments.runs.folder import write_json
from experiments.runs.progress import counted
from experiments.runs.results import number, versions, write_angles, write_uniform
from experiments.runs.train import resolve
from experiments.settings import DATASETS, DIGITS
from experiments.training.devices import device_name
from experiments.training.network import build

_DATA = ("dataset", "setting", "data_seed")
ANGLE_SEEDS = (0, 1, 2)
"""Of the uniform angles."""
_ROUNDED = 0.005
"""Accuracy that other hardware may move: its rounding changes the class of a few digits at most."""


def evaluate(options: Namespace, command: str) -> None:
    """Evaluates as the options of `experiments.evaluate` say.

    Raises:
      InputError: no such run, or a folder that cannot be written.
    """
    _check_folder(options.run_dir)
    with folders.held(options.run_dir, options.output or options.run_dir):
        _evaluate(options, command, Console(soft_wrap=True, markup=False, emoji=False))


def _check_folder(run_dir):
    if not run_dir.is_dir():
        raise InputError(f"{run_dir} is not a folder: name the folder of a finished run")


def _check_output(output, evaluator):
    """Refuses, before the work, a folder that cannot be written, and that of another run."""
    where = output or (evaluator and evaluator.run_dir)
    if where:
        folders.check_writable(where)
    if output is None:
        return
    if not folders.is_run(output):
        _check_same_network(output, evaluator)
        return
    if evaluator and output.resolve() == evaluator.run_dir.resolve():
        return
    there = folders.best_record(output) or reading.check_run(output) or {}
    if evaluator is None or evaluator.digest not in (there.get("digest"), there.get("best_digest")):
        raise InputError(f"{output} holds another run: choose another --output")


def _check_same_network(output, evaluator):
    """Refuses a folder with what was measured of another run: its files would be of both."""
    for name in (folders.EVALUATION, folders.AUDIT):
        there = _read(output / name).get("best_digest")
        if there and there != (evaluator and evaluator.digest):
            raise InputError(f"{output / name} is of another run: choose another --output")


def _evaluate(options, command, console):
    evaluator = Evaluator(options.run_dir)
    _check_output(options.output, evaluator)
    config = evaluator.config
    setting = options.setting or config.setting
    options.data_seed = config.data_seed if options.data_seed is None else options.data_seed
    dataset = resolve(console, options, options.dataset or config.dataset, [setting])
    if DATASETS[dataset].is_rotated and (options.angles or options.uniform):
        raise InputError(f"{dataset} holds rotated images: --angles and --uniform need a data set of upright ones")
    overlaps = None if evaluator.elsewhere else overlap(config.dataset, dataset)
    if overlaps:
        console.print(
            f"some of these images of {dataset} are among those of {config.dataset} that trained the network or chose "
            "its epoch: its accuracy on new ones is lower"
        )
    where = {"data_seed": options.data_seed, "data_dir": options.data_dir}
    test = data.load(dataset, setting, **where, splits=("test",), progress=console.print)["test"]
    contents = _contents(evaluator, evaluator.confusion(test)) | {
        "dataset": dataset, "setting": setting, "data_seed": options.data_seed, "command": command,
        "overlaps_training": overlaps,
    }  # fmt: skip
    title = f"{config.model}, tested on {dataset}, setting {setting}"
    rows = zip(contents["seeds"], contents["best_epoch"], contents["test_accuracy"], strict=True)
    last = [(name, "", contents[name]) for name in ("mean", "mean_all")]
    _print(console, title, ("seed", "best epoch", "test"), rows, last)
    _compare_with_run(console, evaluator, contents)
    if options.angles:
        angles = range(-180, 181, options.angle_step or 15)
        shown = functools.partial(counted, console, "angles")
        by_angle = evaluator.accuracy_by_angle(test, angles, progress=shown)
        contents["angles"] = {"angle": list(angles), "accuracy": by_angle.tolist()}
        title = "accuracy against the angle (mean of the seeds that did not fail, of all where all did)"
        _print(console, title, ("angle", "accuracy"), zip(angles, of_good(contents, by_angle).mean(0), strict=True))
    if options.uniform:
        contents["uniform"] = _uniform(evaluator, test, console, contents)
    evaluator.check_unchanged()
    _write(options.output or options.run_dir, contents, console)


def _compare_with_run(console, evaluator, contents):
    """Says so where a run's own test gives another accuracy than the run: rounding alone moves hardly any digit."""
    results, trained = evaluator.results, contents["trained_on"]
    if not results or evaluator.elsewhere or any(trained[name] != contents[name] for name in _DATA):
        return
    change = np.abs(np.subtract(contents["test_accuracy"], results["test_accuracy"])).max()
    if change > _ROUNDED:
        console.print(
            f"the run itself found another accuracy (by up to {change:.4f}; {folders.RESULTS}): these may be "
            "other test images than the run's, prepared anew from other files or by other versions"
        )


def overlap(trained: str, tested: str) -> bool:
    """Whether test images of one data set may be among those that train, or choose epochs, in another.

    The digits of mnist_5k are of MNIST's training files.
    """
    return len({trained, tested}.intersection(DIGITS)) == 2 and (trained, tested) != ("mnist_5k", "mnist")


def _uniform(evaluator, test, console, cell):
    """Rotates each image by its own angle: accuracies `[seed of the angles][seed]` of each interpolation."""
    found = {
        interpolation: [evaluator.accuracy_uniform(test, interpolation, seed).tolist() for seed in ANGLE_SEEDS]
        for interpolation in counted(console, "interpolations", list(INTERPOLATIONS))
    }
    rows = [
        (interpolation, seed, float(np.mean(of_good(cell, accuracies))))
        for interpolation, of_seeds in found.items()
        for seed, accuracies in zip(ANGLE_SEEDS, of_seeds, strict=True)
    ]
    title = "angles uniform over the circle (mean of the seeds that did not fail, of all where all did)"
    _print(console, title, ("interpolation", "seed of the angles", "accuracy"), rows)
    return {"angle_seeds": list(ANGLE_SEEDS), "accuracy": found}


def _contents(evaluator, confusion):
    """The part of evaluation.json that depends on the run and its counts `[seed, class, predicted]`."""
    config = evaluator.config
    accuracy = (np.trace(confusion, axis1=1, axis2=2) / confusion.sum((1, 2))).tolist()
    cell = {"seeds": list(config.seeds), "failed_seeds": evaluator.failed_seeds}
    return {
        "model": config.model,
        "best_digest": evaluator.digest,
        "trained_on": "elsewhere" if evaluator.elsewhere else {name: getattr(config, name) for name in _DATA},
        "dataset": None,
        "setting": None,
        "data_seed": None,
        "overlaps_training": None,
        "seeds": cell["seeds"],
        "best_epoch": evaluator.best_epoch,
        "test_accuracy": accuracy,
        "failed_seeds": evaluator.failed_seeds,
        "mean": float(np.mean(of_good(cell, accuracy))) if good(cell).any() else None,
        "mean_all": float(np.mean(accuracy)),
        "per_class_accuracy": (np.diagonal(confusion, axis1=1, axis2=2) / np.maximum(confusion.sum(2), 1)).tolist(),
        "confusion": confusion.tolist(),
        "command": None,
        "versions": versions(),
        "device": device_name(),
    }


def _write(output, contents, console):
    """Writes the files. In a run's folder its own test has the plain names; names of other tests say their data."""
    names, dataset = [folders.EVALUATION, folders.ANGLES, folders.ANGLES_PLOT, folders.UNIFORM], contents["dataset"]
    trained = contents["trained_on"]
    # Of a network that was trained elsewhere, the first test has the plain names.
    own = trained if isinstance(trained, dict) else _earlier(output / names[0], contents["best_digest"]) or contents
    if folders.is_run(output) and any(own.get(name) != contents[name] for name in _DATA):
        seed = None if contents["data_seed"] == own.get("data_seed") else contents["data_seed"]
        names = [folders.evaluated(name, dataset, contents["setting"], seed) for name in names]
    earlier = _earlier(output / names[0], contents["best_digest"])
    kept = {"angles", "uniform"} & earlier.keys() - contents.keys()
    if any(earlier.get(name) != contents[name] for name in _DATA):
        kept = set()
    by = {name: earlier.get(name) for name in ("command", "device")}
    with folders.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        if "angles" in contents:
            write_angles(output / names[1], contents)
            title = f"{contents['model']}, trained {_where(trained)}; tested on {dataset}"
            mean = of_good(contents, contents["angles"]["accuracy"]).mean(0)
            plot_angles(output / names[2], title, **contents["angles"], mean=mean, digest=contents["best_digest"])
        if "uniform" in contents:
            write_uniform(output / names[3], contents)
        write_json(output / names[0], contents | {name: by | earlier[name] for name in sorted(kept)})
    names = [names[0], *names[1:3] * ("angles" in contents), *names[3:] * ("uniform" in contents)]
    console.print(f"saved in {output}/: {', '.join(names)}")


def _earlier(path, digest):
    """An earlier evaluation.json of the same network; empty if there is none."""
    found = _read(path)
    return found if found.get("best_digest") == digest else {}


def _read(path):
    """A file's contents; empty if there is none, or none that can be read."""
    try:
        return folders.read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}


def _where(trained):
    return trained if isinstance(trained, str) else f"on {trained['dataset']}, setting {trained['setting']}"


def _print(console, title, head, rows, last=()):
    table = Table(title=title)
    for column in head:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*map(str, row[:-1]), number(row[-1]))
    if last:
        table.add_section()
    for row in last:
        table.add_row(*row[:-1], number(row[-1]))
    console.print(table)


def audit(options: Namespace, command: str) -> None:
    """Audits as the options of `experiments.audit` say.

    Raises:
      InputError: no such folder, or one that cannot be written.
    """
    if options.run_dir is not None:
        _check_folder(options.run_dir)
    folder = options.output or options.run_dir
    with folders.held(*filter(None, (options.run_dir, folder))):
        _audit(options, command, folder)


def _audit(options, command, output):
    title, model, evaluator = _model(options)
    _check_output(options.output, evaluator)
    digits = data.load("mnist_5k", 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    chosen = digits.images[:: max(1, len(digits.labels) // 20)]  # two of each class: they are sorted
    images = jnp.asarray(chosen, jnp.float32) / 255
    height, width, channels = images.shape[1:]
    found = fconv_jax.audit(model, (height, width, channels), images=images)
    print(f"{title}:\n{found}")
    if output is None:
        return
    whose = {}
    if evaluator:
        evaluator.check_unchanged()
        whose = {"best_digest": evaluator.digest}
    with folders.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        stages = [dataclasses.asdict(stage) for stage in found.stages]
        contents = {"title": title, **whose, "command": command, "breaking": [stage.name for stage in found.breaking]}
        write_json(output / folders.AUDIT, {**contents, "stages": stages, "warnings": list(found.warnings)})
        plot_audit(output / folders.AUDIT_PLOT, title, found, digest=whose.get("best_digest"))
    print(f"saved in {output}/: audit.json, audit.png")


def _model(options):
    """A title, the network (by name with initial weights, or a run's), and the run's evaluator."""
    if options.model:
        init = options.init or "report"
        model = build(options.model, init=init).create(rngs=nnx.Rngs(0))
        return f"{options.model}, initial weights ({init})", model, None
    evaluator = Evaluator(options.run_dir)
    config = evaluator.config
    trained = "trained elsewhere" if evaluator.elsewhere else f"setting {config.setting}, {config.dataset}"
    return f"{config.model}, {trained}, seed {config.seeds[0]}", evaluator.model(0), evaluator
