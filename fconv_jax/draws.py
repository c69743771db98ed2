"""Random numbers for parameters: few compiled programs for many shapes."""

import math

import jax
import jax.numpy as jnp
import numpy as np

_LENGTHS = (2**12, 2**20)


def draw(sampler, key: jax.Array, shape: tuple[int, ...], dtype, *args, scale=1.0) -> jax.Array:
    """Returns `sampler(key, shape, dtype, *args) * scale`, drawn flat, with little compilation.

    Every length is a program of its own, and compiling them took most of the time of making a
    network.  Outside of a trace a longer row, of one of two lengths, is therefore drawn and cut: with
    jax's counter-based generator (`jax_threefry_partitionable`) number i does not depend on the length.

    Args:
      sampler: `jax.random.uniform` or `jax.random.normal`.
      scale: a number, or an array over the last axis.
    """
    count = math.prod(shape)
    lengths = [length for length in _LENGTHS if length >= count]
    if isinstance(key, jax.core.Tracer) or not lengths:
        values = sampler(key, (count,), dtype, *args).reshape(shape)
        return values if isinstance(scale, float) and scale == 1.0 else values * jnp.asarray(scale, dtype)
    row = np.asarray(sampler(key, (lengths[0],), dtype, *args))
    return jnp.asarray(row[:count].reshape(shape) * np.asarray(scale, dtype))
