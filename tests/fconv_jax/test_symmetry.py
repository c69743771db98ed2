"""The measure of equivariance, each case with a negative control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise
from tests.fconv_jax.test_turns import blob

ROUNDING = 1e-5


def lifting(*sizes, **options):
    return fc.LiftingFConv(*(sizes or (1, 2, 5)), rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(
    ("function", "shape", "options", "message"),
    [
        (jnp.tanh, (1, 4, 5, 1), {"margin": 2}, "square images"),
        (lambda x: x[:, :2], (1, 4, 4, 1), {}, "for the turned input"),
    ],
)
def test_bad_input_is_named(function, shape, options, message):
    with pytest.raises(ValueError, match=message):
        fc.equivariance_error(function, jnp.zeros(shape), **options)


@pytest.mark.parametrize(
    ("kind", "sizes", "shape", "angle"),
    [
        (fc.LiftingFConv, (1, 2, 5), (2, 9, 9, 1), 90),
        (fc.GroupFConv, (3, 2, 3), (2, 7, 7, 8, 3), 270),
        (fc.ProjectingFConv, (3, 2, 3), (2, 7, 7, 8, 3), 180),
    ],
)
def test_layers_are_exact_at_quarter_rotations_and_plain_ones_are_not(kind, sizes, shape, angle):
    fc.assert_equivariant(kind(*sizes, rngs=nnx.Rngs(0)), noise(*shape), angle, tolerance=ROUNDING)
    plain = nnx.Conv(1, 2, (5, 5), rngs=nnx.Rngs(0))
    with pytest.raises(AssertionError, match="relative equivariance error"):
        fc.assert_equivariant(plain, noise(2, 9, 9, 1), angle)


def test_invariant_outputs_are_compared_as_they_are():
    layer, x = lifting(), noise(2, 9, 9, 1)
    assert fc.equivariance_error(lambda x: jnp.mean(fc.max_over_group(layer(x)), axis=(1, 2)), x) < ROUNDING
    assert fc.equivariance_error(lambda x: jnp.mean(layer(x), axis=(1, 2)), x) < ROUNDING  # [batch, t, c]
    assert fc.equivariance_error(lambda x: layer(x).reshape(2, -1), x) > 0.1  # flattened: not invariant


def test_free_angles_inside_a_disk_are_approximate():
    x = blob()
    band_limited = lifting(1, 8, 7, num_frequencies=3, padding="SAME", init="paper")
    all_frequencies = lifting(1, 8, 7, padding="SAME", init="paper")
    plain = nnx.Conv(1, 8, (7, 7), rngs=nnx.Rngs(0))
    assert 1e-5 < fc.equivariance_error(band_limited, x, 45, margin=2) < 0.05
    assert 0.1 < fc.equivariance_error(all_frequencies, x, 45, margin=2) < 0.5
    assert fc.equivariance_error(plain, x, 45, margin=2) > 0.5


def test_the_error_of_nothing_is_zero_and_it_can_be_compiled():
    assert fc.equivariance_error(jnp.zeros_like, noise(1, 4, 4, 1)) == 0.0
    compiled = jax.jit(lambda x: fc.equivariance_error(fc.torch_reference.corner_max_pool, x))
    x = noise(1, 7, 7, 2)
    np.testing.assert_allclose(compiled(x), fc.equivariance_error(fc.torch_reference.corner_max_pool, x), rtol=1e-5)
