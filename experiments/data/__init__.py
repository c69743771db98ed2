"""The data set `rotated_mnist`: MNIST and its relatives with rotated copies of every image."""

import importlib
from typing import TYPE_CHECKING

from experiments.data.files import DataError

if TYPE_CHECKING:
    from experiments.data.loading import Split, digest, load, resolve_dataset
    from experiments.data.rotation import rotate_images

__all__ = ["DataError", "Split", "digest", "load", "resolve_dataset", "rotate_images"]


def __getattr__(name):
    """Loading needs TFDS, which takes a second to import: programs that prepare images only do not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "rotation" if name == "rotate_images" else "loading"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
