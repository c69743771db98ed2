"""Getting the official files: placed by the user, kept from an earlier download, or over the network."""

import csv
import threading
from collections.abc import Callable
from pathlib import Path

import requests
from tensorflow_datasets.core.download import downloader, resource

from experiments.data.location import placed_directory
from experiments.data.sources import OFFICIAL_FILES, DataError, placed_files, read_embedded, read_official
from experiments.settings import Dataset

HOSTS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}

REACH_SECONDS = 3.0
"""How long to wait for a host before it counts as out of reach."""


def official_urls(dataset: str) -> dict[str, str]:
    """From official name to address."""
    return {name: f"{HOSTS[dataset]}{name}.gz" for name in OFFICIAL_FILES}


def find_placed(root: Path, dataset: str) -> dict[str, Path]:
    """The four files placed by the user, or an empty dictionary if there is none of them.

    Raises:
      DataError: some of the four are there and others are missing.
    """
    folder = placed_directory(root, dataset)
    found = placed_files(folder)
    missing = [name for name in OFFICIAL_FILES if name not in found]
    if found and missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)} (with or without .gz): put all four official files of {dataset} there"
        )
    return found


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


def way_out(root: Path, dataset: str) -> str:
    """What the user can do without a download."""
    names = ", ".join(f"{name}.gz" for name in OFFICIAL_FILES)
    return f"put {names} (unpacked files will do) into {placed_directory(root, dataset)}"


def check_source(root: Path, dataset: Dataset) -> None:
    """Checks what a preparation will read, before it writes anything.

    Raises:
      DataError: files that are wrong, or neither there nor downloadable.
    """
    if dataset.name == "mnist_5k":
        read_embedded(dataset)
    elif placed := find_placed(root, dataset.name):
        read_official(dataset, placed, f"replace it: {way_out(root, dataset.name)}")
    else:
        _check_available(root, dataset.name)


def _check_available(root: Path, dataset: str) -> None:
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
    downloader.MAX_RETRIES = 2  # TFDS's 10 take minutes before they say that the network is gone.
    try:
        return {name: Path(path) for name, path in download(official_urls(dataset)).items()}
    except Exception as error:  # TFDS raises bare errors of many libraries here.
        what = " ".join(str(error).split())[:200]
        raise DataError(
            f"{dataset} can't be downloaded ({type(error).__name__}: {what}): try again, or {way_out(root, dataset)}"
        ) from error
