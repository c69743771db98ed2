"""A small synthetic data set in place of the real one, in this process or in those that a test starts."""

import os
import zlib
from pathlib import Path

import numpy as np

from experiments.data import Split
from experiments.settings import SETTINGS, SPLITS

SIZES = {"train": 70, "validation": 30, "test": 40}
"""Upright images of each synthetic split: 70 are two batches of 32 and a smaller one of 6."""

SITE = """
import importlib.util, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "experiments.data":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            from tests.experiments import small_digits
            module.load = small_digits.load
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
"""


def split(name: str, rotated: bool, data_seed: int = 0) -> Split:
    """Noisy images of ten patterns; a rotated split has four rotated copies after each."""
    draw = np.random.default_rng(zlib.crc32(name.encode()) + data_seed)
    labels = np.arange(SIZES[name], dtype=np.int32) % 10
    patterns = np.random.default_rng(0).integers(0, 180, (10, 28, 28, 1))
    images = (patterns[labels] + draw.integers(0, 75, (len(labels), 28, 28, 1))).astype(np.uint8)
    angles = np.zeros_like(labels)
    if rotated:
        images = np.stack([np.rot90(images, k % 4, axes=(1, 2)) for k in range(5)], axis=1).reshape(-1, 28, 28, 1)
        angles = np.tile(np.int32([0, 90, 180, -90, 15]), len(labels))
        labels = np.repeat(labels, 5)
    return Split(images, labels, angles)


def load(dataset, setting, *, data_seed=0, data_dir=None, splits=SPLITS, progress=None):
    """Stands in for `experiments.data.load`."""
    return {name: split(name, SETTINGS[setting].is_rotated(name), data_seed) for name in splits}


def environment(folder: Path) -> dict[str, str]:
    """Variables of processes that load these digits, and so do the processes that they start."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITE)
    return os.environ | {"PYTHONPATH": str(folder)}
