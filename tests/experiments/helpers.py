"""Command lines called in this process, and what to compare."""

import hashlib
import json
import os
import warnings

import jax
import numpy as np

from experiments import evaluate as evaluate_door
from experiments import run as run_door

QUICK = "--setting 1 --model lenet --dataset mnist_5k --seeds 0,3 --epochs 2 --batch-size 32 --learning-rate 3e-3"
QUICK = QUICK.split()
"""Options of a run that takes seconds."""

MEASURED = ("train_images_per_second", "compile_seconds", "wall_seconds", "command", "commit")
"""Fields of results.json that differ between two equal runs."""


def call(main, *argv):
    """Calls a command line in this process; returns its exit code.

    The environment and the warning filters that it sets for a process of its own are put back.
    """
    environment = dict(os.environ)
    try:
        with warnings.catch_warnings():
            return main([str(word) for word in argv])
    except SystemExit as ended:
        return ended.code
    finally:
        os.environ.clear()
        os.environ.update(environment)


def run(*argv):
    """Calls `experiments.run`."""
    return call(run_door.main, *argv)


def evaluate(*argv):
    """Calls `experiments.evaluate`."""
    return call(evaluate_door.main, *argv)


def tree(folder) -> dict[str, str]:
    """What a folder holds: from relative path to sha256, "folder" or "link"."""

    def kind(path):
        if path.is_symlink() or path.is_dir():
            return "link" if path.is_symlink() else "folder"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return {str(path.relative_to(folder)): kind(path) for path in sorted(folder.rglob("*"))}


def assert_refused(capfd, root, command, *argv, says, may_appear=frozenset()):
    """Exit code 2, one line beside the usage, nothing written; `root` holds all that the command could reach."""
    before = tree(root)
    code = command(*argv)
    captured = capfd.readouterr()
    assert code == 2
    lines = captured.err.splitlines()
    assert "Traceback" not in captured.err
    assert lines[0].startswith("usage: python -m experiments.")
    # argparse folds its usage: the continuation is indented.
    rest = [line for line in lines[1:] if not line.startswith(" ")]
    assert len(rest) == 1, captured.err
    assert ": error: " in rest[0]
    assert says in rest[0]
    after = tree(root)
    assert {name: after[name] for name in after if name not in may_appear - before.keys()} == before


def assert_trees_equal(first, second):
    """Equal names and bytes of two trees of arrays."""
    first, second = (jax.tree_util.tree_flatten_with_path(jax.device_get(x))[0] for x in (first, second))
    assert [path for path, _ in first] == [path for path, _ in second]
    for (path, a), (_, b) in zip(first, second, strict=True):
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


IN_CLASS = 200
"""Test images of each class in `cell`: no data set's own number."""


def cell(model, setting=1, dataset="mnist_5k", accuracy=(0.9, 0.8, 0.1), failed=(2,), seeds=(0, 1, 2), **more):
    """A finished cell's results.json, in which all follows from its counts and curves."""
    good = [a for s, a in zip(seeds, accuracy, strict=True) if s not in failed]
    epochs, right = more.get("epochs", 2), [round(IN_CLASS * a) for a in accuracy]
    validation = [0.1 if s in failed else 0.5 for s in seeds]
    return {
        "model": model, "setting": setting, "dataset": dataset, "seeds": list(seeds), "init": "report",
        "epochs": epochs, "batch_size": 256, "learning_rate": 2e-4, "schedule": "constant", "weight_decay": 0.0,
        "label_smoothing": 0.0, "l2": 0.0, "augmentation": "none", "precision": "float32", "data_seed": 0,
        "num_parameters": 5,
        "test_accuracy": list(accuracy), "failed_seeds": list(failed),
        "mean": float(np.mean(good)) if good else None, "std": float(np.std(good, ddof=1)) if len(good) > 1 else None,
        "mean_all": float(np.mean(accuracy)), "best_epoch": [1] * len(seeds), "validation_accuracy": validation,
        "versions": {"python": "3", "jax": "1", "flax": "2", "optax": "3"}, "command": "python -m experiments.run",
        "device": "a machine", "wall_seconds": 60.0, "compile_seconds": 1.0, "train_images_per_second": 9.0,
        "train_loss": [[1.0] * epochs] * len(seeds), "validation_curve": [[v] * epochs for v in validation],
        "per_class_accuracy": [[r / IN_CLASS] * 10 for r in right],
        "confusion": [(np.diag([r] * 10) + np.diag([IN_CLASS - r] * 9, 1) + np.diag([IN_CLASS - r], -9)).tolist()
                      for r in right], **more,
    }  # fmt: skip


def angles(cell, rotated=0.2):
    """A table of angles that fits a cell of before there were digests: its own accuracy upright."""
    rows = [f"{s},0,{a:.6g}\n{s},90,{rotated}" for s, a in zip(cell["seeds"], cell["test_accuracy"], strict=True)]
    return "\n".join(["seed,angle,accuracy", *rows, ""])


def numbers(folder) -> dict:
    """results.json without what differs between two equal runs."""
    contents = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in contents.items() if name not in MEASURED}
