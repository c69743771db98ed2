"""What every model shares: it runs through an ordered tuple of named stages."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from fconv_jax._precision import narrowed, widened
from fconv_jax.dropout import Dropout, image_keys


def flatten(x: jax.Array) -> jax.Array:
    """`[batch, ...]` -> `[batch, features]`, rows and columns first, channel fastest."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def mean_over_space(x: jax.Array) -> jax.Array:
    """`[batch, height, width, channel]` -> `[batch, channel]`: the result does not depend on positions."""
    return x.mean(axis=(1, 2))


def means_over_space(x: jax.Array, power: float) -> jax.Array:
    """`[batch, height, width, channel]` of numbers from 0 -> `[batch, 2 channel]`: the mean and the power mean.

        m_p = (mean_{i, j} x[i, j]^p)^(1 / p)

    The power mean tells how strong a feature is where it is strongest, as a maximum would, but depends less on
    how the pixels fall.  The mean of a stroke tells how much of it there is.
    """
    kind, x = x.dtype, widened(x)  # in half precision 1e-6 and 1e-12 are zero
    # Divided by the maximum, which cancels, no power overflows; 1e-12 keeps the root's gradient finite at zero.
    most = jax.lax.stop_gradient(x.max(axis=(1, 2), keepdims=True)) + 1e-6
    root = (jnp.mean((x / most) ** power, axis=(1, 2)) + 1e-12) ** (1 / power)
    return narrowed(jnp.concatenate([x.mean(axis=(1, 2)), jnp.squeeze(most, (1, 2)) * root], axis=-1), kind)


class ImageModel(nnx.Module):
    """A network that says which images it takes: `input_shape`, `None` for any height or width."""

    input_shape: tuple[int | None, int | None, int]

    def _check_images(self, images):
        expected = self.input_shape
        if images.ndim != 4 or any(
            want not in (None, have) for want, have in zip(expected, images.shape[1:], strict=True)
        ):
            sizes = (str(want or name) for want, name in zip(expected, ("height", "width", "channel"), strict=True))
            raise ValueError(f"images of shape {images.shape} must be [batch, {', '.join(sizes)}]")


class StagedModel(ImageModel):
    """A network that is the composition of its `stages`.

    A subclass makes its modules in `__init__`, sets `input_shape` and defines the property
    `stages`: an ordered tuple of (name, callable), pools and flatten included.
    """

    @property
    def stages(self) -> tuple[tuple[str, Callable[..., jax.Array]], ...]:
        """The network's (name, callable) pairs, in the order in which they work."""
        raise NotImplementedError

    def __call__(self, images: jax.Array, rngs=None) -> jax.Array:
        """Returns the logits `[batch, num_classes]` of `images` `[batch, height, width, channel]` in 0..1.

        Args:
          images: of the network's `input_shape`.
          rngs: for a network with dropout in training mode: `nnx.Rngs` with a `dropout` stream, a stream, one
            key, or an array of one key for each image.

        Raises:
          ValueError: images of another shape, or training mode of a network with dropout without `rngs`.
        """
        self._check_images(images)
        stages = self.stages
        active = [i for i, (_, stage) in enumerate(stages) if _draws(stage)]
        if active and rngs is None:
            raise ValueError("a network with dropout needs rngs in training mode; call model.eval() to evaluate it")
        keys = image_keys(rngs, images.shape[0]) if active else None
        x = images
        for i, (_, stage) in enumerate(stages):
            if keys is None or i not in active:
                x = stage(x)
            else:
                x = stage(x, rngs=jax.vmap(jax.random.fold_in, (0, None))(keys, i))
        return x


def _draws(stage) -> bool:
    return isinstance(stage, Dropout) and not stage.deterministic and stage.rate > 0.0
