"""Layers against the reference's numbers and against loops; how they compose; what they refuse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import assert_close
from tests.fconv_jax.layer_cases import (
    CASES,
    EVERY,
    FILTERS,
    POINTWISE,
    POINTWISE_KINDS,
    SPATIAL,
    SPATIAL_KINDS,
    Golden,
    Group1x1,
    Lifting1x1,
    make,
    noise_for,
)

pytestmark = pytest.mark.unoptimized  # the operations are compared, to tolerances of their sums; it takes half the time

# Outputs and gradients of the reference, float32 on a CPU (golden README: rtol 1e-4, atol 1e-5 times the largest).
GOLDEN_RTOL, GOLDEN_ATOL = 1e-4, 1e-5
# bfloat16 keeps 8 bits; input, kernel and output are each rounded to it once, the sums are at least that exact.
BFLOAT16_TOLERANCE = 3 * 2.0**-8


def assert_golden(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=GOLDEN_RTOL, atol=GOLDEN_ATOL * np.abs(expected).max())


def value_and_gradients(function, cotangent, wanted):
    """Compiled `(arguments) -> y, gradients of sum(y * cotangent)`."""

    def loss(*arguments):
        y = function(*arguments)
        return jnp.sum(y * cotangent), y

    def both(*arguments):
        (_, y), gradients = jax.value_and_grad(loss, wanted, has_aux=True)(*arguments)
        return y, gradients

    return jax.jit(both)


def layer_and_gradients(layer, x, cotangent):
    """A layer's output and the gradients of sum(y * cotangent) for its state (a dict) and for x."""
    graph, state = nnx.split(layer)
    run = value_and_gradients(lambda state, x: nnx.merge(graph, state)(x), cotangent, (0, 1))
    y, (gradient, grad_x) = run(state, x)
    return y, nnx.to_pure_dict(gradient), grad_x


@pytest.mark.parametrize("case", CASES)
def test_golden_pure_functions(case):
    """The reference's basis through the pure functions: output and the gradient of sum(y * cotangent)."""
    golden = Golden(case)

    def output(x, coefficients, bias):
        y = fc.convolve_fields(x, FILTERS[golden.kind](coefficients, golden.basis), padding=golden.padding)
        return y if bias is None else y + bias

    wanted = (0, 1) if golden.bias is None else (0, 1, 2)
    y, found = value_and_gradients(output, golden.cotangent, wanted)(golden.x, golden.coefficients, golden.bias)
    assert_golden(y, golden.y)
    expected = (golden.grad_x, golden.grad_coefficients, golden.grad_bias)
    jax.tree.map(assert_golden, found, expected[: len(wanted)])


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("reg") or "_k5_t8" in case])
def test_golden_layers(case):
    """The same through the layers, with the coefficients carried over to this library's canonical basis.

    Every size in a group layer; the others differ from it in their pure functions alone, tested above.
    """
    golden = Golden(case)
    layer = golden.layer(smooth="nosmooth" not in case)
    theirs = golden.basis.reshape(-1, golden.basis.shape[-1]).astype(np.float64)
    ours = layer.sampled_basis.values.reshape(-1, layer.sampled_basis.rank).astype(np.float64)
    carry = np.linalg.lstsq(ours, theirs, rcond=None)[0]  # ours @ carry = theirs: the spans are equal
    np.testing.assert_allclose(ours @ carry, theirs, rtol=0, atol=1e-6)
    layer.coefficients[...] = jnp.asarray(golden.coefficients @ carry.T, jnp.float32)

    y, gradient, grad_x = layer_and_gradients(layer, golden.x, golden.cotangent)
    assert_golden(y, golden.y)
    assert_golden(grad_x, golden.grad_x)
    assert_golden(np.asarray(gradient["coefficients"]) @ carry, golden.grad_coefficients)
    if golden.bias is not None:
        assert_golden(gradient["bias"], golden.grad_bias)


@pytest.mark.parametrize("t", [4, 8])
@pytest.mark.parametrize("kind", POINTWISE)
def test_golden_pointwise_layers(kind, t):
    """Filled through the conversion of checkpoints."""
    golden = Golden(f"conv1x1_{kind}_t{t}")
    layer = make(POINTWISE[kind], num_rotations=t)
    state = {"weights": golden.weights, "c": golden.bias.reshape(1, -1, 1, 1)}
    fc.torch_reference.load_weights(layer, state, names={"": ""})
    np.testing.assert_array_equal(layer.coefficients[...], golden.coefficients)
    y, gradient, grad_x = layer_and_gradients(layer, golden.x, golden.cotangent)
    assert_close(y, golden.y)
    assert_close(grad_x, golden.grad_x)
    assert_close(gradient["coefficients"], golden.grad_coefficients)
    assert_close(gradient["bias"], golden.grad_bias)


@pytest.mark.parametrize("kind", SPATIAL)
@pytest.mark.parametrize(
    ("k", "t", "strides", "padding"), [(2, 1, 1, "VALID"), (3, 3, 2, "SAME"), (4, 5, 3, 2), (6, 2, 1, 1), (3, 8, 1, 0)]
)
def test_against_loops(kind, k, t, strides, padding):
    """Any size and order, strides and paddings, against filters and a convolution written as loops."""
    layer = make(SPATIAL[kind], kernel_size=k, num_rotations=t, strides=strides, padding=padding)
    layer.bias[...] = jnp.arange(1.0, 4.0)
    coefficients = np.asarray(layer.coefficients[...], np.float64)
    weights = np.transpose(coefficients if kind == "reg" else coefficients[None], (2, 1, 0, 3))
    kernel = oracle.kernel(oracle.expand(kind, weights, layer.sampled_basis.values.astype(np.float64)), kind, t)
    x = noise_for(layer, 2, 10, 9)
    flat = kernel.reshape(k, k, math.prod(x.shape[3:]), -1)
    width = {"VALID": 0, "SAME": k // 2}.get(padding, padding)
    expected = oracle.correlate(x.reshape(*x.shape[:3], -1), flat, strides, width)
    expected = expected.reshape(*expected.shape[:3], *kernel.shape[-1 if kind == "out" else -2 :])
    assert_close(layer(x), expected + np.arange(1.0, 4.0))


@pytest.mark.parametrize("cls", POINTWISE_KINDS)
def test_pointwise_strides_take_every_second_pixel(cls):
    layer = make(cls, strides=2)
    x = noise_for(layer, 2, 7, 5)
    assert_close(layer(x), make(cls)(x)[:, ::2, ::2])


@pytest.mark.parametrize("cls", SPATIAL_KINDS)
def test_the_basis_of_a_layer(cls):
    """Shared, read-only, and bicubic where asked for."""
    first, second = (make(cls, kernel_size=5, num_rotations=8, seed=seed) for seed in (0, 1))
    assert first.sampled_basis is second.sampled_basis
    assert not first.sampled_basis.values.flags.writeable
    bicubic = make(cls, kernel_size=5, num_rotations=8, basis="bicubic")
    assert bicubic.sampled_basis is fc.bicubic_basis(5, 8)
    assert bicubic.coefficients.shape[-1] == 25
    assert np.all(np.isfinite(bicubic(noise_for(bicubic, 1, 7, 7))))


@pytest.mark.parametrize("cls", EVERY)
def test_bfloat16(cls):
    layer, exact, stored = make(cls, dtype=jnp.bfloat16), make(cls), make(cls, param_dtype=jnp.bfloat16)
    x = noise_for(layer, 2, 8, 8)
    y = layer(x)
    assert (y.dtype, layer.coefficients.dtype) == (jnp.bfloat16, jnp.float32)
    assert_close(y, exact(x), BFLOAT16_TOLERANCE)
    assert stored.coefficients.dtype == stored.bias.dtype == jnp.bfloat16
    assert stored(x).dtype == jnp.float32  # no dtype: promoted with the input
    _, gradient, _ = layer_and_gradients(layer, x, jnp.ones_like(y))
    assert gradient["coefficients"].dtype == jnp.float32


@pytest.mark.parametrize("kind", SPATIAL)
def test_a_filter_of_half_precision_is_computed_in_float32(kind):
    layer = make(SPATIAL[kind], kernel_size=5, param_dtype=jnp.bfloat16)
    expected = FILTERS[kind](layer.coefficients[...].astype(jnp.float32), layer.sampled_basis.values)
    np.testing.assert_array_equal(layer.filter(), expected.astype(jnp.bfloat16), strict=True)


@pytest.mark.parametrize("cls", EVERY)
def test_jit_vmap_grad_and_checkpoint_compose(cls):
    """Three seeds in one compiled program, gradients through recomputation, against one at a time."""
    layers = [make(cls, seed=seed, strides=2) for seed in range(3)]
    graph, states = nnx.graphdef(layers[0]), [nnx.state(layer) for layer in layers]
    x = jnp.stack([noise_for(layers[0], 2, 7, 7, seed=seed) for seed in range(3)])

    def loss(state, x):
        return jnp.sum(jnp.sin(nnx.merge(graph, state)(x)))

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.jit(jax.vmap(jax.grad(jax.checkpoint(loss))))(stacked, x)
    alone = jax.jit(jax.grad(loss))
    for seed in range(3):
        mine = jax.tree.map(lambda leaf, i=seed: leaf[i], together)
        jax.tree.map(assert_close, nnx.to_pure_dict(mine), nnx.to_pure_dict(alone(states[seed], x[seed])))


@pytest.mark.parametrize(
    ("cls", "shape"),
    list(zip(EVERY, [(2, 3, 9), (4, 2, 3, 9), (2, 3, 9), (2, 3, 1), (4, 2, 3, 1)], strict=True)),
)
def test_the_state_is_coefficients_and_bias(cls, shape):
    layer = make(cls)
    graph, state = nnx.split(layer)
    assert {name: leaf.shape for name, leaf in nnx.to_pure_dict(state).items()} == {"coefficients": shape, "bias": (3,)}
    assert set(nnx.to_pure_dict(nnx.state(make(cls, use_bias=False)))) == {"coefficients"}
    x = noise_for(layer, 1, 5, 5)
    np.testing.assert_array_equal(nnx.merge(graph, state)(x), layer(x))


def test_the_filter_of_a_layer_is_the_pure_functions():
    for kind, cls in SPATIAL.items():
        layer = make(cls)
        expected = FILTERS[kind](layer.coefficients[...], layer.sampled_basis.values)
        np.testing.assert_array_equal(layer.filter(), expected)


EVERY_REFUSES = [
    ({"in_features": 0}, r"in_features \(=0\) must be a whole number of at least 1"),
    ({"num_rotations": 0}, r"group \(=0\) must be a Group or a number of rotations"),
    ({"strides": -2}, r"strides \(=-2\) must be a whole number of at least 1"),
    ({"coefficient_init": "he"}, r"coefficient_init \(='he'\) must be a function such as fconv_jax.initializers.he"),
    ({"bias_init": None}, r"bias_init \(=None\) must be a function"),
    ({"coefficient_init": fc.initializers.he}, r"coefficient_init .* must give an array of shape .*: he\(\) takes 0"),
    ({"bias_init": lambda key, shape, dtype: jnp.zeros(5)}, r"bias_init .* of shape \(3,\) .*, not of shape \(5,\)"),
    ({"bias_init": lambda key, shape, dtype: 0.0}, r"bias_init .* of shape \(3,\) for .*, not of shape \(\)"),
    ({"feature_group_count": 2, "in_features": 3}, r"in_features \(=3\) must be a multiple of feature_group_count"),
    ({"dtype": "int"}, r"dtype \(='int'\) must be a floating-point type"),
]
SPATIAL_REFUSE = [
    (
        {"kernel_size": (3, 5)},
        r"kernel_size \(=\(3, 5\)\) must be .*: a kernel that rotates is square",
    ),
    ({"kernel_size": 0}, r"kernel_size \(=0\) must be a whole number of at least 1"),
    ({"kernel_size": 4, "padding": "SAME"}, r"'SAME' needs an odd kernel_size \(=4\)"),
    ({"bias_init": fc.initializers.he()}, r"bias_init \(=<function .*\) must give an array of shape \(3,\)"),
    ({"padding": "FULL"}, r"padding \(='FULL'\) must be 'VALID', 'SAME', 'CIRCULAR', 'REFLECT' or a number"),
    ({"padding": -1}, r"padding \(=-1\) must not be negative"),
    ({"padding": 0.5}, r"padding \(=0.5\)"),
    ({"num_rotations": 4.0}, r"group \(=4.0\) must be a Group or a number of rotations"),
    ({"padding": ((1, 1), (1, 2))}, r"padding \(=.*\) must be a number of pixels or a pair of equal ones"),
    ({"kernel_dilation": (1, 2)}, r"kernel_dilation \(=\(1, 2\)\) must be"),
    ({"num_frequencies": 4}, r"num_frequencies \(=4\) must be between 2 and kernel_size \(=3\)"),
    ({"out_features": 0}, r"out_features \(=0\) must be a whole number of at least 1"),
    ({"out_features": True}, r"out_features \(=True\) must be a whole number of at least 1"),
    ({"strides": 0}, r"strides \(=0\) must be a whole number of at least 1"),
    ({"strides": (2, 1)}, r"strides \(=\(2, 1\)\) must be a whole number or a pair of equal ones"),
    ({"basis": "bicubic", "kernel_size": 4}, r"kernel_size \(=4\) must be odd"),
    ({"num_frequencies": 1}, r"num_frequencies \(=1\) must be 'few', 'all' or a whole number of at least 2"),
    ({"mask": "disk"}, r"mask \(='disk'\) must be one of adaptive, gaussian, fading"),
    ({"dtype": "float31"}, r"dtype \(='float31'\) must be a floating-point type"),
    ({"dtype": jnp.int32}, r"dtype \(=.*int32.*\) must be a floating-point type"),
    ({"precision": "best"}, r"precision \(='best'\) must be None, 'default'"),
    ({"precision": ["high", "high"]}, r"precision \(=\['high', 'high'\]\) must be None"),
    ({"precision": 7}, r"precision \(=7\) must be None"),
    ({"param_dtype": jnp.int8}, r"dtype \(=.*int8.*\) must be a floating-point type"),
]


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [(cls, *row) for cls in EVERY for row in EVERY_REFUSES]
    + [(cls, *row) for cls in SPATIAL_KINDS for row in SPATIAL_REFUSE],
)
def test_impossible_options(cls, options, message):
    with pytest.raises(ValueError, match=message):
        make(cls, **options)


@pytest.mark.parametrize(
    ("cls", "shape", "wanted"),
    [
        (fc.LiftingFConv, (2, 9, 9, 3), "8"),
        (fc.LiftingFConv, (9, 8), "8"),
        (fc.GroupFConv, (2, 9, 9, 4, 8), "8, 8"),
        (fc.GroupFConv, (2, 9, 9, 8, 3), "8, 8"),
        (fc.GroupFConv, (2, 9, 9, 8), "8, 8"),  # an image with as many channels as rotations
        (fc.ProjectingFConv, (2, 9, 9, 4, 8), "8, 8"),
        (fc.ProjectingFConv, (2, 9, 9, 8), "8, 8"),
        (Group1x1, (2, 9, 9, 4, 8), "8, 8"),
        (Lifting1x1, (2, 9, 9, 1), "8"),
    ],
)
def test_wrong_input(cls, shape, wanted):
    layer = nnx.eval_shape(lambda: make(cls, in_features=8, num_rotations=8))
    with pytest.raises(ValueError, match=rf"must be \[batch, height, width, {wanted}\]"):
        layer(jnp.zeros(shape))


@pytest.mark.parametrize("cls", SPATIAL_KINDS)
def test_an_image_below_the_kernel(cls):
    layer = nnx.eval_shape(lambda: make(cls, kernel_size=5))
    with pytest.raises(ValueError, match=r"an image of 4 x 9 with padding 0 is below the kernel \(=5\)"):
        nnx.eval_shape(lambda model: model(noise_for(model, 1, 4, 9)), layer)
