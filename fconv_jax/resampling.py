"""Up in resolution: the pools are the way down."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fconv_jax._checks import below, real_pixels, whole
from fconv_jax._observed import observed
from fconv_jax._precision import narrowed, widened
from fconv_jax.convolve import flat_channels


@functools.partial(observed, always=False)
def upsample(x: jax.Array, factor: int = 2) -> jax.Array:
    """Enlarges images or fields by bilinear interpolation with half-pixel centres.

        y[s i + u, s j + v] = bilinear(x; i + (u + 1/2) / s - 1/2, j + (v + 1/2) / s - 1/2),   u, v = 0..s-1,

    with the outer pixels repeated beyond the border (as `jax.image.resize(..., "bilinear")`).

    Law: quarter turns and mirrors are exact at every size, other rotations approximate.

    Args:
      x: `[batch, height, width, ...]`, an image or a field.
      factor: s, at least 1.

    Returns:
      `[batch, s height, s width, ...]`, in the input's type; of whole numbers float32.  It is computed in float32 at
      least.

    Raises:
      ValueError: another number of axes, an image without pixels, or a factor below 1.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.upsample(jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1))[0, 0, :, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    x, factor = jnp.asarray(x), whole("factor", factor)
    if real_pixels(x).ndim not in (4, 5):
        raise ValueError(f"input of shape {x.shape} must be an image (four axes) or a field (five axes)")
    if any(below(size, 1) for size in x.shape[1:3]):
        raise ValueError(f"an image of {x.shape[1]} x {x.shape[2]} must have pixels")
    channels, y = x.shape[3:], flat_channels(widened(x))
    for axis in (1, 2):
        y = _along(y, axis, factor)
    return narrowed(y.reshape(*y.shape[:3], *channels), x.dtype)


def _along(x, axis, factor):
    """Each new pixel is a mean of two neighbours: shifted copies, side by side."""
    ends = [jax.lax.slice_in_dim(x, 0, 1, axis=axis), jax.lax.slice_in_dim(x, x.shape[axis] - 1, None, axis=axis)]
    before = jnp.concatenate([ends[0], jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)], axis)
    after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, None, axis=axis), ends[1]], axis)
    phases = []
    for offset in (np.arange(factor) + 0.5) / factor - 0.5:
        neighbour = before if offset < 0 else after
        # float(1 - |o|) x + |o| y for +-o alike: a mirrored image gives the same numbers, bit for bit.
        weight = round(abs(float(offset)), 12)
        phases.append((1.0 - weight) * x + weight * neighbour if weight else x)
    y = jnp.stack(phases, axis=axis + 1)
    return y.reshape(*x.shape[:axis], x.shape[axis] * factor, *x.shape[axis + 1 :])
