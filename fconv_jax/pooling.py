"""Pooling over space and over rotations.

Images are `[batch, height, width, channel]`, fields `[batch, height, width, t, channel]`: spatial
pools work on both, pools over rotations turn a field into an image.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx


def corner_max_pool(x: jax.Array, window: int = 2, *, padding: int = 0) -> jax.Array:
    """Maximum over windows laid out from the top-left corner, as PyTorch's `MaxPool2d(window, padding=...)`.

    A remainder at the bottom and at the right is dropped, so quarter turns are kept only where
    the window divides (size + 2 padding) (28 -> 14 is exact, 7 -> 3 is not).  It is here for the
    networks as published; `spatial_max_pool` is the symmetric one.

    Args:
      x: `[batch, height, width, ...]`.
      window: side of the window, and the stride.
      padding: pixels of minus infinity added on each of the four sides.

    Returns:
      `[batch, (height + 2 padding) // window, (width + 2 padding) // window, ...]`.

    Raises:
      ValueError: an image smaller than the window.
    """
    height, width = x.shape[1] + 2 * padding, x.shape[2] + 2 * padding
    if min(height, width) < window:
        raise ValueError(
            f"an image of {x.shape[1]} x {x.shape[2]} with padding {padding} is below the window (={window})"
        )
    if padding:
        pads = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (x.ndim - 3)
        x = jnp.pad(x, pads, constant_values=-jnp.inf)
    rows, columns = height // window * window, width // window * window
    # The maximum of strided slices: `reduce_window` is slow backwards on a CPU.
    slices = [x[:, i:rows:window, j:columns:window] for i in range(window) for j in range(window)]
    return functools.reduce(jnp.maximum, slices)


def image_keys(rngs, batch: int) -> jax.Array:
    """Returns one random key for each image, `[batch]`.

    Args:
      rngs: `nnx.Rngs` with a `dropout` (or default) stream, one key, or `[batch]` keys, returned as they are.

    Raises:
      ValueError: no `rngs`, or another number of keys.
    """
    if rngs is None:
        raise ValueError("dropout in training mode needs rngs; call model.eval() to evaluate a network")
    keys = rngs if isinstance(rngs, jax.Array) else rngs.dropout()
    if keys.ndim == 0:
        return jax.random.split(keys, batch)
    if keys.shape != (batch,):
        raise ValueError(f"rngs hold {keys.shape} keys for {batch} images")
    return keys


class FieldDropout(nnx.Dropout):
    """Dropout of whole fields: a feature is zeroed at every pixel and every rotation at once.

        y[b, i, j, o, c] = x[b, i, j, o, c] keep[b, c] / (1 - rate),   keep ~ Bernoulli(1 - rate).

    Law: commutes with every turn, since all of a field is kept or dropped.

    Args: as for `nnx.Dropout`; `rngs` of the call are those of `image_keys`.

    Returns (call): the input's shape, `[batch, height, width, t, channel]` or `[batch, height, width, channel]`.
    """

    def __call__(self, x: jax.Array, rngs=None) -> jax.Array:
        if self.deterministic or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        keys = image_keys(rngs, x.shape[0])
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, x.shape[-1:]))(keys)
        kept = kept.reshape(x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
        return jnp.where(kept, x / keep, jnp.zeros_like(x))
