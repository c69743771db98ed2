"""The four official files as users place them: under whatever names, in whatever of the usual places.

A file is known by its first bytes or, where these say nothing, by its name; `sources` then checks all that is in it.
"""

import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from experiments.rules import InputError
from experiments.settings import DATASETS

IMAGE_SIZE = 28

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
OFFICIAL_FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

_GZIP = b"\x1f\x8b"
MOST_BYTES = 2**26
"""Larger than every official file, compressed or not; a larger file is not read."""


Source = dict[str, tuple[np.ndarray, np.ndarray]]
"""From the name of a split to its images, uint8 `[n, 28, 28]`, and labels, uint8 `[n]`."""


class DataError(InputError):
    """Data that is missing, damaged or not what it should be."""


def read_bytes(path: Path, most: int = MOST_BYTES, whole: bool = True) -> bytes:
    """The first `most` bytes of a file, uncompressed if it is gzipped, whatever its name.

    Raises:
      DataError: it cannot be read, or is larger than that and must be `whole` (the message is without the path).
    """
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == _GZIP
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if is_packed else file
            content = stream.read(most)
            if whole and stream.read(1):
                raise DataError(f"holds more than {most:,} bytes")
            return content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError("the gzip file is cut short or damaged") from error
    except OSError as error:
        raise DataError(f"can't be read ({error.strerror})") from error


def placed_directory(root: Path, dataset: str) -> Path:
    """Folder in which users place the four official files of `dataset`."""
    return root / "downloads" / "manual" / dataset


def way_out(root: Path, dataset: str) -> str:
    """What the user can do without a download."""
    names = ", ".join(f"{name}.gz" for name in OFFICIAL_FILES)
    return f"put {names} (unpacked files will do) into {placed_directory(root, dataset)}"


def placed_files(folder: Path, dataset: str = "mnist") -> dict[str, Path]:
    """The official files that a user placed in `folder` or below it: from official name to path.

    Raises:
      DataError: two different files pass for the same one, or the folder cannot be read.
    """
    return _sort(_files(folder), dataset)[0]


def find_placed(root: Path, dataset: str) -> dict[str, Path]:
    """The four files placed by the user, or an empty dictionary if nothing is there.

    Raises:
      DataError: some of the four are missing, beside others of them or files that are not understood.
    """
    for folder, paths, is_own in _places(root, dataset):
        found, others = _sort(paths, dataset)
        missing = [name for name in OFFICIAL_FILES if name not in found]
        if not missing:
            return found
        if found or (others and is_own):
            shown = ", ".join(repr(str(path.relative_to(folder))) for path in others[:8]) + ", ..." * (len(others) > 8)
            raise DataError(
                f"{folder} lacks {', '.join(missing)} (with or without .gz)"
                + (f" and holds what is not understood: {shown}" if others and is_own else "")
                + f"; put all four official files of {dataset} there, unpacked from any archive but .gz"
            )
    return {}


def _places(root, dataset) -> Iterator[tuple[Path, Iterable[Path], bool]]:
    """Where the files may be: (folder, the files in it, whether it is for them alone)."""
    own = placed_directory(root, dataset)
    yield own, _files(own), True
    # Names that torchvision and users give; TFDS's own data sets beside them may have the same.
    names = {dataset, dataset.replace("_", ""), dataset.replace("_", "-")}
    for parent in (own.parent, root / "downloads", root):
        below = _entries(parent)
        for folder in below:
            if folder.name.lower() in names and folder.is_dir() and folder != own:
                yield folder, _files(folder), parent == own.parent
        # The files of the other data sets have the same names.
        if dataset == "mnist":
            yield parent, [path for path in below if _named(path.name) and path.is_file()], False


def _entries(folder):
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _sort(paths, dataset) -> tuple[dict[str, Path], list[Path]]:
    """Official files, by what their first bytes say or else by their names, and all others."""
    candidates, others = {}, []
    for path in paths:
        if name := _recognised(path, dataset) or _named(path.name):  # exchanged names do not matter
            candidates.setdefault(name, []).append(path)
        else:
            others.append(path)
    return {name: _only(name, paths) for name, paths in candidates.items()}, others


def _files(folder) -> list[Path]:
    """What is in a folder and below it, without what systems hide; an empty folder counts where it has a file's name.

    Raises:
      DataError: a folder that cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{folder} can't be read ({error.strerror}): make it a folder with the four files") from error
    found = []
    for path in paths:
        if path.name.startswith((".", "__MACOSX")) or path.name.lower() in ("thumbs.db", "desktop.ini"):
            continue
        is_folder = path.is_dir() and not path.is_symlink()
        below = _files(path) if is_folder else [path]
        found += below or [path] * bool(_named(path.name))
    return found


def _named(name):
    """The official file that a name stands for, as programs write it: 7-zip's has a dot, others are in capitals."""
    plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\.gz$", "", name.lower()))
    return plain if plain in OFFICIAL_FILES else None


def _recognised(path, dataset):
    """Recognises an official file by its first bytes, which state the kind, number and size of its arrays."""
    try:
        head = read_bytes(path, 16, whole=False) if path.is_file() else b""
    except DataError:
        return None
    facts = DATASETS[dataset]
    counts = {"train": facts.num_train + facts.num_validation, "t10k": facts.num_test}
    for name in OFFICIAL_FILES:
        shape = (counts[name.split("-")[0]], IMAGE_SIZE, IMAGE_SIZE)[: 3 if "images" in name else 1]
        if head.startswith(b"\x00\x00\x08" + bytes([len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)):
            return name
    return None


def _only(name, paths):
    """Chooses among files recognised as the same one: an unpacked one, if their contents agree."""
    paths = sorted(paths, key=lambda path: (path.suffix == ".gz", len(path.parts), os.fspath(path)))
    if len(paths) > 1 and all(path.is_file() for path in paths):
        try:
            if len({read_bytes(path) for path in paths}) > 1:
                raise DataError("they differ")
        except DataError as error:
            shown = " and ".join(map(str, paths[:2]))
            raise DataError(f"{shown} both pass for {name}, and one is wrong ({error}): remove that one") from error
    return paths[0]
