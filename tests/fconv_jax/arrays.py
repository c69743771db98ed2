"""Arrays to put in, how they rotate, and how close what comes out must be."""

import jax.numpy as jnp
import numpy as np


def noise(*shape, seed=0, dtype=jnp.float32):
    """White noise from NumPy: JAX compiles a generator for each shape, which takes seconds."""
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape), dtype)


def rotate(x, shift=1):
    """Rotates an image or field by 90 degrees; `shift` * t / 4 is how far its rotations move.  Not the library's."""
    rotated = jnp.rot90(x, 1, axes=(1, 2))
    return rotated if x.ndim == 4 else jnp.roll(rotated, shift * x.shape[3] // 4, axis=3)


def assert_close(actual, expected, relative=1e-5):
    """Equal shapes, and no difference above `relative` times the largest number that is expected.

    The default is for two orders of the same float32 sums.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{actual.shape} and {expected.shape}"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * np.abs(expected).max())


def assert_uniform(values, bound):
    """None beyond the bound; variance a third of its square, within four deviations (0.9 / sqrt(n) each)."""
    values = np.asarray(values)
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    np.testing.assert_allclose(np.var(values), bound**2 / 3, rtol=4 * 0.9 / np.sqrt(values.size))
