"""What storing rotated images as uint8 changes: the report keeps them as floats that are neither clipped nor rounded.

    python -m benchmarks.stored_as_uint8 checkpoints/setting3_lenet_mnist_5k

Prints the change of the pixels, and a run's test accuracy on both forms of its rotated test images.
"""

import argparse
from pathlib import Path

import numpy as np

from experiments.runs import config as configs
from experiments.settings import COPIES_PER_IMAGE
from experiments.training import devices


def main() -> None:
    """Measures one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    options = parser.parse_args()
    devices.configure(configs.model_of(options.run_dir))
    from experiments.data import Split, load, rotate_images
    from experiments.runs.best import Evaluator

    evaluator = Evaluator(options.run_dir)
    config = evaluator.config
    stored = load(config.dataset, 4, data_seed=config.data_seed, splits=("test",))["test"]
    stride = 1 + COPIES_PER_IMAGE
    sources = np.repeat(stored.images[::stride, ..., 0].astype(np.float32) / 255, stride, axis=0)
    floats = np.empty_like(sources)
    for angle in np.unique(stored.angles):
        floats[stored.angles == angle] = rotate_images(sources[stored.angles == angle], int(angle))
    change = (stored.images[..., 0] / 255.0 - floats)[stored.angles != 0]
    print(
        f"rotated images' pixels change by {np.sqrt(np.mean(change**2)):.4f} (rms), {np.abs(change).max():.2f} at most"
    )
    as_floats = Split((floats * 255)[..., None], stored.labels, stored.angles)
    for name, split in (("stored as uint8", stored), ("as floats", as_floats)):
        table = evaluator.confusion(split)
        accuracy = np.trace(table, axis1=1, axis2=2) / table.sum((1, 2))
        print(f"{name}: test accuracy {accuracy.mean():.5f}, seeds {', '.join(f'{a:.4f}' for a in accuracy)}")


if __name__ == "__main__":
    main()
