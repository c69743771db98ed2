"""Rotating many images quickly: cubic-spline rotation as a sparse linear map, and the angles of the rotated copies.

A rotated pixel is a weighted sum of 4 x 4 spline coefficients around the place that it comes from, and the
coefficients are linear in the pixels. The coefficients are computed once for each image; each angle is then one
sparse matrix, 16 entries a row, that is applied to all images rotated by this angle.
"""

import functools
import hashlib

import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.special

from experiments.settings import COPIES_PER_IMAGE

MIN_ANGLE, NUM_ANGLES = -90, 180
"""Copies are rotated by whole degrees -90..89."""

_BLOCK = 4096  # Images rotated at once: large enough for speed, 26 MB of coefficients at 28 x 28.


def rotate_images(images: np.ndarray, angle: float) -> np.ndarray:
    """Rotate images about their centre: cubic spline, same size, zero outside, not clipped.

    Equals `scipy.ndimage.rotate(image, angle, reshape=False, cval=0)` of each image, float32 `[n, size, size]`. A
    positive angle, in degrees, rotates the way of `np.rot90(image)`. Values may over- and undershoot the input's.

    Raises:
      ValueError: the images are not square or the angle is not finite.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images must have the shape [n, size, size], not {images.shape}")
    if not np.isfinite(angle):
        raise ValueError(f"angle must be a finite number of degrees, not {angle}")
    matrix = rotation_matrix(images.shape[1], float(angle))
    rotated = np.empty(images.shape, np.float32)
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        coefficients = spline_coefficients(images[block])
        rotated[block] = (matrix @ coefficients.T).T.reshape(images[block].shape)
    return rotated


def rotated_copies(images: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Each image followed by its rotated copies, clipped and rounded to whole grey levels.

    uint8 `[n, size, size]`, degrees int32 `[n, copies]` -> uint8 `[n, 1 + copies, size, size]`.
    """
    num_images, num_copies = angles.shape
    size = images.shape[1]
    result = np.empty((num_images, 1 + num_copies, size * size), np.uint8)
    result[:, 0] = images.reshape(num_images, -1)
    coefficients = spline_coefficients(images)
    flat_angles = angles.ravel()
    order = np.argsort(flat_angles, kind="stable")
    present, starts = np.unique(flat_angles[order], return_index=True)
    for angle, chosen in zip(present, np.split(order, starts[1:]), strict=True):
        image, copy = np.divmod(chosen, num_copies)
        rotated = rotation_matrix(size, float(angle)) @ coefficients[image].T
        np.clip(rotated, 0, 255, out=rotated)
        result[image, 1 + copy] = np.rint(rotated, out=rotated).T
    return result.reshape(num_images, 1 + num_copies, size, size)


def copy_angles(data_seed: int, dataset: str, split: str, num_images: int) -> np.ndarray:
    """Angles of the rotated copies of the first `num_images` images of a split: int32 `[n, 4]`, degrees -90..89.

    The rule: the first 16 bytes of sha256 of the text `rotated_mnist/DATASET/SPLIT/DATA_SEED`, read as a
    little-endian number, are the key of a Philox 4x64 generator. Copy c of image i is its output number 4 i + c
    modulo 180, minus 90. Philox's output is fixed for ever: an angle depends on these five values, nothing else.
    """
    text = f"rotated_mnist/{dataset}/{split}/{data_seed}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw(num_images * COPIES_PER_IMAGE)
    angles = (raw % NUM_ANGLES).astype(np.int32) + MIN_ANGLE
    return angles.reshape(num_images, COPIES_PER_IMAGE)


INTERPOLATIONS = {"bilinear": 1, "cubic": 3}
"""Orders of the splines by which images are rotated by uniform angles."""


def uniform_angles(seed: int, num_images: int) -> np.ndarray:
    """Angles, uniform over the circle, of the first `num_images` images: float64 `[n]`, degrees from 0 up to 360.

    The rule: that of image i is output i of a Philox 4x64 generator with the key `seed`, over 2^64, times 360.
    """
    return np.random.Philox(key=seed).random_raw(num_images) / 2**64 * 360


def rotate_each(images: np.ndarray, angles: np.ndarray, order: int) -> np.ndarray:
    """Rotates each image by its own angle, clipped and rounded to whole grey levels.

    uint8 `[n, size, size]`, degrees `[n]` -> uint8 `[n, size, size]`: `scipy.ndimage.rotate(x, angle, reshape=False,
    order=order)`.
    """
    rotated = np.empty_like(images)
    for image, angle, result in zip(images.astype(np.float64), angles, rotated, strict=True):
        found = scipy.ndimage.rotate(image, angle, reshape=False, order=order)
        result[...] = np.rint(np.clip(found, 0, 255))
    return rotated


def spline_coefficients(images: np.ndarray) -> np.ndarray:
    """Coefficients of the cubic splines through images `[n, size, size]`: float64 `[n, size * size]`.

    In float64, because a stored copy is rounded to whole grey levels: summation order must not decide a rounding.
    """
    num_images, size, _ = images.shape
    filter_matrix = _spline_filter_matrix(size)
    along_rows = images.reshape(-1, size).astype(np.float64) @ filter_matrix.T
    return np.matmul(filter_matrix, along_rows.reshape(images.shape)).reshape(num_images, -1)


@functools.lru_cache(maxsize=16)
def _spline_filter_matrix(size: int) -> np.ndarray:
    """SciPy's spline filter along one axis, as a matrix: float64 `[size, size]`, read-only."""
    matrix = scipy.ndimage.spline_filter1d(np.eye(size), order=3, axis=0, mode="mirror")
    matrix.setflags(write=False)
    return matrix


@functools.lru_cache(maxsize=NUM_ANGLES)
def rotation_matrix(size: int, angle: float) -> scipy.sparse.csr_array:
    """The rotation as a sparse float64 matrix `[size^2, size^2]` from spline coefficients to pixels: 0.2 MB at 28."""
    # cosdg and sindg are exact at multiples of 90 degrees: quarter turns only move pixels.
    cosine, sine = scipy.special.cosdg(angle), scipy.special.sindg(angle)
    centre = (size - 1) / 2
    offset = np.arange(size) - centre
    row = cosine * offset[:, None] + sine * offset[None, :] + centre
    column = -sine * offset[:, None] + cosine * offset[None, :] + centre
    # SciPy's own: where a source lies on the image's border, the last bit decides.
    inside = scipy.ndimage.rotate(np.ones((size, size)), angle, reshape=False, order=0, cval=0) > 0.5
    row_index, row_weight = _spline_taps(row.ravel(), size)
    column_index, column_weight = _spline_taps(column.ravel(), size)
    weight = row_weight[:, :, None] * column_weight[:, None, :] * inside.reshape(-1, 1, 1)
    source = row_index[:, :, None] * size + column_index[:, None, :]
    target = np.repeat(np.arange(size * size), 16)
    matrix = scipy.sparse.csr_array((weight.ravel(), (target, source.ravel())), shape=(size * size, size * size))
    matrix.eliminate_zeros()
    return matrix


def _spline_taps(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights `[n, 4]` of the coefficients that make a cubic spline's value at `position` `[n]`."""
    first = np.floor(position)
    after = position - first
    before = 1 - after
    weight_1 = (after * after * (after - 2) * 3 + 4) / 6
    weight_2 = (before * before * (before - 2) * 3 + 4) / 6
    weight_0 = before**3 / 6
    weights = np.stack([weight_0, weight_1, weight_2, 1 - weight_0 - weight_1 - weight_2], axis=-1)
    # Beyond the border, coefficients are mirrored without repeating the border itself.
    period = max(2 * (size - 1), 1)
    index = np.abs(first.astype(np.int64)[:, None] + np.arange(-1, 3)) % period
    return np.minimum(index, period - index), weights
