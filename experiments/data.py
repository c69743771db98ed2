"""Loading a data set in one of the four settings: prepared once by TFDS, then read into arrays within seconds.

Importing this module is cheap; TFDS is imported when data are loaded.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.rotated_mnist import location
from experiments.rotated_mnist.download import check_source, find_placed, is_downloaded, is_reachable
from experiments.rotated_mnist.location import data_directory
from experiments.rotated_mnist.sources import IMAGE_SIZE, DataError
from experiments.settings import DATASETS, SETTINGS, SPLITS

try:
    import fcntl
except ImportError:  # Windows: loading works, two processes must not prepare the same data at once.
    fcntl = None

__all__ = ["DataError", "Split", "load", "resolve_dataset"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Split:
    """One split in order: an image, in a rotated split followed by its four turned copies, the next image, ...

    images: uint8 `[n, 28, 28, 1]`; labels: int32 `[n]`, 0..9; angles: int32 `[n]`, degrees, 0 for originals.
    """

    images: np.ndarray
    labels: np.ndarray
    angles: np.ndarray


def resolve_dataset(
    name: str, data_dir: str | os.PathLike | None = None, *, settings: Sequence[int] = (), data_seed: int = 0
) -> tuple[str, str | None]:
    """The data set that `name` stands for, and a line for the user if there is something to say.

    "auto" is mnist if it is prepared, placed by the user, downloaded earlier or downloadable, else mnist_5k. It
    takes at most a few seconds. Any other name stands for itself.

    Args:
      name: "auto" or a name of `DATASETS`.
      data_dir: as for `load`.
      settings: which must all be prepared with `data_seed` for mnist to count as prepared; none: any one will do.
      data_seed: as for `load`.

    Raises:
      DataError: unknown name, or "auto" finds some but not all of MNIST's files placed.
    """
    if name != "auto":
        _check_dataset(name)
        return name, None
    root = data_directory(data_dir)
    if settings:
        is_prepared = all(location.prepared_directory(root, "mnist", n, data_seed).exists() for n in settings)
    else:
        is_prepared = any((root / "rotated_mnist").glob(f"mnist_setting*_seed*/{location.VERSION}"))
    if is_prepared or find_placed(root, "mnist") or is_downloaded(root, "mnist"):
        return "mnist", None
    if is_reachable("mnist"):
        return "mnist", f"MNIST (12 MB) is being downloaded to {root / 'downloads'}"
    folder = location.placed_directory(root, "mnist")
    return "mnist_5k", (
        f"MNIST is neither in {folder} nor downloadable now: using mnist_5k, 5,000 of its digits, instead "
        "(15 times fewer images, results are not comparable with MNIST's)"
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

    Args:
      dataset: a name of `DATASETS`.
      setting: 1 to 4.
      data_seed: decides the angles of the turned copies; not negative.
      data_dir: where data are kept; default TFDS_DATA_DIR, else ~/tensorflow_datasets.
      splits: which of "train", "validation", "test".
      progress: called with a line of text now and then while preparing.

    Returns:
      From the name of a split to its arrays.

    Raises:
      DataError: a bad argument; files that are missing, wrong or damaged; a folder that can't be written.
    """
    _check_request(dataset, setting, data_seed, splits)
    root = data_directory(data_dir).absolute()
    folder = location.prepared_directory(root, dataset, setting, data_seed)
    if not folder.exists():
        _prepare(root, dataset, setting, data_seed, progress or (lambda line: None))
    try:
        builder = _make_builder(root, dataset, setting, data_seed)
        digests = builder.info.metadata["sha256"]
        return {split: _read_split(builder, split, digests[split]) for split in splits}
    except Exception as error:  # TFDS, ArrayRecord and protobuf raise bare errors of many types here.
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the prepared data in {folder} are damaged ({what}): delete this folder, then they are made again"
        ) from error


def _check_dataset(name: str) -> None:
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}: choose auto, {', '.join(DATASETS)}")


def _check_request(dataset: str, setting: int, data_seed: int, splits: Sequence[str]) -> None:
    _check_dataset(dataset)
    if setting not in SETTINGS:
        raise DataError(f"unknown setting {setting!r}: choose {', '.join(map(str, SETTINGS))}")
    if not isinstance(data_seed, int) or data_seed < 0:
        raise DataError(f"the data seed must be a whole number from 0, not {data_seed!r}")
    if unknown := [split for split in splits if split not in SPLITS]:
        raise DataError(f"unknown split {unknown[0]!r}: choose from {', '.join(SPLITS)}")


def _prepare(root: Path, dataset: str, setting: int, data_seed: int, progress: Progress) -> None:
    """Prepare one configuration unless another process has done it meanwhile."""
    check_source(root, DATASETS[dataset])  # first of all: bad input writes nothing
    try:
        with _only_process(root, dataset, progress):
            if location.prepared_directory(root, dataset, setting, data_seed).exists():
                return
            # Only this process prepares, so these are left over from one that was killed.
            for left_over in location.config_directory(root, dataset, setting, data_seed).glob("incomplete.*"):
                shutil.rmtree(left_over)
            import tensorflow_datasets as tfds

            builder = _make_builder(root, dataset, setting, data_seed, progress)
            manual = location.placed_directory(root, dataset)
            config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
    except DataError:
        raise
    except (OSError, RuntimeError) as error:  # ArrayRecord reports a full disk as RuntimeError.
        what = " ".join(str(error).split())[:200]
        raise DataError(
            f"can't prepare {dataset} in {root} ({what}): mend this or choose another folder with --data-dir"
        ) from error


@contextlib.contextmanager
def _only_process(root: Path, dataset: str, progress: Progress) -> Iterator[None]:
    """Wait until no other process prepares `dataset`. The lock dies with its process, the empty lock file stays."""
    folder = root / "rotated_mnist"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{dataset}.lock", "a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(f"waiting for another process that prepares {dataset} in {root}")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_builder(root: Path, dataset: str, setting: int, data_seed: int, progress: Progress | None = None):
    """The TFDS builder of one configuration."""
    # Here, not above: TFDS takes most of a second to import.
    import tensorflow_datasets as tfds

    from experiments.rotated_mnist.builder import RotatedMnist, RotatedMnistConfig

    tfds.disable_progress_bar()
    config = RotatedMnistConfig.create(dataset, setting, data_seed)
    # TFDS wants its own object where the configuration is one of those that it lists.
    config = RotatedMnist.builder_configs.get(config.name, config)
    return RotatedMnist(config=config, data_dir=root, progress=progress)


def _read_split(builder, split: str, expected_digest: str) -> Split:
    """Read a prepared split and compare it with its digest."""
    from experiments.rotated_mnist.records import ArrayDigest, read_records

    info = builder.info.splits[split]
    num_images = info.num_examples
    images = np.empty((num_images, IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8)
    labels, angles = np.empty(num_images, np.int32), np.empty(num_images, np.int32)
    read_records(info.filepaths[0], images, labels, angles)
    digest = ArrayDigest()
    digest.add(images, labels, angles)
    if digest.hexdigest() != expected_digest:
        raise ValueError(f"the {split} images differ from those that were prepared")
    return Split(images, labels, angles)
