"""Turning images and fields.

A turn R by an angle acts on an image by turning its pixels; on a field `[batch, height, width,
t, channel]` by turning its pixels and moving rotation o to o + angle t / 360 (cyclic).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from fconv_jax._checks import finite
from fconv_jax._precision import as_pixels, computing_type, widened
from fconv_jax.pooling import disk_mask


def rotate_image(images: jax.Array, angle: float) -> jax.Array:
    """Turns images about their centre, the way of `jnp.rot90` for a positive angle.

        y[i, j] = sum_{u, v} beta(p - u) beta(q - v) c[u, v],
        p = C_h + cos(a) (i - C_h) + sin(a) (j - C_w),   q = C_w - sin(a) (i - C_h) + cos(a) (j - C_w),

    with the centre C = (size - 1) / 2, the cubic B-spline beta and the coefficients c whose
    spline passes through the pixels (mirrored at the borders); zero where (p, q) is outside.
    This is `scipy.ndimage.rotate(..., reshape=False)`.  Multiples of 90 degrees are exact
    (`jnp.rot90`; they swap the sides of an image that is not square).  Linear in the images.

    Args:
      images: `[batch, height, width, channel]`.
      angle: degrees, a finite number (not traced).

    Returns:
      the shape and type of `images`; whole numbers are rounded and kept in their type's range.

    Raises:
      ValueError: another number of axes, an angle that is not finite, or a side below two pixels.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.rotate_image(jnp.arange(4.0).reshape(1, 2, 2, 1), 90)[0, :, :, 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images of shape {images.shape} must be [batch, height, width, channel]")
    return _rotate_pixels(images, finite("angle", angle, "number of degrees"))


def rotate_features(field: jax.Array, angle: float) -> jax.Array:
    """Turns a field: its pixels by `angle` (as `rotate_image`), and rotation o moves to o + angle t / 360 (cyclic).

    Args:
      field: `[batch, height, width, t, channel]`, or `[batch, t, channel]` after pooling over space.
      angle: degrees, a multiple of 360 / t.

    Returns:
      the shape and type of `field`.

    Raises:
      ValueError: another number of axes, or an angle that is not a whole number of the t steps.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.rotate_features(jnp.arange(4.0).reshape(1, 4, 1), 90)[0, :, 0].tolist()
    [3.0, 0.0, 1.0, 2.0]
    """
    field = jnp.asarray(field)
    if field.ndim not in (3, 5):
        raise ValueError(
            f"field of shape {field.shape} must be [batch, height, width, t, channel] or [batch, t, channel]"
        )
    angle = finite("angle", angle, "number of degrees")
    num_rotations = field.shape[-2]
    steps = angle * num_rotations / 360.0
    if not math.isclose(steps, round(steps), abs_tol=1e-6):
        raise ValueError(
            f"angle (={angle:g}) must be a multiple of 360 / {num_rotations} = {360 / num_rotations:g} degrees "
            f"to move the {num_rotations} rotations of a field"
        )
    shifted = jnp.roll(field, round(steps), axis=-2)
    if field.ndim == 3:
        return shifted
    pixels = shifted.reshape(*field.shape[:3], math.prod(field.shape[3:]))
    turned = _rotate_pixels(pixels, angle)
    return turned.reshape(*turned.shape[:3], *field.shape[3:])


def rotate_vectors(vectors: jax.Array, angle: float) -> jax.Array:
    """Rotates vectors: their pixels by `angle` (as `rotate_image`) and, at each pixel, their two components.

        y[.., 0, c] = cos(a) v[.., 0, c] - sin(a) v[.., 1, c],   y[.., 1, c] = sin(a) v[.., 0, c] + cos(a) v[.., 1, c],

    v the vectors with rotated pixels: the gradient of a rotated image is the rotated gradient of the image.
    Multiples of 90 degrees are exact.

    Args:
      vectors: `[batch, height, width, 2, channel]`, or `[batch, 2, channel]` without pixels; components along rows
        and along columns, as `jnp.gradient(image, axis=(1, 2))`.
      angle: degrees, a finite number (not traced).

    Returns:
      the shape and type of `vectors`.

    Raises:
      ValueError: another number of axes or of components, or an angle that is not finite.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.rotate_vectors(jnp.array([[[1.0], [0.0]]]), 90)[0, :, 0].tolist()  # down becomes to the right
    [0.0, 1.0]
    """
    vectors = jnp.asarray(vectors)
    if vectors.ndim not in (3, 5) or vectors.shape[-2] != 2:
        raise ValueError(
            f"vectors of shape {vectors.shape} must be [batch, height, width, 2, channel] or [batch, 2, channel]"
        )
    angle = finite("angle", angle, "number of degrees")
    exact = angle % 90 == 0
    cos, sin = (f(math.radians(angle)) for f in (math.cos, math.sin))
    cos, sin = (round(cos), round(sin)) if exact else (cos, sin)
    pixels = vectors if exact else widened(vectors)
    if vectors.ndim == 5:
        pixels = _rotate_pixels(pixels.reshape(*vectors.shape[:3], 2 * vectors.shape[-1]), angle)
        pixels = pixels.reshape(*pixels.shape[:3], *vectors.shape[3:])
    rows, columns = pixels[..., 0, :], pixels[..., 1, :]
    rotated = jnp.stack([cos * rows - sin * columns, sin * rows + cos * columns], axis=-2)
    return as_pixels(rotated, vectors.dtype)


def inside_disk(x: jax.Array, margin: float | None) -> jax.Array:
    """An image or a field times `disk_mask(size, margin)`; everything else, or without a margin, as it is.

    Raises:
      ValueError: a disk for an image that is not square.
    """
    x = jnp.asarray(x)
    if margin is None or x.ndim < 4:
        return x
    if x.shape[1] != x.shape[2]:
        raise ValueError(f"a disk needs square images, not {x.shape[1]} x {x.shape[2]}")
    mask = disk_mask(x.shape[1], margin)
    mask = mask.reshape((1, *mask.shape) + (1,) * (x.ndim - 3))
    # A mask in an integer's type is 0 or 1.
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else widened(x)
    return x * mask.astype(x.dtype)


def _rotate_pixels(pixels, angle):
    if angle % 90.0 == 0.0:
        return jnp.rot90(pixels, round(angle / 90.0), axes=(1, 2))
    height, width = pixels.shape[1:3]
    if not (isinstance(height, int) and isinstance(width, int)):  # a symbol of `jax.export`
        raise ValueError(f"images of {height} x {width} pixels turn by multiples of 90 degrees only, not {angle:g}")
    # A float32 result needs no more than float32 weights, but bfloat16 coefficients would lose the image.
    dtype = computing_type(pixels.dtype)
    coefficients = jnp.einsum(
        "ui,vj,bijc->buvc",
        _spline_filter(height).astype(dtype),
        _spline_filter(width).astype(dtype),
        pixels.astype(dtype),
        precision=jax.lax.Precision.HIGHEST,
    )
    flat = coefficients.reshape(pixels.shape[0], height * width, pixels.shape[3])
    places, weights = _spline_taps(height, width, angle)
    taps = [flat[:, place] * weight.astype(dtype)[None, :, None] for place, weight in zip(places, weights, strict=True)]
    turned = functools.reduce(jnp.add, taps)
    return as_pixels(turned.reshape(pixels.shape), pixels.dtype)


@functools.lru_cache(maxsize=64)
def _spline_filter(size):
    """The matrix `[size, size]` from pixels to cubic B-spline coefficients, mirrored about the outer pixels."""
    if size < 2:
        raise ValueError(f"an image side of {size} cannot be turned by this angle: it needs at least 2 pixels")
    samples = np.diag(np.full(size, 4.0)) + np.diag(np.ones(size - 1), 1) + np.diag(np.ones(size - 1), -1)
    samples[0, 1] += 1.0
    samples[-1, -2] += 1.0
    return np.linalg.inv(samples / 6.0)


@functools.lru_cache(maxsize=64)
def _spline_taps(height, width, angle):
    """For each of 4 x 4 taps, where it reads `[height width]` and its weight, float64; zero outside the image."""
    turn = math.radians(angle)
    centre_i, centre_j = (height - 1) / 2, (width - 1) / 2
    i, j = np.meshgrid(np.arange(height) - centre_i, np.arange(width) - centre_j, indexing="ij")
    p = centre_i + math.cos(turn) * i + math.sin(turn) * j
    q = centre_j - math.sin(turn) * i + math.cos(turn) * j
    inside = (p >= 0) & (p <= height - 1) & (q >= 0) & (q <= width - 1)
    places, weights = [], []
    for row, row_weight in _cubic_taps(p, height):
        for column, column_weight in _cubic_taps(q, width):
            places.append((row * width + column).ravel())
            weights.append((row_weight * column_weight * inside).ravel())
    return places, weights


def _cubic_taps(position, size):
    """The four neighbours of each position, mirrored into the image, and the B-spline's weight at each."""
    first = np.floor(position).astype(int) - 1
    for neighbour in (first + offset for offset in range(4)):
        d = np.abs(position - neighbour)
        weight = np.where(d < 1.0, 2.0 / 3.0 - d**2 + d**3 / 2.0, np.maximum(2.0 - d, 0.0) ** 3 / 6.0)
        folded = np.abs(neighbour) % (2 * size - 2)
        yield np.where(folded < size, folded, 2 * size - 2 - folded), weight
