"""Inputs at the edge of what is documented: empty batches, infinities, NumPy's types, images below a kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise


@pytest.mark.parametrize("algorithm", ["direct", "loops"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_an_empty_batch_by_each_algorithm(algorithm, size):
    layer = fc.GroupFConv(2, 4, size, 8, rngs=nnx.Rngs(0))
    with fc.convolution_algorithm(algorithm):
        assert layer(jnp.ones((0, 8, 8, 8, 2))).shape == (0, 8, 8, 8, 4)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3, 4, 7])
def test_quarter_turns_of_vectors_move_numbers_only(turns):
    vectors = jnp.array([jnp.inf, 1.0]).reshape(1, 1, 1, 2, 1)
    expected = {0: (np.inf, 1), 1: (-1, np.inf), 2: (-np.inf, -1), 3: (1, -np.inf)}[turns % 4]
    np.testing.assert_array_equal(fc.rotate_vectors(vectors, 90 * turns).ravel(), expected)


def test_vectors_of_numpys_numbers():
    field = np.random.default_rng(0).normal(size=(1, 2, 2, 4, 3))
    vectors = fc.to_vectors(field, 4)
    assert vectors.dtype == jnp.float32
    np.testing.assert_array_equal(vectors, fc.to_vectors(jnp.asarray(field, jnp.float32), 4))
    assert fc.from_vectors(np.asarray(vectors, np.float64), 4).dtype == jnp.float32


def test_an_unet_of_vectors_needs_three_rotations():
    with pytest.raises(ValueError, match="at least 3 rotations"):
        fc.models.create("unet_fconv", group=2, output="vectors", depth=1, width=2, rngs=nnx.Rngs(0))


def test_nnx_conv_on_an_image_below_its_kernel():
    layers = [
        nnx.Conv(1, 2, (5, 5), padding=0, rngs=nnx.Rngs(0), **more)
        for more in ({}, {"conv_general_dilated": fc.conv_general_dilated})
    ]
    ours, theirs = (layer(jnp.ones((1, 3, 3, 1))) for layer in layers)
    assert ours.shape == theirs.shape


def test_edsr_computes_in_half_precision_under_strict_types():
    model = fc.models.create("edsr_fconv", in_features=3, blocks=1, width=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    images = noise(1, 8, 8, 3)
    expected = model(images)
    with jax.numpy_dtype_promotion("strict"):
        found = model(images)
    assert found.dtype == expected.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["layer", "facts"])
def test_an_initialiser_of_ones_own_gets_the_layers_facts(name):
    he = fc.initializers.he()
    half = {
        "layer": lambda key, shape, dtype, layer: 0.5 * he(key, shape, dtype, layer),
        "facts": lambda key, shape, dtype, *, facts: 0.5 * he(key, shape, dtype, facts),
    }[name]
    whole, halved = (
        fc.LiftingFConv(1, 2, 3, 4, coefficient_init=one, rngs=nnx.Rngs(0)).coefficients[...] for one in (he, half)
    )
    np.testing.assert_array_equal(halved, 0.5 * whole)
    fourth = nnx.initializers.normal()  # its fourth argument, which has a default, is not the facts
    assert fc.LiftingFConv(1, 2, 3, 4, coefficient_init=fourth, rngs=nnx.Rngs(0)).coefficients.shape[:2] == (1, 2)
