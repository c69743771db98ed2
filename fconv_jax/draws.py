"""Random numbers for parameters: few compiled programs for many shapes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_SHORT, _LONG = 2**12, 2**20


def draw(sampler, key: jax.Array, shape: tuple[int, ...], dtype, *args, scale=1.0) -> jax.Array:
    """Returns `sampler(key, shape, dtype, *args) * scale`, drawn flat, with little compilation.

    Every length is a program of its own, and compiling them took most of the time of making a
    network.  Outside of a trace a longer row, of one of two lengths, is therefore drawn and cut where number i
    does not depend on the length: with jax's counter-based generator (`jax_threefry_partitionable`).
    More than 2^20 numbers are rows of that length, each from a key of its own, traced or not.

    Args:
      sampler: `jax.random.uniform` or `jax.random.normal`.
      key: one key.
      shape: of the result.
      dtype: of the result.
      *args: further arguments of the sampler.
      scale: a number, or an array over the last axis.
    """
    # In a trace everything is traced, also what a known key gives: `key_data` of it tells.
    traced = isinstance(jax.random.key_data(key), Tracer)
    count, together = math.prod(shape), traced or not _counts(key)
    keys = jax.random.split(key, -(-count // _LONG)) if count > _LONG else None
    if not isinstance(scale, float):
        scale = np.reshape(scale, (1,) * (len(shape) - 1) + (-1,))
    if together:
        if keys is None:
            values = sampler(key, (count,), dtype, *args)
        else:
            values = jax.vmap(lambda key: sampler(key, (_LONG,), dtype, *args))(keys)
        values = values.reshape(-1)[:count].reshape(shape)
        return values if isinstance(scale, float) and scale == 1.0 else values * jnp.asarray(scale, dtype)
    if keys is None:
        rows = [sampler(key, (_SHORT if count <= _SHORT else _LONG,), dtype, *args)]
    else:
        rows = [sampler(key, (_LONG,), dtype, *args) for key in keys]
    values = np.empty(count, dtype)
    for i, row in enumerate(rows):  # one copy of each number: a large layer has 64 MB of them
        part = values[i * _LONG : (i + 1) * _LONG]
        part[...] = np.asarray(row)[: len(part)]
    values = values.reshape(shape)
    if not (isinstance(scale, float) and scale == 1.0):
        values *= np.asarray(scale, dtype)
    return jnp.asarray(values)


def _counts(key):
    return jax.threefry_partitionable.value and str(jax.random.key_impl(key)) == "threefry2x32"
