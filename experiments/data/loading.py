"""Loading a data set in one of the four settings: prepared once by TFDS, then read into arrays within seconds."""

import dataclasses
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from filelock import FileLock, Timeout

from experiments.data import sources
from experiments.data.builder import ArrayDigest, RotatedMnist, RotatedMnistConfig, read_records
from experiments.data.files import IMAGE_SIZE, DataError, find_placed, placed_directory
from experiments.data.sources import check_source, is_downloaded, is_reachable
from experiments.settings import DATASETS, SETTINGS, SPLITS

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Split:
    """One split in order: an image, in a rotated split followed by its four rotated copies, the next image, ...

    images: uint8 `[n, 28, 28, 1]`; labels: int32 `[n]`, 0..9; angles: int32 `[n]`, degrees, 0 for originals.
    """

    images: np.ndarray
    labels: np.ndarray
    angles: np.ndarray


def digest(splits: dict[str, Split]) -> str:
    """Returns the sha256 of the images, labels and angles of some splits, as a run's config.json keeps it."""
    total = hashlib.sha256()
    for name in sorted(splits):
        for field in dataclasses.fields(Split):
            total.update(np.ascontiguousarray(getattr(splits[name], field.name)).data)
    return total.hexdigest()


def resolve_dataset(
    name: str, data_dir: str | os.PathLike | None = None, *, settings: Sequence[int] = (), data_seed: int = 0
) -> tuple[str, str | None]:
    """The data set that `name` stands for, and a line for the user if there is something to say.

    "auto" is mnist if it is prepared (with `data_seed` in all `settings`, or in any), placed by the user, downloaded
    earlier or downloadable, else mnist_5k. It takes at most a few seconds. Any other name stands for itself.

    Raises:
      DataError: unknown name, or "auto" finds some but not all of MNIST's files placed.
    """
    if name != "auto":
        _check_request(name)
        return name, None
    root = sources.data_directory(data_dir)
    if settings:
        is_prepared = all(sources.prepared_directory(root, "mnist", n, data_seed).exists() for n in settings)
    else:
        is_prepared = any((root / "rotated_mnist").glob(f"mnist_setting*_seed*/{sources.VERSION}"))
    if is_prepared or find_placed(root, "mnist") or is_downloaded(root, "mnist"):
        return "mnist", None
    if is_reachable("mnist"):
        return "mnist", f"MNIST (12 MB) is being downloaded to {root / 'downloads'}"
    return "mnist_5k", (
        f"MNIST is neither in {placed_directory(root, 'mnist')} nor downloadable now: using mnist_5k, 5,000 "
        "of its digits, instead (15 times fewer images, results are not comparable with MNIST's)"
    )


def load(
    dataset: str,
    setting: int,
    *,
    data_seed: int = 0,
    data_dir: str | os.PathLike | None = None,
    splits: Sequence[str] = SPLITS,
    progress: Progress | None = None,
) -> dict[str, Split]:
    """Load splits of a data set in one of the four settings; the first time, prepare them.

    Preparing is safe against being killed and against other processes that prepare the same data. What is loaded is
    compared with the digest taken when it was prepared.

    `data_seed` decides the angles of the rotated copies. `data_dir`: where data are kept; default TFDS_DATA_DIR, else
    ~/tensorflow_datasets. `progress` is called with a line of text now and then while preparing.

    Raises:
      DataError: a bad argument; files that are missing, wrong or damaged; a folder that can't be written.
    """
    _check_request(dataset, setting, data_seed, splits)
    root = sources.data_directory(data_dir).absolute()
    folder = sources.prepared_directory(root, dataset, setting, data_seed)
    if not folder.exists():
        _prepare(root, dataset, setting, data_seed, progress or (lambda line: None))
    try:
        builder = _make_builder(root, dataset, setting, data_seed)
        digests = (builder.info.metadata or {})["sha256"]
        return {split: _read_split(builder, split, digests[split]) for split in splits}
    except Exception as error:  # TFDS, ArrayRecord and protobuf raise bare errors of many types here.
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the prepared data in {folder} are damaged ({what}): delete this folder, then they are made again"
        ) from error


def _check_request(dataset, setting=1, data_seed=0, splits=()):
    if dataset not in DATASETS:
        raise DataError(f"unknown dataset {dataset!r}: choose auto, {', '.join(DATASETS)}")
    if setting not in SETTINGS:
        raise DataError(f"unknown setting {setting!r}: choose {', '.join(map(str, SETTINGS))}")
    if setting not in DATASETS[dataset].settings:
        raise DataError(f"the images of {dataset} are rotated already: use --setting 1, which takes them as they are")
    if not isinstance(data_seed, int) or data_seed < 0:
        raise DataError(f"the data seed must be a whole number from 0, not {data_seed!r}")
    if data_seed >= 2**32:
        raise DataError("the data seed must be below 2^32")
    if unknown := [split for split in splits if split not in SPLITS]:
        raise DataError(f"unknown split {unknown[0]!r}: choose from {', '.join(SPLITS)}")


def _prepare(root: Path, dataset: str, setting: int, data_seed: int, progress: Progress) -> None:
    """Prepare one configuration unless another process has done it meanwhile."""
    check_source(root, DATASETS[dataset])  # first, so that bad input writes nothing
    folder = sources.prepared_directory(root, dataset, setting, data_seed)
    try:
        with _only_process(root, dataset, progress):
            if folder.exists():
                return
            # Only this process prepares, so these remain from a process that was killed.
            for left_over in folder.parent.glob("incomplete.*"):
                shutil.rmtree(left_over)
            builder = _make_builder(root, dataset, setting, data_seed, progress)
            manual = placed_directory(root, dataset)
            config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
    except DataError:
        raise
    except (OSError, RuntimeError) as error:  # ArrayRecord reports a full disk as RuntimeError.
        what = " ".join(str(error).split())[:200]
        raise DataError(
            f"can't prepare {dataset} in {root} ({what}): fix this or choose another folder with --data-dir"
        ) from error


def _only_process(root, dataset, progress):
    """The lock that the one process that prepares `dataset` holds; waits for it. It dies with its process."""
    folder = root / "rotated_mnist"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{dataset}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that prepares {dataset} in {root}")
    return lock.acquire()


def _make_builder(root, dataset, setting, data_seed, progress=None):
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)  # that it is a configuration of ours
    config = RotatedMnistConfig.create(dataset, setting, data_seed)
    # For a configuration that TFDS lists, it accepts only its own object.
    config = RotatedMnist.builder_configs.get(config.name, config)
    return RotatedMnist(config=config, data_dir=root, progress=progress)


def _read_split(builder, split: str, expected_digest: str) -> Split:
    """Read a prepared split and compare it with its digest."""
    info = builder.info.splits[split]
    num_images = info.num_examples
    images = np.empty((num_images, IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8)
    labels, angles = np.empty(num_images, np.int32), np.empty(num_images, np.int32)
    read_records(info.filepaths[0], images, labels, angles)
    found = ArrayDigest()
    found.add(images, labels, angles)
    if found.hexdigest() != expected_digest:
        raise ValueError(f"the {split} images differ from those that were prepared")
    return Split(images, labels, angles)
