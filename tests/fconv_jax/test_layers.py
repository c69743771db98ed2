import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
import fconv_jax.layers
from fconv_jax import (
    GroupFConv,
    LiftingFConv,
    LiftingPointwiseFConv,
    PointwiseFConv,
    ProjectingFConv,
    convolve_fields,
    group_filter,
    lifting_filter,
    pointwise_filter,
    projecting_filter,
)

# Outputs and gradients of the reference, float32 on a CPU (golden README: rtol 1e-4, atol 1e-5 times the largest).
GOLDEN_RTOL, GOLDEN_ATOL = 1e-4, 1e-5
# Two orders of the same float32 sums, relative to the largest output.
SUM_TOLERANCE = 1e-5
# bfloat16 keeps 8 bits; input, kernel and output are each rounded to it once, the sums are at least that exact.
BFLOAT16_TOLERANCE = 3 * 2.0**-8
# The figure for one layer: white noise in, variance over interior pixels against a He-initialised convolution.
HE_FACTOR = 1.3

FILTERS = {"lift": lifting_filter, "reg": group_filter, "out": projecting_filter}
LAYERS = {"lift": LiftingFConv, "reg": GroupFConv, "out": ProjectingFConv}
SPATIAL = (LiftingFConv, GroupFConv, ProjectingFConv)
EVERY = (*SPATIAL, PointwiseFConv, LiftingPointwiseFConv)
CASES = [f"{kind}_k{k}_t{t}" for kind in LAYERS for k in (3, 5) for t in (4, 8)]
CASES += [f"{kind}_k{k}_t{t}_nobias_nosmooth" for kind in ("lift", "reg") for k in (3, 5) for t in (4, 8)]


def assert_golden(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=GOLDEN_RTOL, atol=GOLDEN_ATOL * np.abs(expected).max())


def assert_close(actual, expected, tolerance=SUM_TOLERANCE):
    actual, expected = np.asarray(actual, np.float32), np.asarray(expected, np.float32)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


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


class Golden:
    """One case of `layers.npz` in this library's layout."""

    def __init__(self, oracle, golden, case):
        kind = {"conv1x1_lift": "lift", "conv1x1_reg": "reg"}.get(case.rpartition("_t")[0], case.split("_")[0])
        array = {name: golden[f"{case}.{name}"] for name in ("x", "weights", "cotangent", "grad_x", "grad_weights")}
        self.t = t = int(case.split("_t")[1].split("_")[0])
        turn_in = oracle.images if kind == "lift" else functools.partial(oracle.fields, t=t)
        turn_out = oracle.images if kind == "out" else functools.partial(oracle.fields, t=t)
        self.kind, self.padding = kind, int(golden[f"{case}.padding"])
        self.x, self.grad_x = turn_in(array["x"]), turn_in(array["grad_x"])
        self.y, self.cotangent = turn_out(golden[f"{case}.y_train"]), turn_out(array["cotangent"])
        self.coefficients = oracle.coefficients(array["weights"], kind)
        self.grad_coefficients = oracle.coefficients(array["grad_weights"], kind)
        has_bias = f"{case}.c" in golden
        self.bias = golden[f"{case}.c"].reshape(-1) if has_bias else None
        self.grad_bias = golden[f"{case}.grad_c"].reshape(-1) if has_bias else None
        if has_bias:
            np.testing.assert_array_equal(golden[f"{case}.y_eval"], golden[f"{case}.y_train"])
        self.basis = golden.get(f"{case}.basis")


def layer_of(golden, **options):
    in_features, out_features = golden.coefficients.shape[-3:-1]
    return LAYERS[golden.kind](
        in_features,
        out_features,
        golden.basis.shape[0],
        num_rotations=golden.t,
        padding=golden.padding,
        use_bias=golden.bias is not None,
        rngs=nnx.Rngs(0),
        **options,
    )


@pytest.mark.parametrize("case", CASES)
def test_golden_pure_functions(goldens, oracle, case):
    """The reference's basis through the pure functions: output and the gradient of sum(y * cotangent)."""
    golden = Golden(oracle, goldens("layers"), case)

    def output(x, coefficients, bias):
        y = convolve_fields(x, FILTERS[golden.kind](coefficients, golden.basis), padding=golden.padding)
        return y if bias is None else y + bias

    arguments = (golden.x, golden.coefficients, golden.bias)
    wanted = (0, 1) if golden.bias is None else (0, 1, 2)
    y, gradients = value_and_gradients(output, golden.cotangent, wanted)(*arguments)
    assert_golden(y, golden.y)
    for gradient, expected in zip(
        gradients, (golden.grad_x, golden.grad_coefficients, golden.grad_bias)[: len(wanted)], strict=True
    ):
        assert_golden(gradient, expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("reg") or "_k5_t8" in case])
def test_golden_layers(goldens, oracle, case):
    """The same through the layers, with the coefficients carried over to this library's canonical basis.

    Every size in a group layer; the others differ from it in their pure functions alone, tested above.
    """
    golden = Golden(oracle, goldens("layers"), case)
    layer = layer_of(golden, smooth="nosmooth" not in case)
    theirs = golden.basis.reshape(-1, golden.basis.shape[-1]).astype(np.float64)
    ours = layer.fourier_basis.values.reshape(-1, layer.fourier_basis.rank).astype(np.float64)
    carry = np.linalg.lstsq(ours, theirs, rcond=None)[0]  # ours @ carry = theirs: the spans are equal
    np.testing.assert_allclose(ours @ carry, theirs, rtol=0, atol=1e-6)
    layer.coefficients[...] = jnp.asarray(golden.coefficients @ carry.T, jnp.float32)
    if golden.bias is not None:
        layer.bias[...] = jnp.asarray(golden.bias)

    y, gradient, grad_x = layer_and_gradients(layer, golden.x, golden.cotangent)
    assert_golden(y, golden.y)
    assert_golden(grad_x, golden.grad_x)
    assert_golden(np.asarray(gradient["coefficients"]) @ carry, golden.grad_coefficients)
    if golden.bias is not None:
        assert_golden(gradient["bias"], golden.grad_bias)


@pytest.mark.parametrize("t", [4, 8])
@pytest.mark.parametrize(("kind", "cls"), [("lift", LiftingPointwiseFConv), ("reg", PointwiseFConv)])
def test_golden_pointwise_layers(goldens, oracle, kind, cls, t):
    golden = Golden(oracle, goldens("layers"), f"conv1x1_{kind}_t{t}")
    layer = cls(2, 3, num_rotations=t, rngs=nnx.Rngs(0))
    layer.coefficients[...] = jnp.asarray(golden.coefficients[..., 0])
    layer.bias[...] = jnp.asarray(golden.bias)
    y, gradient, grad_x = layer_and_gradients(layer, golden.x, golden.cotangent)
    assert_golden(y, golden.y)
    assert_golden(grad_x, golden.grad_x)
    assert_golden(gradient["coefficients"], golden.grad_coefficients[..., 0])
    assert_golden(gradient["bias"], golden.grad_bias)


def make(cls, in_features=2, out_features=3, kernel_size=3, num_rotations=4, seed=0, **options):
    if issubclass(cls, PointwiseFConv):
        return cls(in_features, out_features, num_rotations, rngs=nnx.Rngs(seed), **options)
    return cls(in_features, out_features, kernel_size, num_rotations, rngs=nnx.Rngs(seed), **options)


def noise(layer, *shape, seed=0):
    """White noise `[*shape, (t), in]` for a layer."""
    lifting = isinstance(layer, (LiftingFConv, LiftingPointwiseFConv))
    axes = (layer.in_features,) if lifting else (layer.num_rotations, layer.in_features)
    return jnp.asarray(np.random.RandomState(seed).normal(size=(*shape, *axes)), jnp.float32)


@pytest.mark.parametrize("cls", SPATIAL)
@pytest.mark.parametrize(
    ("k", "t", "strides", "padding"), [(2, 1, 1, "VALID"), (3, 3, 2, "SAME"), (4, 2, 3, 2), (6, 5, 1, 1), (3, 8, 1, 0)]
)
def test_against_loops(oracle, cls, k, t, strides, padding):
    """Any size and order, strides and paddings, against filters and a convolution written as loops."""
    layer = make(cls, kernel_size=k, num_rotations=t, strides=strides, padding=padding)
    layer.bias[...] = jnp.arange(1.0, 4.0)
    kind = next(name for name, value in LAYERS.items() if value is cls)
    coefficients = np.asarray(layer.coefficients[...], np.float64)
    coefficients = coefficients if kind == "reg" else coefficients[None]
    weights = np.transpose(coefficients, (2, 1, 0, 3))
    kernel = oracle.kernel(oracle.expand(kind, weights, layer.fourier_basis.values.astype(np.float64)), kind, t)
    x = noise(layer, 2, 10, 9)
    flat = kernel.reshape(k, k, math.prod(x.shape[3:]), -1)
    width = {"VALID": 0, "SAME": k // 2}.get(padding, padding)
    expected = oracle.correlate(x.reshape(*x.shape[:3], -1), flat, strides, width)
    expected = expected.reshape(*expected.shape[:3], *kernel.shape[-1 if kind == "out" else -2 :])
    assert_close(layer(x), expected + np.arange(1.0, 4.0))


@pytest.mark.parametrize("cls", [PointwiseFConv, LiftingPointwiseFConv])
def test_pointwise_strides_take_every_second_pixel(cls):
    layer = make(cls, strides=2)
    one = make(cls, strides=1)
    x = noise(layer, 2, 7, 6)
    assert_close(layer(x), one(x)[:, ::2, ::2])


@pytest.mark.parametrize("cls", [LiftingFConv, GroupFConv, ProjectingFConv])
def test_bicubic_basis(cls):
    layer = make(cls, kernel_size=5, num_rotations=8, basis="bicubic")
    assert layer.fourier_basis is fconv_jax.bicubic_basis(5, 8)
    assert layer.coefficients.shape[-1] == 25
    assert np.all(np.isfinite(layer(noise(layer, 1, 7, 7))))


@pytest.mark.parametrize("cls", EVERY)
def test_bfloat16(cls):
    layer, exact = make(cls, dtype=jnp.bfloat16), make(cls)
    x = noise(layer, 2, 8, 8)
    y = layer(x)
    assert y.dtype == jnp.bfloat16 and layer.coefficients.dtype == jnp.float32
    assert_close(y, exact(x), BFLOAT16_TOLERANCE)
    stored = make(cls, param_dtype=jnp.bfloat16)
    assert stored.coefficients.dtype == stored.bias.dtype == jnp.bfloat16
    assert stored(x).dtype == jnp.float32  # no dtype: promoted with the input
    _, gradient, _ = layer_and_gradients(layer, x, jnp.ones_like(y))
    assert gradient["coefficients"].dtype == jnp.float32


@pytest.mark.parametrize("cls", EVERY)
def test_jit_vmap_grad_and_checkpoint_compose(cls):
    """Three seeds in one compiled program, gradients through recomputation, against one at a time."""
    layers = [make(cls, seed=seed, strides=2) for seed in range(3)]
    graph = nnx.graphdef(layers[0])
    states = [nnx.state(layer) for layer in layers]
    x = jnp.stack([noise(layers[0], 2, 7, 7, seed=seed) for seed in range(3)])

    def loss(state, x):
        return jnp.sum(jnp.sin(nnx.merge(graph, state)(x)))

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.jit(jax.vmap(jax.grad(jax.checkpoint(loss))))(stacked, x)
    alone = jax.jit(jax.grad(loss))
    for seed in range(3):
        for actual, expected in zip(
            jax.tree.leaves(jax.tree.map(lambda leaf, i=seed: leaf[i], together)),
            jax.tree.leaves(alone(states[seed], x[seed])),
            strict=True,
        ):
            assert_close(actual, expected)


@pytest.mark.parametrize("cls", EVERY)
def test_the_state_is_coefficients_and_bias(cls):
    layer = make(cls)
    graph, state = nnx.split(layer)
    assert set(nnx.to_pure_dict(state)) == {"coefficients", "bias"}
    assert set(nnx.to_pure_dict(nnx.state(make(cls, use_bias=False)))) == {"coefficients"}
    x = noise(layer, 1, 5, 5)
    np.testing.assert_array_equal(nnx.merge(graph, state)(x), layer(x))


def test_shapes_of_the_parameters():
    shapes = {cls: make(cls).coefficients.shape for cls in EVERY}
    assert shapes == {
        LiftingFConv: (2, 3, 9),
        GroupFConv: (4, 2, 3, 9),
        ProjectingFConv: (2, 3, 9),
        PointwiseFConv: (4, 2, 3),
        LiftingPointwiseFConv: (2, 3),
    }
    assert all(make(cls).bias.shape == (3,) for cls in EVERY)


def test_the_filter_of_a_layer_is_the_pure_functions():
    for kind, cls in LAYERS.items():
        layer = make(cls)
        np.testing.assert_array_equal(
            layer.filter(), FILTERS[kind](layer.coefficients[...], layer.fourier_basis.values)
        )
    layer = make(PointwiseFConv)
    x = noise(layer, 1, 1, 1)
    expected = jnp.einsum("an,anom->om", x[0, 0, 0], pointwise_filter(layer.coefficients[...]))
    assert_close(layer(x)[0, 0, 0], expected)


@pytest.mark.parametrize("cls", SPATIAL)
def test_layers_share_one_basis(cls):
    first, second = make(cls, kernel_size=5, num_rotations=8), make(cls, kernel_size=5, num_rotations=8, seed=1)
    assert first.fourier_basis is second.fourier_basis
    assert not first.fourier_basis.values.flags.writeable


# Initial weights.


def uniform_bound(values, bound, num_values):
    """Uniform within +-bound: none beyond, the largest close to it, the variance a third of its square."""
    assert values.size >= num_values
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert np.abs(values).max() > 0.98 * bound
    # The variance of n uniform numbers has a relative deviation of 0.9 / sqrt(n): four of them.
    assert np.var(values) == pytest.approx(bound**2 / 3, rel=4 * 0.9 / math.sqrt(values.size))


@pytest.mark.parametrize("cls", EVERY)
def test_report_init(cls):
    layer = make(cls, in_features=3, out_features=400, num_rotations=4, init="report")
    rank = 1 if issubclass(cls, PointwiseFConv) else 9
    expand = 4 if cls in (GroupFConv, PointwiseFConv) else 1
    bound = 1 / math.sqrt(3 * expand * rank)
    uniform_bound(np.asarray(layer.coefficients[...]), bound, 1000)
    uniform_bound(np.asarray(layer.bias[...]), bound, 400)


@pytest.mark.parametrize("cls", SPATIAL)
def test_paper_init(cls):
    layer = make(cls, in_features=3, out_features=400, kernel_size=3, num_rotations=4, init="paper", mask="gaussian")
    basis = layer.fourier_basis
    coefficients = np.asarray(layer.coefficients[...])
    for function in range(basis.rank):
        bound = math.sqrt(6 / (3 * basis.rank)) * basis.weights[function]
        uniform_bound(coefficients[..., function], bound, 1000)
    np.testing.assert_array_equal(layer.bias[...], 0.0)


@pytest.mark.parametrize("cls", SPATIAL)
@pytest.mark.parametrize("t", [1, 4, 8, 12])
def test_he_init_keeps_the_variance_of_white_noise(monkeypatch, cls, t):
    """2 times the input's variance, as a He-initialised convolution: exactly the sum of squares of a filter.

    Averaged over the filters of 64 output features (group layer: 64 / t), so that the factor is not one of chance.
    Numbers are drawn with NumPy here, since JAX compiles a generator for each of the sixty shapes.
    """
    draw = np.random.RandomState(0).uniform
    monkeypatch.setattr(fconv_jax.layers, "_uniform", lambda _, shape, bound, dtype: bound * draw(-1, 1, shape))
    group = cls is GroupFConv
    for k, options in ((2, {}), (3, {}), (4, {"smooth": False}), (5, {}), (7, {"num_frequencies": 5})):
        layer = make(cls, 4, 64 // t if group else 64, k, t, **options)
        coefficients = np.asarray(layer.coefficients[...], np.float64).reshape(-1, layer.fourier_basis.rank)
        kernel = layer.fourier_basis.values.astype(np.float64) @ coefficients.T  # [k, k, t, filters]
        per_output = layer.out_features * (1 if cls is ProjectingFConv else t)
        variance = np.sum(kernel**2) / per_output
        assert 2 / HE_FACTOR < variance < 2 * HE_FACTOR, f"k={k}: {variance:.2f}"
        np.testing.assert_array_equal(layer.bias[...], 0.0)


@pytest.mark.parametrize("cls", EVERY)
def test_he_init_on_white_noise(cls):
    """The same, measured over the interior pixels of an image beside a plain convolution's."""
    layer = make(cls, 8, 32, 5, 8, **({"padding": 2} if cls in SPATIAL else {}))
    x = noise(layer, 2, 16, 16)
    plain = nnx.Conv(
        math.prod(x.shape[3:]), 64, (3, 3), padding=2, kernel_init=nnx.initializers.he_uniform(), rngs=nnx.Rngs(1)
    )
    expected = jnp.var(plain(x.reshape(*x.shape[:3], -1))[:, 2:-2, 2:-2])
    ratio = jnp.var(layer(x)[:, 2:-2, 2:-2]) / expected
    assert 1 / HE_FACTOR < ratio < HE_FACTOR


def test_report_init_does_not_keep_the_variance():
    """Negative control, and the report's trouble: at 3x3 and 8 rotations the variance falls to about 0.01."""
    layer = make(GroupFConv, in_features=4, out_features=8, num_rotations=8, init="report", use_bias=False)
    assert 0.002 < jnp.var(layer(noise(layer, 2, 16, 16))) < 0.05


# Errors.


@pytest.mark.parametrize("cls", SPATIAL)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 1}, r"kernel_size \(=1\) must be at least 2"),
        ({"kernel_size": 0}, r"kernel_size \(=0\) must be at least 2"),
        ({"kernel_size": 4, "padding": "SAME"}, r"'SAME' needs an odd kernel_size \(=4\)"),
        ({"padding": "FULL"}, r"padding \(='FULL'\) must be 'VALID', 'SAME' or a number"),
        ({"padding": -1}, r"padding \(=-1\) must not be negative"),
        ({"padding": 0.5}, r"padding \(=0.5\)"),
        ({"num_rotations": 0}, r"num_rotations \(=0\) must be at least 1"),
        ({"num_rotations": 4.0}, r"num_rotations \(=4.0\) must be a whole number"),
        ({"num_frequencies": 4}, r"num_frequencies \(=4\) must be between 2 and kernel_size \(=3\)"),
        ({"in_features": 0}, r"in_features \(=0\) must be a whole number of at least 1"),
        ({"out_features": 0}, r"out_features \(=0\) must be a whole number of at least 1"),
        ({"out_features": True}, r"out_features \(=True\) must be a whole number of at least 1"),
        ({"strides": 0}, r"strides \(=0\) must be a whole number of at least 1"),
        ({"strides": (2, 2)}, r"strides \(=\(2, 2\)\) must be a whole number"),
        ({"init": "zeros"}, r"init \(='zeros'\) must be one of he, report, paper"),
        ({"basis": "wavelet"}, r"basis \(='wavelet'\) must be 'fourier' or 'bicubic'"),
        ({"basis": "bicubic", "kernel_size": 4}, r"kernel_size \(=4\) must be odd"),
        ({"basis": "bicubic", "num_frequencies": 2}, r"num_frequencies \(=2\) must be None"),
        ({"mask": "disk"}, r"mask \(='disk'\) must be one of adaptive, gaussian, fading"),
        ({"dtype": "float31"}, r"dtype \(='float31'\) must be a floating-point type"),
        ({"dtype": jnp.int32}, r"dtype \(=.*int32.*\) must be a floating-point type"),
        ({"param_dtype": jnp.int8}, r"dtype \(=.*int8.*\) must be a floating-point type"),
    ],
)
def test_impossible_options(cls, options, message):
    with pytest.raises(ValueError, match=message):
        make(cls, **options)


@pytest.mark.parametrize("cls", [PointwiseFConv, LiftingPointwiseFConv])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_features": 0}, r"in_features \(=0\)"),
        ({"num_rotations": 0}, r"num_rotations \(=0\)"),
        ({"strides": -2}, r"strides \(=-2\)"),
        ({"init": "zeros"}, r"init \(='zeros'\) must be one of he, report, paper"),
        ({"dtype": "int"}, r"dtype \(='int'\) must be a floating-point type"),
    ],
)
def test_impossible_pointwise_options(cls, options, message):
    with pytest.raises(ValueError, match=message):
        make(cls, **options)


@pytest.mark.parametrize(
    ("cls", "shape", "wanted"),
    [
        (LiftingFConv, (2, 9, 9, 3), "8"),
        (LiftingFConv, (9, 9, 8), "8"),
        (LiftingFConv, (2, 9, 9, 8, 8), "8"),  # a field whose number of rotations is the number of channels
        (GroupFConv, (2, 9, 9, 4, 8), "8, 8"),
        (GroupFConv, (2, 9, 9, 8, 3), "8, 8"),
        (GroupFConv, (2, 9, 9, 8), "8, 8"),  # an image with as many channels as rotations
        (ProjectingFConv, (2, 9, 9, 4, 8), "8, 8"),
        (ProjectingFConv, (2, 9, 9, 8), "8, 8"),
        (PointwiseFConv, (2, 9, 9, 4, 8), "8, 8"),
        (PointwiseFConv, (2, 9, 9, 8), "8, 8"),
        (LiftingPointwiseFConv, (2, 9, 9, 8, 8), "8"),
        (LiftingPointwiseFConv, (2, 9, 9, 1), "8"),
    ],
)
def test_wrong_input(cls, shape, wanted):
    layer = nnx.eval_shape(lambda: make(cls, in_features=8, num_rotations=8))
    with pytest.raises(ValueError, match=rf"must be \[batch, height, width, {wanted}\]"):
        layer(jnp.zeros(shape))


@pytest.mark.parametrize("cls", SPATIAL)
def test_an_image_below_the_kernel(cls):
    layer = nnx.eval_shape(lambda: make(cls, kernel_size=5))
    with pytest.raises(ValueError, match=r"an image of 4 x 9 with padding 0 is below the kernel \(=5\)"):
        nnx.eval_shape(lambda model: model(noise(model, 1, 4, 9)), layer)
