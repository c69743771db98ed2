"""Dropout with one key for each image, so that a mask does not depend on how a batch is cut."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax._checks import finite


def image_keys(rngs, batch: int, collection: str = "dropout") -> jax.Array:
    """Returns one random key for each image, `[batch]`.

    Args:
      rngs: `nnx.Rngs`, a stream of them, one key (of either kind that jax has), or `[batch]` keys.
      batch: number of images.
      collection: name of the stream, where `rngs` have several.

    Raises:
      ValueError: no `rngs`, no such stream, no keys, or another number of them.
    """
    if rngs is None:
        raise ValueError("dropout in training mode needs rngs; call model.eval() to evaluate a network")
    rngs = _stream(rngs, collection)
    keys = _typed(rngs() if isinstance(rngs, nnx.RngStream) else rngs)
    if keys.ndim == 0:
        return jax.random.split(keys, batch)
    if keys.shape != (batch,):
        raise ValueError(f"rngs hold {keys.shape} keys for {batch} images")
    return keys


def _stream(rngs, name):
    """The stream of `nnx.Rngs`; whatever else is given, as it is."""
    try:
        return rngs[name] if isinstance(rngs, nnx.Rngs) else rngs
    except (AttributeError, KeyError) as error:
        raise ValueError(f"rngs have no stream {name!r} and no default one") from error


def _typed(keys):
    """Keys as `jax.random.key` makes them; those of `jax.random.PRNGKey` are rows of uint32."""
    if not isinstance(keys, (jax.Array, np.ndarray)):
        raise ValueError(f"rngs of type {type(keys).__name__} must be nnx.Rngs, a stream of them or keys")
    if isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        return keys
    try:
        return jax.random.wrap_key_data(jnp.asarray(keys))
    except TypeError as error:
        raise ValueError(f"rngs of shape {keys.shape} and type {keys.dtype} are not keys") from error


class Dropout(nnx.Dropout):
    """`nnx.Dropout` with one key for each image.

    Args:
      rate, broadcast_dims, deterministic, rng_collection, rngs: as for `nnx.Dropout`.

    Raises:
      ValueError: a rate outside 0..1, or something else for `rngs`; in the call what `image_keys` refuses.
    """

    def __init__(self, rate: float, *, broadcast_dims=(), deterministic=False, rng_collection="dropout", rngs=None):
        rate = finite("rate", rate)
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"rate (={rate}) must be 0 to 1")
        if not isinstance(rngs, (nnx.Rngs, nnx.RngStream, type(None))):
            raise ValueError(f"rngs of type {type(rngs).__name__} must be nnx.Rngs, a stream of them or None")
        options = {
            "deterministic": deterministic,
            "rng_collection": rng_collection,
            "rngs": _stream(rngs, rng_collection),
        }
        super().__init__(rate, broadcast_dims=tuple(broadcast_dims), **options)

    def __call__(self, inputs: jax.Array, *, deterministic: bool | None = None, rngs=None) -> jax.Array:
        """Returns `inputs` with some of their numbers zero, in training mode."""
        deterministic = self.deterministic if deterministic is None else deterministic
        if deterministic is None:
            raise ValueError("dropout needs deterministic=True or False, at construction or in the call")
        if deterministic or self.rate == 0.0:
            return inputs
        if self.rate == 1.0:  # inputs / 0 would have NaN gradients
            return jnp.zeros_like(inputs)
        keep, shape = 1.0 - self.rate, self._mask_shape(inputs.shape)
        keys = image_keys(self.rngs if rngs is None else rngs, inputs.shape[0], self.rng_collection)
        count = math.prod(shape[1:])  # drawn flat: the same numbers, compiled up to twenty times as fast
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, (count,)))(keys[: shape[0]]).reshape(shape)
        sharding = jax.typeof(inputs).sharding
        if any(axis is not None for axis in sharding.spec):  # on a mesh with explicit axes the mask must lie as they do
            kept = jax.sharding.reshard(jnp.broadcast_to(kept, inputs.shape), sharding)
        scaled = inputs / keep
        return jnp.where(kept, scaled, jnp.zeros_like(scaled))

    def _mask_shape(self, shape):
        if len(shape) < 2 or any(not -len(shape) <= dim < len(shape) for dim in self.broadcast_dims):
            raise ValueError(f"inputs of shape {shape} must have a batch and the axes {self.broadcast_dims}")
        shared = {dim % len(shape) for dim in self.broadcast_dims} | self._always_shared(len(shape))
        return tuple(min(1, size) if axis in shared else size for axis, size in enumerate(shape))

    def _always_shared(self, num_axes) -> set[int]:
        return set()


class FieldDropout(Dropout):
    """Dropout of whole fields: a feature is zeroed at every pixel and every element at once.

        y[b, i, j, o, c] = x[b, i, j, o, c] keep[b, c] / (1 - rate),   keep ~ Bernoulli(1 - rate).

    Law: commutes with every rotation and mirror, since all of a field is kept or dropped.  A field needs its batch
    axis, under `jax.vmap` too: the first axis has masks of its own.

    Args: as for `nnx.Dropout`, at construction and in the call; `rngs` of the call may also be `[batch]` keys.

    Returns (call): the input's shape, `[batch, height, width, g, channel]` or `[batch, height, width, channel]`.

    Raises:
      ValueError: a rate outside 0..1, or something else for `rngs`.
    """

    def _always_shared(self, num_axes):
        return set(range(1, num_axes - 1))
