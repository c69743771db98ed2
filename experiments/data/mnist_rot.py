"""mnist-rot, the field's own data set of rotated digits (12,000 and 50,000), read from its files, and one made like it.

Source: H. Larochelle, D. Erhan, A. Courville, J. Bergstra, Y. Bengio, An Empirical Evaluation of Deep Architectures on
Problems with Many Factors of Variation, ICML 2007: digits of MNIST, each rotated by an angle uniform over the circle.
The first 10,000 images of the training file are the training images, the other 2,000 the validation images.
"""

import functools
import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.data.files import IMAGE_SIZE, DataError, Source, placed_directory, read_bytes
from experiments.data.rotation import INTERPOLATIONS, rotate_each, uniform_angles
from experiments.settings import SPLITS, Dataset

ZIP_BYTES, ZIP_MD5 = 58_424_278, "0f9a947ff3d30e95cd685462cbf3b847"
"""Of the official mnist_rotation_new.zip."""
TRAIN_AMAT = "mnist_all_rotation_normalized_float_train_valid.amat"
TEST_AMAT = "mnist_all_rotation_normalized_float_test.amat"
ZIP = "mnist_rotation_new.zip"
# Converted copies in circulation: their files, one for each split, and the names of images and labels in them.
_NPZ = tuple(tuple(f"{prefix}{name}.npz" for name in ("train", "valid", "test")) for prefix in ("rotated_", ""))
_ARRAYS = (("x", "y"), ("data", "labels"))
_MOST_BYTES = 2**30
"""More than any of the files has."""
_ROUNDING = 1e-5  # of pixels: resampling and float32 may leave a little more than 1
_TOGETHER = 2_000  # images whose moments are computed at a time: 50,000 at once would take gigabytes


def way_out(root: Path) -> str:
    """What the user can do: nothing downloads these files."""
    return (
        f"put {ZIP}, its two .amat files, or rotated_train.npz, rotated_valid.npz and rotated_test.npz (or train.npz, "
        "valid.npz and test.npz; arrays x and y, or data and labels) "
        f"into {placed_directory(root, 'mnist_rot')}, or use --dataset mnist_rot_like"
    )


def read(root: Path, dataset: Dataset, upright: Source, progress: Callable[[str], None] = print) -> Source:
    """Reads mnist-rot from whichever of its forms the user has placed.

    In some copies every image is transposed, which mirrors the digits: found by `is_transposed`, said, and undone.

    Args:
      root: the data directory.
      dataset: the numbers of images that there must be.
      upright: digits whose orientation is known, of all classes (`is_transposed`).
      progress: called with a line of text.

    Raises:
      DataError: no files, or files that are not what they should be.
    """
    folder = placed_directory(root, "mnist_rot")
    states = {str(path.relative_to(folder)): path.stat() for path in folder.rglob("*") if path.is_file()}
    files = tuple(sorted((name, state.st_size, state.st_mtime_ns) for name, state in states.items()))
    source: Source | None = _placed(folder, dataset, files)
    if source is None:
        others = f" (which holds {', '.join(sorted(states))})" if states else ""
        raise DataError(f"mnist_rot is not in {folder}{others}: {way_out(root)}")
    for split, (images, labels) in source.items():
        expected = dataset.num_upright(split)
        if images.shape != (expected, IMAGE_SIZE, IMAGE_SIZE) or labels.shape != (expected,):
            raise DataError(f"{folder}: {split} has {len(images):,} images instead of {expected:,}; {way_out(root)}")
        if labels.max() >= dataset.num_classes:
            raise DataError(f"{folder}: {split} has the label {labels.max()}, labels are 0 to 9; {way_out(root)}")
    mirrored = [split for split, part in source.items() if is_transposed(*part, *upright["train"])]
    if mirrored:
        which = "" if len(mirrored) == len(source) else f" ({', '.join(mirrored)})"
        progress(f"the images in {folder} are transposed{which} (their digits are mirrored): they are put right")
    return {
        split: (images.swapaxes(1, 2) if split in mirrored else images, labels)
        for split, (images, labels) in source.items()
    }


@functools.lru_cache(maxsize=1)  # checked first, then prepared: the texts take half a minute to read
def _placed(folder, dataset, _files) -> Source | None:
    """The three splits, or None if nothing is there; `_files`: what is in the folder and below it, as it is now."""
    official = _place(folder, ZIP)
    if official:
        return _read_zip(official, dataset)
    beside = _place(folder, TRAIN_AMAT, TEST_AMAT)
    if beside:
        paths = [beside.with_name(name) for name in (TRAIN_AMAT, TEST_AMAT)]
        train_valid, test = (_read_amat(path, _bytes(path)) for path in paths)
        return _split(train_valid, test, dataset)
    for names in _NPZ:
        beside = _place(folder, *names)
        if beside:
            found = [_read_npz(beside.with_name(name)) for name in names]
            return {str(split): part for split, part in zip(SPLITS, found, strict=True)}
    return None


def _place(folder, *names):
    """The first file of one of these names, in the folder or below it: archives unpack into folders of their own."""
    found = (path for name in names for path in folder.rglob(name) if path.is_file())
    return min(found, key=lambda path: (len(path.parts), path), default=None)


def _bytes(path):
    try:
        return read_bytes(path, _MOST_BYTES)
    except DataError as error:
        raise DataError(f"{path} {error}: mnist_rot needs it beside the others") from error


def _read_zip(path, dataset):
    content = _bytes(path)
    if len(content) != ZIP_BYTES or hashlib.md5(content, usedforsecurity=False).hexdigest() != ZIP_MD5:
        raise DataError(
            f"{path} is not the official file of {ZIP_BYTES:,} bytes with the MD5 {ZIP_MD5}: replace or remove it"
        )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = {Path(name).name: name for name in archive.namelist()}
        contents = [archive.read(found[name]) for name in (TRAIN_AMAT, TEST_AMAT)]
    train_valid, test = (_read_amat(path, content) for content in contents)
    return _split(train_valid, test, dataset)


def _read_amat(path, content):
    """A text of numbers, 784 pixels from 0 to 1 and a label a line: images and labels."""
    if not content.strip():
        raise DataError(f"{path} is empty: replace it")
    try:
        table = np.loadtxt(io.BytesIO(content), dtype=np.float32, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path} is no table of numbers: replace it") from error
    if table.shape[1] != IMAGE_SIZE**2 + 1:
        raise DataError(f"{path} has {table.shape[1]} numbers a line instead of {IMAGE_SIZE**2 + 1}: replace it")
    return _checked(path, table[:, :-1], table[:, -1])


def _read_npz(path):
    content = io.BytesIO(_bytes(path))
    try:
        with zipfile.ZipFile(content) as archive:
            if (unpacked := sum(member.file_size for member in archive.infolist())) > _MOST_BYTES:
                raise DataError(f"{path} would unpack to {unpacked:,} bytes: replace it")
        content.seek(0)
        with np.load(content, allow_pickle=False) as arrays:
            names = next(pair for pair in _ARRAYS if set(pair) <= set(arrays.files))
            found = [np.asarray(arrays[name]) for name in names]
    except DataError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen kinds for damaged files
        pairs = ", or ".join(f"{images!r} and {labels!r}" for images, labels in _ARRAYS)
        raise DataError(f"{path} does not hold {pairs}, arrays of numbers: replace it") from error
    return _checked(path, *found)


def _checked(path, images, labels):
    """uint8 images and labels."""
    if not all(array.size and array.dtype.kind in "fiub" for array in (images, labels)):
        raise DataError(f"{path} holds no numbers: replace it")
    if labels.size != max(labels.shape, default=1):
        shape = "x".join(map(str, labels.shape))
        raise DataError(f"{path} has labels of shape {shape}, not one number for each image: replace it")
    most = 1 if images.dtype == np.uint8 else 127  # whole numbers up to this are no grey levels
    if most < images.max() <= 255 and (images == np.rint(images)).all():
        images = images / np.float32(255)
    with np.errstate(over="ignore"):
        images, labels = images.astype(np.float32), labels.astype(np.float32).reshape(-1)
    if not (np.isfinite(images).all() and images.min() >= -_ROUNDING and images.max() <= 1 + _ROUNDING):
        raise DataError(f"{path} has pixels that are not from 0 to 1, nor grey levels: replace it")
    if (labels != np.rint(labels)).any() or labels.min() < 0 or labels.max() > np.iinfo(np.uint8).max:
        raise DataError(f"{path} has labels that are not whole numbers from 0 to 9: replace it")
    if images.size != len(labels) * IMAGE_SIZE**2:
        raise DataError(f"{path} has {images.size:,} pixels for {len(labels):,} labels: replace it")
    square = (IMAGE_SIZE, IMAGE_SIZE)
    if images.shape[1:] not in ((IMAGE_SIZE**2,), square, (1, *square), (*square, 1)):
        shape = "x".join(map(str, images.shape))
        raise DataError(f"{path} has images of shape {shape}, not {len(labels)} rows of pixels or squares: replace it")
    levels = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
    if not 0 < levels.mean() < 255 / 2:
        raise DataError(f"{path} has no light digits on a dark ground: replace it")
    return levels.reshape(-1, IMAGE_SIZE, IMAGE_SIZE), labels.astype(np.uint8)


def _split(train_valid, test, dataset):
    first = dataset.num_train
    images, labels = train_valid
    return {"train": (images[:first], labels[:first]), "validation": (images[first:], labels[first:]), "test": test}


def is_transposed(images: np.ndarray, labels: np.ndarray, upright: np.ndarray, upright_labels: np.ndarray) -> bool:
    """Whether digits, each at any angle, are mirror images of what digits of their classes should be.

    With the central complex moments c_pq = sum (x + i y)^p (x - i y)^q f of an image f, Im(c_20 c_12^2) stays as it is
    under rotations and changes its sign under reflections (J. Flusser, T. Suk, B. Zitova, Moments and Moment Invariants
    in Pattern Recognition, 2009).  Its mean in each class is compared with that of digits whose orientation is known.

    Args:
      images: uint8 `[n, size, size]`.
      labels: 0 to 9.
      upright: digits whose orientation is known, uint8 `[m, size, size]`.
      upright_labels: theirs.
    """
    mean = [
        np.array([handed[of == label].mean() if (of == label).any() else 0.0 for label in range(10)])
        for handed, of in ((_handedness(images), labels), (_handedness(upright), upright_labels))
    ]
    return float(mean[0] @ mean[1]) < 0


def _handedness(images):
    """Im(c_20 c_12^2), made independent of an image's size and brightness, `[n]`."""
    return np.concatenate([_moments(images[i : i + _TOGETHER]) for i in range(0, len(images), _TOGETHER)])


def _moments(images):
    weights = images.astype(np.float64).reshape(len(images), -1)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1)
    rows, columns = (axis.ravel() for axis in np.indices(images.shape[1:]))
    places = columns + 1j * rows
    z = places - (weights @ places)[:, None]
    c20, c12 = (weights * z**2).sum(1), (weights * z * np.conj(z) ** 2).sum(1)
    spread = (weights * np.abs(z) ** 2).sum(1)
    return np.imag(c20 * c12**2) / np.maximum(spread, 1e-12) ** 4


def make_like(dataset: Dataset, mnist: Source, data_seed: int) -> Source:
    """Digits of MNIST, each rotated by an angle uniform over the circle: like mnist-rot, from other angles and draws.

    The rule: MNIST's 70,000 digits (training, validation, test, in its order), permuted by NumPy's `default_rng(0)`;
    the first 10,000 are for training, the next 2,000 for validation, the next 50,000 for the test, whatever the data
    seed.  Image i of all is rotated by `uniform_angles(data_seed, ...)[i]`, bilinearly, rounded to whole grey levels.
    """
    in_order = [mnist[split] for split in ("validation", "train", "test")]
    images, labels = (np.concatenate(parts) for parts in zip(*in_order, strict=True))
    sizes = [dataset.num_upright(split) for split in SPLITS]
    chosen = np.random.default_rng(0).permutation(len(labels))[: sum(sizes)]
    angles = uniform_angles(data_seed, len(chosen))
    rotated = rotate_each(images[chosen], angles, INTERPOLATIONS["bilinear"])
    ends = np.cumsum(sizes)[:-1]
    parts = zip(np.split(rotated, ends), np.split(labels[chosen], ends), strict=True)
    return {str(split): part for split, part in zip(SPLITS, parts, strict=True)}
