"""A small synthetic data set in place of the real one, runs of the command lines in this process, one finished run."""

import gc
import hashlib
import json
import os
import warnings
import zlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments import evaluate, evaluation, run, session
from experiments.data import Split
from experiments.settings import SETTINGS, SPLITS

SIZES = {"train": 70, "validation": 30, "test": 40}
"""Upright images of each synthetic split: 70 are two batches of 32 and a smaller one of 6."""


def synthetic_split(split: str, rotated: bool, data_seed: int = 0) -> Split:
    """Noisy pictures of ten patterns; a rotated split has four quarter-turned copies after each."""
    draw = np.random.default_rng(zlib.crc32(split.encode()) + data_seed)
    labels = np.arange(SIZES[split], dtype=np.int32) % 10
    patterns = np.random.default_rng(0).integers(0, 180, (10, 28, 28, 1))
    images = (patterns[labels] + draw.integers(0, 75, (len(labels), 28, 28, 1))).astype(np.uint8)
    angles = np.zeros_like(labels)
    if rotated:
        images = np.stack([np.rot90(images, turn % 4, axes=(1, 2)) for turn in range(5)], axis=1).reshape(-1, 28, 28, 1)
        angles = np.tile(np.int32([0, 90, 180, -90, 15]), len(labels))
        labels = np.repeat(labels, 5)
    return Split(images, labels, angles)


def synthetic_load(dataset, setting, *, data_seed=0, data_dir=None, splits=SPLITS, progress=None):
    """Stands in for `experiments.data.load`."""
    return {split: synthetic_split(split, SETTINGS[setting].is_rotated(split), data_seed) for split in splits}


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


def tree(folder) -> dict[str, str]:
    """What a folder holds: from relative path to sha256, "folder" or "link"."""

    def kind(path):
        if path.is_symlink() or path.is_dir():
            return "link" if path.is_symlink() else "folder"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return {str(path.relative_to(folder)): kind(path) for path in sorted(folder.rglob("*"))}


def assert_trees_equal(first, second):
    """Equal names and bytes of two trees of arrays."""
    first, second = (jax.tree_util.tree_flatten_with_path(jax.device_get(x))[0] for x in (first, second))
    assert [path for path, _ in first] == [path for path, _ in second]
    for (path, a), (_, b) in zip(first, second, strict=True):
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def cell(model, setting=1, dataset="mnist_5k", accuracy=(0.9, 0.8, 0.1), failed=(2,), seeds=(0, 1, 2), **more):
    """A finished cell's results.json, as far as reports read it."""
    good = [a for s, a in zip(seeds, accuracy, strict=True) if s not in failed]
    epochs = more.get("epochs", 2)
    return {
        "model": model, "setting": setting, "dataset": dataset, "seeds": list(seeds), "init": "report",
        "epochs": epochs, "batch_size": 256, "test_accuracy": list(accuracy), "failed_seeds": list(failed),
        "mean": float(np.mean(good)) if good else None, "std": float(np.std(good, ddof=1)) if len(good) > 1 else None,
        "versions": {"python": "3", "jax": "1", "flax": "2", "optax": "3"}, "command": "python -m experiments.run",
        "device": "a machine", "wall_seconds": 60.0, "train_loss": [[1.0] * epochs] * len(seeds),
        "validation_curve": [[0.5] * epochs] * len(seeds), "per_class_accuracy": [[0.9] * 10] * len(seeds),
        "confusion": [np.diag([10] * 10).tolist()] * len(seeds), **more,
    }  # fmt: skip


MEASURED = ("train_images_per_second", "compile_seconds", "wall_seconds", "command")
"""Fields of results.json that differ between two equal runs."""


def numbers(folder) -> dict:
    """results.json without what differs between two equal runs."""
    contents = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in contents.items() if name not in MEASURED}


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory):
    """Programs that several tests compile are compiled once."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def lab(compiled_once):
    """This file's helpers (test files are imported by path, so they cannot import it)."""
    return SimpleNamespace(
        sizes=SIZES,
        split=synthetic_split,
        load=synthetic_load,
        tree=tree,
        assert_trees_equal=assert_trees_equal,
        measured=MEASURED,
        cell=cell,
        numbers=numbers,
        call=call,
        run=lambda *argv: call(run.main, *argv),
        evaluate=lambda *argv: call(evaluate.main, *argv),
    )


@pytest.fixture(scope="session")
def quick():
    """Options of a run that takes seconds."""
    words = "--setting 1 --model lenet --dataset mnist_5k --seeds 0,3 --epochs 2 --batch-size 32 --learning-rate 3e-3"
    return words.split()


@pytest.fixture
def dropped_futures():
    """Collects, inside the test whose filter ignores them, what Orbax drops when a file is damaged."""
    yield
    gc.collect()


@pytest.fixture
def synthetic(monkeypatch):
    """The command lines load the synthetic data."""
    monkeypatch.setattr(session, "load", synthetic_load)
    monkeypatch.setattr(evaluation, "load", synthetic_load)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, quick, compiled_once):
    """The folder of a finished run on the synthetic data; read it, or copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "load", synthetic_load)
        assert call(run.main, *quick, "--output", folder) == 0
    return folder
