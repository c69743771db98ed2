"""Rotating and mirroring images, fields and vectors.

A transformation moves an image's pixels.  On a field `[batch, height, width, g, channel]` it also moves the group axis,
(g f)[h] = f[g^-1 h]; of vectors `[batch, height, width, 2, channel]` it also rotates or mirrors the components.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from fconv_jax._checks import finite
from fconv_jax._precision import as_pixels, computing_type, widened
from fconv_jax.group import Group, as_group
from fconv_jax.pooling import disk_mask


def rotate_image(images: jax.Array, angle: float) -> jax.Array:
    """Rotates images about their centre, the way of `jnp.rot90` for a positive angle.

        y[i, j] = sum_{u, v} beta(p - u) beta(q - v) c[u, v],
        p = C_h + cos(a) (i - C_h) + sin(a) (j - C_w),   q = C_w - sin(a) (i - C_h) + cos(a) (j - C_w),

    with the centre C = (size - 1) / 2, the cubic B-spline beta and the coefficients c whose
    spline passes through the pixels (mirrored at the borders); zero where (p, q) is outside.
    This is `scipy.ndimage.rotate(..., reshape=False)`, except that a (p, q) on the very border is
    always inside.  Multiples of 90 degrees are exact
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


def rotate_field(field: jax.Array, angle: float, group: Group | int | None = None) -> jax.Array:
    """Rotates a field: its pixels by `angle` (as `rotate_image`), and element o to o + angle t / 360, in each half.

        (g f)[h] = f[g^-1 h]

    Args:
      field: `[batch, height, width, g, channel]`, or `[batch, g, channel]` after pooling over space.
      angle: degrees, a multiple of 360 / t.
      group: the field's; `None` means g rotations.

    Returns:
      the shape and type of `field`.

    Raises:
      ValueError: another number of axes or another group, or an angle that is not a whole number of the t steps.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.rotate_field(jnp.arange(4.0).reshape(1, 4, 1), 90)[0, :, 0].tolist()
    [3.0, 0.0, 1.0, 2.0]
    """
    field = jnp.asarray(field)
    group = _group_of(field, group)
    angle, t = finite("angle", angle, "number of degrees"), group.num_rotations
    steps = angle * t / 360.0
    if not math.isclose(steps, round(steps), abs_tol=1e-6):
        raise ValueError(
            f"angle (={angle:g}) must be a multiple of 360 / {t} = {360 / t:g} degrees "
            f"to move the {t} rotations of a field"
        )
    angle = round(steps) * 360.0 / t
    halves = [field[..., i : i + t, :] for i in range(0, group.order, t)]
    moved = jnp.concatenate([jnp.roll(half, round(steps), axis=-2) for half in halves], axis=-2)
    return moved if field.ndim == 3 else _each_channel(moved, functools.partial(_rotate_pixels, angle=angle))


def rotate_vectors(vectors: jax.Array, angle: float) -> jax.Array:
    """Rotates vectors: their pixels by `angle` (as `rotate_image`), and each vector itself.

        (rows, columns) -> (cos(a) rows - sin(a) columns, sin(a) rows + cos(a) columns)

    Args:
      vectors: `[batch, height, width, 2, channel]`, or `[batch, 2, channel]` without pixels; components along rows
        and along columns.
      angle: degrees, a finite number (not traced).

    Returns:
      the shape and type of `vectors`.

    Raises:
      ValueError: another shape, or an angle that is not finite.

    >>> import jax.numpy as jnp, fconv_jax
    >>> right = jnp.array([0.0, 1.0]).reshape(1, 1, 1, 2, 1)
    >>> fconv_jax.rotate_vectors(right, 90).ravel().tolist()  # up
    [-1.0, 0.0]
    """
    vectors, angle = _checked_vectors(jnp.asarray(vectors)), finite("angle", angle, "number of degrees")
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    exact = angle % 90 == 0
    y = vectors if exact and _has_sign(vectors) else widened(vectors)
    y = y if y.ndim == 3 else _each_channel(y, functools.partial(_rotate_pixels, angle=angle))
    rows, columns = y[..., 0, :], y[..., 1, :]
    if exact:  # without products: 0 times infinity is not 0
        for _ in range(int(angle // 90) % 4):
            rows, columns = -columns, rows
        return as_pixels(jnp.stack([rows, columns], -2), vectors.dtype)
    return as_pixels(jnp.stack([cosine * rows - sine * columns, sine * rows + cosine * columns], -2), vectors.dtype)


def mirror_image(images: jax.Array) -> jax.Array:
    """Mirrors images `[batch, height, width, channel]`: columns reversed."""
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images of shape {images.shape} must be [batch, height, width, channel]")
    return jnp.flip(images, axis=2)


def mirror_field(field: jax.Array, group: Group | int) -> jax.Array:
    """Mirrors a field: columns reversed, and its group axis moved, (g f)[h] = f[g^-1 h] with g the mirror.

    Args:
      field: `[batch, height, width, g, channel]`, or `[batch, g, channel]` after pooling over space.
      group: the field's, with reflections.

    Raises:
      ValueError: another number of axes or another group, or a group without reflections.

    >>> import jax.numpy as jnp, fconv_jax
    >>> group = fconv_jax.Group(4, reflections=True)
    >>> fconv_jax.mirror_field(jnp.arange(8.0).reshape(1, 8, 1), group)[0, :, 0].tolist()
    [4.0, 7.0, 6.0, 5.0, 0.0, 3.0, 2.0, 1.0]
    """
    field = jnp.asarray(field)
    group = _group_of(field, group)
    if not group.reflections:
        raise ValueError(f"group (={group}) must have reflections: a field of rotations alone has no mirror image")
    moved = jnp.stack([field[..., e, :] for e in group.product[group.num_rotations].tolist()], axis=-2)
    return moved if field.ndim == 3 else jnp.flip(moved, axis=2)


def mirror_vectors(vectors: jax.Array) -> jax.Array:
    """Mirrors vectors `[batch, height, width, 2, channel]`: columns reversed, and the component along them negated."""
    vectors = _checked_vectors(jnp.asarray(vectors))
    y = vectors if vectors.ndim == 3 else jnp.flip(vectors, axis=2)
    negative = -y[..., 1:, :] if _has_sign(y) else as_pixels(-widened(y[..., 1:, :]), y.dtype)
    return jnp.concatenate([y[..., :1, :], negative], axis=-2)


def _group_of(field, group):
    if field.ndim not in (3, 5):
        raise ValueError(
            f"field of shape {field.shape} must be [batch, height, width, group, channel] or [batch, group, channel]"
        )
    group = as_group(field.shape[-2] if group is None else group)
    if field.shape[-2] != group.order:
        raise ValueError(f"field of shape {field.shape} must have {group.order} elements for {group}")
    return group


def _has_sign(vectors):
    """Whether the type has negative numbers; in one that has none they become 0, and do not wrap.

    A short whole number is computed in float32: it may be the least one, whose negative would wrap.
    """
    is_whole = jnp.issubdtype(vectors.dtype, jnp.signedinteger) and jnp.iinfo(vectors.dtype).bits >= 32
    return is_whole or jnp.issubdtype(vectors.dtype, jnp.inexact)


def _checked_vectors(vectors):
    if vectors.ndim not in (3, 5) or vectors.shape[-2] != 2:
        raise ValueError(
            f"vectors of shape {vectors.shape} must be [batch, height, width, 2, channel] or [batch, 2, channel]"
        )
    return vectors


def _each_channel(x, function):
    """Applies a function of images to the pixels of `[batch, height, width, ., channel]`."""
    y = function(x.reshape(*x.shape[:3], math.prod(x.shape[3:])))
    return y.reshape(*y.shape[:3], *x.shape[3:])


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
        raise ValueError(f"images of {height} x {width} pixels rotate by multiples of 90 degrees only, not {angle:g}")
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
    rotated = functools.reduce(jnp.add, taps)
    return as_pixels(rotated.reshape(pixels.shape), pixels.dtype)


@functools.lru_cache(maxsize=64)
def _spline_filter(size):
    """The matrix `[size, size]` from pixels to cubic B-spline coefficients, mirrored about the outer pixels."""
    if size < 2:
        raise ValueError(f"an image side of {size} cannot be rotated by this angle: it needs at least 2 pixels")
    samples = np.diag(np.full(size, 4.0)) + np.diag(np.ones(size - 1), 1) + np.diag(np.ones(size - 1), -1)
    samples[0, 1] += 1.0
    samples[-1, -2] += 1.0
    return np.linalg.inv(samples / 6.0)


@functools.lru_cache(maxsize=8)  # 256 bytes a pixel each
def _spline_taps(height, width, angle):
    """For each of 4 x 4 taps, where it reads `[height width]` and its weight, float64; zero outside the image."""
    radians = math.radians(angle)
    centre_i, centre_j = (height - 1) / 2, (width - 1) / 2
    i, j = np.meshgrid(np.arange(height) - centre_i, np.arange(width) - centre_j, indexing="ij")
    p = centre_i + math.cos(radians) * i + math.sin(radians) * j
    q = centre_j - math.sin(radians) * i + math.cos(radians) * j
    # A point on the border is inside, whatever the last digit of its sine.
    p, q = (np.where(np.abs(x - np.clip(x, 0, end)) < 1e-9, np.clip(x, 0, end), x)
            for x, end in ((p, height - 1), (q, width - 1)))  # fmt: skip
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
