"""In which type pixels are computed with, and how close two arrays of a type can be."""

import jax
import jax.numpy as jnp
import numpy as np


def computing_type(dtype) -> jnp.dtype:
    """The type for sums and products of pixels: float32, or `dtype` itself if it has more bits."""
    wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits >= 32
    return jnp.dtype(dtype) if wide else jnp.dtype(jnp.float32)


def widened(x) -> jax.Array:
    """Returns `x` in its `computing_type`: whole numbers would wrap, half precision overflows."""
    x = jnp.asarray(x)
    return x.astype(computing_type(x.dtype))


def narrowed(y: jax.Array, dtype) -> jax.Array:
    """Returns a result in the floating-point type that its input had; of whole numbers it stays as computed."""
    return y.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else y


def as_pixels(y: jax.Array, dtype) -> jax.Array:
    """Returns `y` in the type of an image: rounded to whole numbers of its range, where it has those."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return y.astype(dtype)
    if jnp.issubdtype(dtype, jnp.bool_):
        return y > 0.5
    low, high = (np.asarray(limit, dtype) for limit in (jnp.iinfo(dtype).min, jnp.iinfo(dtype).max))
    y = jnp.round(y)
    # The largest number may be none of y's type; above it the conversion would wrap.
    below, above = y <= float(low), y >= float(high)
    return jnp.where(below, low, jnp.where(above, high, jnp.where(below | above, 0.0, y).astype(dtype)))


def tolerance(*dtypes, least: float = 1e-5) -> float:
    """The relative rounding to allow: `least`, for float32, and 2 steps of the coarsest floating-point type.

    A sum in another order differs by about one step: half precision has 2^-10, bfloat16 2^-7.  Over all pixels two
    are enough (whole networks are measured at less), and a stride that does not fit is found: its error is 0.03 to 0.1.
    """
    steps = [float(jnp.finfo(dtype).eps) for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)]
    return max([least, *(2 * step for step in steps)])


def relative_error(actual: jax.Array, expected: jax.Array) -> jax.Array:
    """|actual - expected| / |expected|, Euclidean norms, 0 if both are equal; no square overflows."""
    actual, expected = widened(actual), widened(expected)
    common = jnp.result_type(actual, expected) if actual.dtype != expected.dtype else actual.dtype
    actual, expected = actual.astype(common), expected.astype(common)
    peak = jnp.maximum(_peak(actual), _peak(expected))
    _, exponent = jnp.frexp(jnp.where(jnp.isfinite(peak) & (peak > 0), peak, 1.0))
    scale = jnp.ldexp(jnp.ones((), peak.dtype), exponent - 1)  # a power of two: it rounds nothing
    difference, norm = _norm(actual / scale - expected / scale), _norm(expected / scale)
    return jnp.where(difference == 0.0, jnp.zeros_like(norm), difference / jnp.where(difference == 0.0, 1.0, norm))


def norm(x: jax.Array) -> jax.Array:
    """The Euclidean norm over everything, in float32 at least."""
    return _norm(widened(x))


def _norm(x):
    # At 0 the root has no derivative: 0 is taken.
    is_zero = jnp.all(x == 0.0)
    return jnp.where(is_zero, 0.0, jnp.linalg.norm(jnp.where(is_zero, 1.0, jnp.ravel(x))))


def _peak(x):
    return jnp.max(jnp.abs(x), initial=0.0)
