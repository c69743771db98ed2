"""The law of the layers at 45 degrees: at the centre pixel of images given by a formula, nothing is interpolated."""

import jax.numpy as jnp
import numpy as np
import pytest

from fconv_jax import LiftingFConv
from tests.fconv_jax.layer_cases import make
from tests.fconv_jax.test_layers_equivariance import Chain, compiled

pytestmark = pytest.mark.unoptimized  # tolerances are far above rounding
# 45 degrees, t = 8, smooth images, three layers of random weights with ReLUs between, the published init.
# Measured over two seeds: 0.014-0.031 at k = 5, 0.038 at k = 7 with 4 frequencies; plain convolutions 0.62-0.89.
EIGHTH_TOLERANCE, EIGHTH_FACTOR = 0.05, 12
# The He initialisation gives the functions that rotate badly as much weight as the others.  Measured at k = 7 with 4
# frequencies: chains 0.12; one lifting layer, whose output is a field, 0.16 (1.0 with the rotations moved backwards).
EIGHTH_HE_TOLERANCE, EIGHTH_HE_FACTOR = 0.2, 4


def blobs(angle, num_images=64, size=21, sigma=2.0):
    """Sums of signed Gaussian blobs inside a disk, rotated by `angle` degrees exactly: their centres are.

    A positive angle rotates as `jnp.rot90`: (x, y) with y down goes to (x cos a + y sin a, y cos a - x sin a).
    """
    random = np.random.RandomState(0)
    radius = (size // 2 - 2) * np.sqrt(random.uniform(size=(num_images, 12, 2)))
    direction = random.uniform(0, 2 * np.pi, (num_images, 12, 2)) - np.deg2rad(angle)
    heights = random.normal(size=(num_images, 12, 2))
    offsets = np.arange(size) - size // 2
    across = offsets - (radius * np.cos(direction))[..., None]
    down = offsets - (radius * np.sin(direction))[..., None]
    across, down = np.exp(-(across**2) / (2 * sigma**2)), np.exp(-(down**2) / (2 * sigma**2))
    return jnp.asarray(np.einsum("bnc,bnci,bncj->bijc", heights, down, across), jnp.float32)


def eighth_rotation_error(model, size, shift=0):
    """|f(R x) - R f(x)| / |f(x)| where the output is the centre pixel, that stays; a field's rotations move."""
    function, edge = compiled(model), (21 - size) // 2
    outputs = [function(blobs(angle)[:, edge : edge + size, edge : edge + size]) for angle in (0, 45)]
    assert outputs[0].shape[1:3] == (1, 1)
    expected = jnp.roll(outputs[0], shift, axis=3) if shift else outputs[0]
    return float(jnp.linalg.norm(outputs[1] - expected) / jnp.linalg.norm(expected))


def test_blobs_rotate_as_rot90():
    np.testing.assert_allclose(blobs(90), jnp.rot90(blobs(0), 1, axes=(1, 2)), rtol=0, atol=1e-5)
    assert np.abs(blobs(90) - blobs(0)).max() > 1


@pytest.mark.parametrize(
    ("k", "options", "tolerance", "factor"),
    [
        (5, {"init": "report"}, EIGHTH_TOLERANCE, EIGHTH_FACTOR),
        (7, {"init": "report", "num_frequencies": 4}, EIGHTH_TOLERANCE, EIGHTH_FACTOR),
        (7, {"init": "he", "num_frequencies": 4}, EIGHTH_HE_TOLERANCE, EIGHTH_HE_FACTOR),
    ],
)
def test_an_eighth_rotation_of_smooth_images(k, options, tolerance, factor):
    """Within a bound, and better than plain convolutions by a factor."""
    ours = eighth_rotation_error(Chain(8, k, padding=0, **options), 3 * k - 2)
    plain = eighth_rotation_error(Chain(8, k, padding=0, plain=True), 3 * k - 2)
    assert ours < tolerance, f"{ours:.3f}"
    assert plain > factor * ours, f"{plain:.3f} and {ours:.3f}"


def test_an_eighth_rotation_moves_the_rotations_by_one():
    layer = make(LiftingFConv, 2, 8, 7, 8, num_frequencies=4)
    assert eighth_rotation_error(layer, 7, shift=1) < EIGHTH_HE_TOLERANCE
    assert eighth_rotation_error(layer, 7, shift=-1) > EIGHTH_HE_FACTOR * EIGHTH_HE_TOLERANCE
    assert eighth_rotation_error(layer, 7, shift=2) > EIGHTH_HE_TOLERANCE
