"""The convolution against loops and against `jax.lax`; its adapter in `nnx.Conv`; what it refuses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax import conv_general_dilated, convolve, convolve_fields
from fconv_jax.convolve import padding_width
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import assert_close, noise


def random(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize(
    ("k", "padding", "width"), [(1, 0, 0), (2, "VALID", 0), (2, 1, 1), (3, "SAME", 1), (4, 3, 3), (5, "SAME", 2)]
)
def test_against_loops(k, padding, width, strides):
    x, kernel = random(2, 9, 8, 3), random(k, k, 3, 4, seed=1)
    expected = oracle.correlate(x, kernel, strides, width)
    assert_close(convolve(x, kernel, strides=strides, padding=padding), expected)


def plain(x, kernel, strides, width):
    return jax.lax.conv_general_dilated(
        x, kernel, (strides, strides), ((width, width),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize(("k", "strides", "width"), [(3, 1, 1), (4, 2, 1), (5, 3, 0)])
def test_gradients_against_lax(k, strides, width):
    x, kernel = random(2, 10, 9, 3), random(k, k, 3, 4, seed=1)
    cotangent = random(*plain(x, kernel, strides, width).shape, seed=2)

    def gradients(function):
        return jax.jit(jax.grad(lambda a, b: jnp.sum(function(a, b) * cotangent), (0, 1)))(x, kernel)

    expected = gradients(lambda a, b: plain(a, b, strides, width))
    ours = gradients(lambda a, b: convolve(a, b, strides=strides, padding=width))
    for actual, gradient in zip(ours, expected, strict=True):
        assert_close(actual, gradient)


def test_fields_are_flattened_rotation_first():
    """[b, h, w, t, n] with [k, k, t, n, o, m]: the two input axes are summed, the two output axes kept."""
    x, kernel = random(2, 6, 5, 4, 3), random(3, 3, 4, 3, 2, 5, seed=1)
    flat = oracle.correlate(x.reshape(2, 6, 5, 12), kernel.reshape(3, 3, 12, 10), padding=1)
    assert_close(convolve_fields(x, kernel, padding=1), flat.reshape(2, 6, 5, 2, 5))
    to_image = random(3, 3, 4, 3, 5, seed=2)
    assert_close(convolve_fields(x, to_image), oracle.correlate(x.reshape(2, 6, 5, 12), to_image.reshape(3, 3, 12, 5)))


def test_vmap_over_kernels():
    x, kernels = random(3, 2, 7, 7, 2), random(3, 3, 3, 2, 4, seed=1)
    together = jax.jit(jax.vmap(convolve))(x, kernels)
    for i in range(3):
        assert_close(together[i], convolve(x[i], kernels[i]))


@pytest.mark.parametrize(
    ("padding", "k", "width"), [("VALID", 4, 0), ("SAME", 1, 0), ("SAME", 3, 1), ("SAME", 7, 3), (0, 2, 0), (5, 2, 5)]
)
def test_padding_width(padding, k, width):
    assert padding_width(padding, k) == width


@pytest.mark.parametrize(
    ("padding", "k", "message"),
    [
        ("SAME", 4, r"padding 'SAME' needs an odd kernel_size \(=4\)"),
        ("same", 3, r"padding \(='same'\) must be 'VALID', 'SAME', 'CIRCULAR', 'REFLECT' or a number"),
        (-1, 3, r"padding \(=-1\) must not be negative"),
        (1.0, 3, r"padding \(=1.0\) must be 'VALID', 'SAME', 'CIRCULAR', 'REFLECT' or a number"),
        (True, 3, r"padding \(=True\) must be 'VALID', 'SAME', 'CIRCULAR', 'REFLECT' or a number"),
        (None, 3, r"padding \(=None\) must be 'VALID', 'SAME', 'CIRCULAR', 'REFLECT' or a number"),
    ],
)
def test_impossible_padding(padding, k, message):
    with pytest.raises(ValueError, match=message):
        padding_width(padding, k)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 9, 9, 4), {}, r"input of shape \(2, 9, 9, 4\) must be \[batch, height, width, 3\]"),
        ((9, 9, 3), {}, r"input of shape \(9, 9, 3\) must be \[batch, height, width, 3\]"),
        ((2, 9, 4, 3), {}, r"an image of 9 x 4 with padding 0 is below the kernel \(=5\)"),
        ((2, 9, 9, 3), {"strides": 0}, r"strides \(=0\) must be a whole number of at least 1"),
        ((2, 9, 9, 3), {"strides": -1}, r"strides \(=-1\) must be a whole number of at least 1"),
        ((2, 9, 9, 3), {"strides": 2.0}, r"strides \(=2.0\) must be a whole number of at least 1"),
        ((2, 9, 9, 3), {"padding": ((1, 1), (0, 1))}, r"padding \(=.*a pair of equal ones"),
        ((2, 9, 9, 3), {"kernel_dilation": 3}, r"an image of 9 x 9 with padding 0 is below the kernel \(=13\)"),
    ],
)
def test_impossible_convolutions(shape, options, message):
    with pytest.raises(ValueError, match=message):
        convolve(np.zeros(shape, np.float32), np.zeros((5, 5, 3, 2), np.float32), **options)


def test_a_field_of_another_order_is_an_error():
    kernel = np.zeros((3, 3, 8, 2, 8, 4), np.float32)
    with pytest.raises(ValueError, match=r"must be \[batch, height, width, 8, 2\]"):
        convolve_fields(np.zeros((1, 5, 5, 4, 2), np.float32), kernel)


# `nnx.Conv` hands "VALID" and "SAME" on as words, which go to `jax.lax` whatever else is asked for.
CONVS = {
    "valid": {"padding": "VALID"},
    "same": {"padding": "SAME"},
    "same, even kernel": {"padding": "SAME", "kernel_size": (4, 4)},
    "same, strides": {"padding": "SAME", "strides": 2},
    "number": {"padding": 1, "strides": 2},
    "pairs": {"padding": ((2, 2), (2, 2)), "strides": (3, 3)},
    "lopsided pairs": {"padding": ((0, 1), (1, 2))},
    "different sides": {"padding": ((1, 1), (2, 2))},
    "different strides": {"padding": 0, "strides": (1, 2)},
    "dilated kernel": {"padding": 0, "kernel_dilation": 2},
    "dilated input": {"padding": ((1, 1), (1, 1)), "input_dilation": 2},
    "groups": {"padding": 0, "feature_group_count": 2},
    "oblong kernel": {"padding": 0, "kernel_size": (3, 2)},
    "circular": {"padding": "CIRCULAR"},
    "one dimension": {"padding": 0, "kernel_size": (3,)},
    "highest precision": {"padding": 0, "precision": jax.lax.Precision.HIGHEST},
    "bfloat16": {"padding": "VALID", "dtype": jnp.bfloat16},
    "bfloat16, adapted": {"padding": 0, "dtype": jnp.bfloat16},
}


@pytest.mark.parametrize("case", CONVS)
def test_adapter_in_nnx_conv_equals_stock(case):
    # NumPy's numbers: JAX compiles a generator for each shape, which takes seconds.
    options = {"kernel_size": (3, 3), "kernel_init": lambda key, shape, dtype: random(*shape), **CONVS[case]}
    stock = nnx.Conv(4, 6, **options, rngs=nnx.Rngs(0))
    ours = nnx.Conv(4, 6, **options, conv_general_dilated=conv_general_dilated, rngs=nnx.Rngs(0))
    x = jnp.asarray(random(2, 9, 8, 4) if len(options["kernel_size"]) == 2 else random(2, 9, 4))

    def loss(model, x):
        y = model(x)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)), y

    both = nnx.jit(nnx.value_and_grad(loss, has_aux=True))
    (_, expected), expected_gradient = both(stock, x)
    (_, actual), gradient = both(ours, x)
    assert actual.dtype == expected.dtype
    assert_close(actual, expected)
    if case == "bfloat16, adapted":  # XLA keeps stock's in float32 in a fused cast: half a step of bfloat16
        assert_close(gradient["kernel"][...], expected_gradient["kernel"][...], 2**-8)
    else:
        assert_close(gradient["kernel"][...], expected_gradient["kernel"][...])
    assert_close(gradient["bias"][...], expected_gradient["bias"][...])


def test_another_layout_is_left_to_jax():
    x, kernel = random(2, 4, 9, 8), random(4, 4, 3, 3, seed=1)
    layout = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ("NCHW", "OIHW", "NCHW"))
    options = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "dimension_numbers": layout}
    expected = jax.lax.conv_general_dilated(x, kernel, **options)
    np.testing.assert_array_equal(conv_general_dilated(x, kernel, **options), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 3), (3, 3)])
def test_small_images_are_reflected_again_and_again(shape):
    x, kernel = noise(2, *shape, 3), noise(7, 7, 3, 2)
    y = convolve(x, kernel, padding="REFLECT")
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    np.testing.assert_allclose(y, convolve(padded, kernel, padding="VALID"), atol=1e-5)
    moved = convolve(np.rot90(x, axes=(1, 2)), np.rot90(kernel), padding="REFLECT")
    np.testing.assert_allclose(moved, np.rot90(y, axes=(1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pair", [(2, 2.0), (1, True), (2, 3), (2,), ((2, 2), 2)])
def test_a_pair_that_is_not_of_equal_whole_numbers(pair):
    with pytest.raises(ValueError, match="strides"):
        fc.LiftingFConv(1, 1, 3, 4, strides=pair, rngs=nnx.Rngs(0))


def test_a_pair_may_be_of_any_whole_numbers():
    layer = fc.LiftingFConv(1, 1, 3, 4, strides=(jnp.int32(1), np.int64(1)), padding=((1, 1), (1, 1)), rngs=nnx.Rngs(0))
    assert layer.strides == 1
    with pytest.raises(ValueError, match=re.escape("padding (=((1, 2), (1, 2)))")):
        fc.LiftingFConv(1, 1, 3, 4, padding=((1, 2), (1, 2)), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("shape", "kernel", "parts", "message"),
    [
        ((1, 5, 5, 8), (3, 3, 8, 2, 8, 3), 1, "is no filter of 1 parts"),  # an image of 8 channels is no field of C8
        ((5, 5, 8), (3, 3, 8, 2), 1, "is no filter"),
        ((1, 5, 5, 8), (3, 3, 4, 2, 3), 2, "is no filter of 2 parts"),
        ((1, 5, 5, 8), (3, 3, 8, 2, 3), 0, r"feature_group_count \(=0\) must be"),
    ],
)
def test_what_is_no_filter(shape, kernel, parts, message):
    with pytest.raises(ValueError, match=message):
        convolve_fields(np.zeros(shape, np.float32), np.zeros(kernel, np.float32), feature_group_count=parts)
