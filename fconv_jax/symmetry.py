"""How well a function keeps turns, and where a network loses them.

R turns images and fields as `fconv_jax.turns` says.  A function f is equivariant if f(R x) = R f(x),
invariant if f(R x) = f(x).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fconv_jax.auditing import TOLERANCE, Audit, StageReport, audit
from fconv_jax.turns import inside_disk, rotate_features, rotate_image, turn

__all__ = [
    "TOLERANCE",
    "Audit",
    "StageReport",
    "assert_equivariant",
    "audit",
    "equivariance_error",
    "rotate_features",
    "rotate_image",
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
        costs something, and lose the corners (see `margin`).
      margin: measure inside a disk: input and output (if it has pixels) are multiplied by
        `disk_mask(size, margin)`.

    Returns:
      a scalar: 0 for exact equivariance, about 1.4 for unrelated outputs of equal norm; 0 if both
      norms are 0.

    Raises:
      ValueError: shapes that cannot be turned or compared, or a disk for an image that is not square.

    >>> import jax.numpy as jnp, fconv_jax
    >>> x = jnp.arange(49.0).reshape(1, 7, 7, 1)
    >>> float(fconv_jax.equivariance_error(fconv_jax.spatial_max_pool, x))
    0.0
    >>> float(fconv_jax.equivariance_error(fconv_jax.corner_max_pool, x)) > 0.01
    True
    """
    x = inside_disk(x, margin)
    expected = inside_disk(turn(function(x), angle), margin)
    actual = inside_disk(function(turn(x, angle)), margin)
    if actual.shape != expected.shape:
        raise ValueError(f"the function's output is {actual.shape} for the turned input, {expected.shape} when turned")
    difference, norm = jnp.linalg.norm(jnp.ravel(actual - expected)), jnp.linalg.norm(jnp.ravel(expected))
    return jnp.where(difference == 0.0, 0.0, difference / norm)


def assert_equivariant(
    function: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    angle: float = 90,
    *,
    margin: float | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Raises an `AssertionError` with the measured error unless `equivariance_error` is at most `tolerance`.

    Args: those of `equivariance_error`, and `tolerance`: 1e-5 suits quarter turns in float32.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.assert_equivariant(fconv_jax.spatial_mean_pool, jnp.ones((1, 5, 5, 8, 2)))
    """
    error = float(equivariance_error(function, x, angle, margin=margin))
    if not error <= tolerance:
        raise AssertionError(f"relative equivariance error {error:.3g} at {angle:g} degrees is above {tolerance:g}")
