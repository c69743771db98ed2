"""How well a function keeps turns, and where a network loses them.

R turns images and fields as `fconv_jax.transforms` says.  A function f is equivariant if f(R x) = R f(x),
invariant if f(R x) = f(x).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fconv_jax._checks import finite
from fconv_jax._precision import relative_error, widened
from fconv_jax._precision import tolerance as tolerance_of
from fconv_jax.auditing import TOLERANCE, Audit, StageReport, audit
from fconv_jax.transforms import inside_disk, rotate

__all__ = [
    "TOLERANCE",
    "Audit",
    "StageReport",
    "assert_equivariant",
    "audit",
    "equivariance_error",
]


def equivariance_error(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, angle: float = 90, *, margin: float | None = None
) -> jax.Array:
    """Returns |f(R x) - R f(x)| / |f(x)|, R the turn by `angle`, | | the Euclidean norm over everything.

    What R does follows from the number of axes, of the input as of the output: an image (4) is
    turned, a field (5) is turned and its rotations are moved, `[batch, t, channel]` (3) is moved,
    and `[batch, ...]` with two axes or one is left alone (there equivariant means invariant).

    Args:
      function: f, from an image or a field; deterministic.
      x: `[batch, height, width, channel]` or `[batch, height, width, t, channel]`.
      angle: degrees.  Multiples of 90 turn pixels exactly; other angles interpolate, which itself
        costs something, and lose the corners (see `margin`); for them whole numbers become float32.
      margin: measure inside a disk: input and output (if it has pixels) are multiplied by
        `disk_mask(size, margin)`.

    Returns:
      a scalar, computed in float32 at least: 0 for exact equivariance, about 1.4 for unrelated
      outputs of equal norm; 0 if both norms are 0.

    Raises:
      ValueError: shapes that cannot be turned or compared, or a disk for an image that is not square.

    >>> import jax.numpy as jnp, fconv_jax
    >>> x = jnp.arange(49.0).reshape(1, 7, 7, 1)
    >>> float(fconv_jax.equivariance_error(fconv_jax.spatial_max_pool, x))
    0.0
    >>> float(fconv_jax.equivariance_error(fconv_jax.torch_reference.corner_max_pool, x)) > 0.01
    True
    """
    return _error_and_type(function, x, angle, margin)[0]


def assert_equivariant(
    function: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    angle: float = 90,
    *,
    margin: float | None = None,
    tolerance: float | None = None,
) -> None:
    """Raises an `AssertionError` with the measured error unless `equivariance_error` is at most `tolerance`.

    Args: those of `equivariance_error`, and `tolerance`: `None` suits quarter turns, 1e-5 in float32, and 8 steps
      of the type of the input or the output where that is coarser (0.008 in float16, 0.06 in bfloat16).

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.assert_equivariant(fconv_jax.spatial_mean_pool, jnp.ones((1, 5, 5, 8, 2)))
    """
    error, dtypes = _error_and_type(function, x, angle, margin)
    error = float(error)
    tolerance = tolerance_of(*dtypes, least=TOLERANCE) if tolerance is None else tolerance
    if not error <= tolerance:
        raise AssertionError(f"relative equivariance error {error:.3g} at {angle:g} degrees is above {tolerance:g}")


def _error_and_type(function, x, angle, margin):
    """The error, and the types of input and output.  Outputs are compared, and rotated, in float32 at least."""
    angle, x = finite("angle", angle, "number of degrees"), inside_disk(jnp.asarray(x), margin)
    if angle % 90 and not jnp.issubdtype(x.dtype, jnp.inexact):
        x = widened(x)  # rounding rotated pixels to whole numbers is no error of the function
    y = jnp.asarray(function(x))
    expected = inside_disk(rotate(widened(y), angle), margin)
    actual = inside_disk(widened(function(rotate(x, angle))), margin)
    if actual.shape != expected.shape:
        raise ValueError(f"the function's output is {actual.shape} for the turned input, {expected.shape} when turned")
    return relative_error(actual, expected), (x.dtype, y.dtype)
