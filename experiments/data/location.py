"""Where the data set lives below the data directory, and what its parts are called."""

import os
from pathlib import Path

VERSION = "1.0.0"
"""Of the prepared files. To be raised when the rotation or the rule of the angles changes: TFDS uses a prepared
version again without looking into it."""


def data_directory(data_dir: str | os.PathLike | None = None) -> Path:
    """The data directory: `data_dir`, else the variable TFDS_DATA_DIR, else TFDS's own ~/tensorflow_datasets."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or Path("~", "tensorflow_datasets")
    return Path(chosen).expanduser()


def config_name(dataset: str, setting: int, data_seed: int) -> str:
    """Name of the builder's configuration, for example `mnist_5k_setting4_seed0`."""
    return f"{dataset}_setting{setting}_seed{data_seed}"


def config_directory(root: Path, dataset: str, setting: int, data_seed: int) -> Path:
    """Folder of one configuration, which holds one folder for each prepared version."""
    return root / "rotated_mnist" / config_name(dataset, setting, data_seed)


def prepared_directory(root: Path, dataset: str, setting: int, data_seed: int) -> Path:
    """Folder of the prepared files. TFDS moves it into place as a whole: if it exists, preparing was finished."""
    return config_directory(root, dataset, setting, data_seed) / VERSION


def placed_directory(root: Path, dataset: str) -> Path:
    """Folder in which users place the four official files of `dataset`."""
    return root / "downloads" / "manual" / dataset
