"""The data set `rotated_mnist`: MNIST and its relatives with rotated copies of every image."""

from experiments.data.files import DataError
from experiments.data.loading import Split, digest, load, resolve_dataset
from experiments.data.rotation import rotate_images

__all__ = ["DataError", "Split", "digest", "load", "resolve_dataset", "rotate_images"]
