"""The law of the layers: exact under rotations by 90 degrees."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from fconv_jax import GroupFConv, LiftingFConv, ProjectingFConv
from tests.fconv_jax.arrays import noise, rotate
from tests.fconv_jax.layer_cases import (
    EVERY,
    POINTWISE_KINDS,
    SPATIAL_KINDS,
    Group1x1,
    make,
    noise_for,
    reference_options,
)

pytestmark = pytest.mark.unoptimized  # exact whatever the order of sums, or wrong by far

# A rotation by 90 degrees only permutes pixels and rotations: what is left is the order of float32 sums, relative to
# the largest output (the figure).
QUARTER_TOLERANCE = 1e-5
# A function without the law is off by about its own size; anything above this is no rounding.
BROKEN = 0.05

backwards = functools.partial(rotate, shift=-1)
pixels_only = functools.partial(rotate, shift=0)


def he_uniform(key, shape, dtype):
    """He's uniform kernel, drawn with NumPy: JAX compiles a generator for each shape, which takes seconds."""
    bound = np.sqrt(6 / np.prod(shape[:-1]))
    return jnp.asarray(np.random.RandomState(0).uniform(-bound, bound, shape), dtype)


@functools.cache
def compiled(function):
    """Weights are arguments of the compiled program: as constants they would be folded, which is slow."""
    if not isinstance(function, nnx.Module):
        return jax.jit(function)
    graph, state = nnx.split(function)
    run = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    return lambda x: run(state, x)


def assert_law(function, x, *, rotate_out=rotate, rotate_in=rotate):
    """function(R x) = R function(x) to `QUARTER_TOLERANCE` of the largest output."""
    function = compiled(function)
    expected = rotate_out(function(x))
    atol = QUARTER_TOLERANCE * float(jnp.abs(expected).max())
    chex.assert_trees_all_close(function(rotate_in(x)), expected, rtol=0, atol=atol)


def assert_no_law(function, x, *, rotate_out=rotate, rotate_in=rotate):
    """The negative control: the assertion above fails, and by far."""
    with pytest.raises(AssertionError):
        assert_law(function, x, rotate_out=rotate_out, rotate_in=rotate_in)
    function = compiled(function)
    expected = rotate_out(function(x))
    assert jnp.linalg.norm(function(rotate_in(x)) - expected) / jnp.linalg.norm(expected) > BROKEN


@functools.cache
def biased(cls, t, k=3, **options):
    """A layer whose bias is not zero, so that a bias for each rotation would show."""
    layer = make(cls, kernel_size=k, num_rotations=t, **options)
    layer.bias[...] = jnp.arange(1.0, 4.0)
    return layer


def square(layer, size):
    return noise_for(layer, 2, size, size)


@pytest.mark.parametrize("t", [4, 8, 12])
@pytest.mark.parametrize("cls", EVERY)
def test_quarter_rotation(cls, t):
    layer = biased(cls, t)
    for size in (8, 9):
        assert_law(layer, square(layer, size))


@pytest.mark.parametrize("cls", EVERY)
def test_quarter_rotation_of_oblong_images(cls):
    layer = biased(cls, 4)
    assert_law(layer, noise_for(layer, 2, 9, 6))


@pytest.mark.parametrize("cls", SPATIAL_KINDS)
@pytest.mark.parametrize(
    ("k", "options"),
    [
        (2, {}),
        (4, {"padding": 1, "smooth": False}),
        (5, {"padding": "SAME", "mask": "gaussian", "num_frequencies": 4}),
        (5, {"padding": 1, "basis": "bicubic"}),
        (5, {"padding": "SAME", "mask": "fading", "num_frequencies": 3}),
    ],
)
def test_quarter_rotation_of_every_option(cls, k, options):
    layer = biased(cls, 8, k, **options)
    assert_law(layer, square(layer, 9))
    if cls is not ProjectingFConv:
        assert_no_law(layer, square(layer, 9), rotate_out=backwards)


@pytest.mark.parametrize("t", [4, 8, 12])
@pytest.mark.parametrize("cls", [*SPATIAL_KINDS, Group1x1])
def test_a_shift_in_the_wrong_direction_fails(cls, t):
    """Negative control, of the output's shift and the input's, where the output (the input) is a field.

    A lifting 1x1 is left out: it is the same at every rotation, so that any shift holds there.
    """
    layer = biased(cls, t)
    x = square(layer, 8)
    if cls is not ProjectingFConv:
        assert_no_law(layer, x, rotate_out=backwards)
        assert_no_law(layer, x, rotate_out=pixels_only)
    if cls is not LiftingFConv:
        assert_no_law(layer, x, rotate_in=backwards)


@pytest.mark.parametrize("t", [4, 8, 12])
def test_a_plain_convolution_fails(t):
    """Negative control: the same channels and sizes, read as a field or as an image."""
    plain = nnx.Conv(2, 3 * t, (3, 3), padding="VALID", kernel_init=he_uniform, rngs=nnx.Rngs(0))
    x = noise(2, 8, 8, 2)
    assert_no_law(plain, x)
    assert_no_law(plain, x, rotate_out=lambda y: rotate(y.reshape(2, 6, 6, t, 3)).reshape(y.shape))


def test_orders_that_four_does_not_divide_have_no_quarter_rotation():
    """With t = 6, 180 degrees are exact; 120 move two rotations but do not permute pixels."""
    layer = biased(GroupFConv, 6)

    def half(x):
        return jnp.roll(jnp.rot90(x, 2, axes=(1, 2)), 3, axis=3)

    x = square(layer, 7)
    assert_law(layer, x, rotate_in=half, rotate_out=half)
    assert_no_law(layer, x)


@pytest.mark.parametrize(
    ("cls", "size", "options"),
    [
        (cls, size, {"k": k, "strides": strides, "padding": padding})
        for cls in SPATIAL_KINDS
        for size, k, strides, padding in [(9, 3, 2, 0), (9, 3, 2, 1), (8, 4, 2, 1), (8, 2, 2, 0), (10, 4, 3, 0)]
    ]
    + [(cls, 7, {"strides": 2}) for cls in POINTWISE_KINDS],
)
def test_a_stride_keeps_the_law_where_it_divides(cls, size, options):
    """The stride divides (size + 2 padding - k): exact.  One pixel more, and it is not."""
    layer = biased(cls, 4, **options)
    assert_law(layer, square(layer, size))
    with pytest.warns(fconv_jax.EquivarianceWarning, match="do not divide"):
        assert_no_law(layer, square(layer, size + 1))


@pytest.mark.parametrize(
    ("sizes", "options", "words"),
    [
        ((8, 8), {}, r"\(8 \+ 2 - 3\): quarter turns break; use a kernel of 4 with padding 1, or no stride"),
        ((9, 10), {"strides": 3, "padding": 0}, r"\(10 \+ 0 - 3\)"),
        ((9, 8), {}, r"\(8 \+ 2 - 3\): quarter turns break; use no stride"),  # no kernel fits both sides
        ((8, 10), {"kernel_dilation": 2}, r"\(8 \+ 4 - 5\): quarter turns break; use no stride"),
        ((9, 9), {"kernel_dilation": 2, "strides": 3}, "use a kernel of 4 with padding 2"),
        ((8, 8), {"padding": "CIRCULAR"}, "use no stride"),
        ((8, 8), {"padding": "REFLECT"}, "use no stride"),
        ((8, 8), {"kernel_size": 1}, "use no stride"),
        ((20, 20), {"kernel_dilation": 9}, "use no stride"),  # a smaller kernel may lack the frequencies
        ((9, 9), {"strides": 3, "basis": fconv_jax.Bicubic()}, "use a kernel of 3 with padding 0"),
        ((8, 8), {"group": 2}, "half turns break; use a kernel of 4"),
        ((8, 8), {"group": 6}, "half turns break"),
        ((8, 8), {"group": fconv_jax.Group(6, True)}, "half turns and mirrors break"),
        ((8, 8), {"group": fconv_jax.Group(3, True)}, ": mirrors break"),
        ((8, 8), {"group": 3}, None),  # no element moves pixels onto pixels
    ],
)
def test_what_is_advised_on_a_stride_fits(sizes, options, words):
    options = {"kernel_size": 3, "group": 4, "strides": 2, "rngs": nnx.Rngs(0)} | options
    layer, x = LiftingFConv(1, 1, **options), noise(1, *sizes, 1)
    if words is None:
        layer(x)
        return
    move = {"group": layer.group} | ({"angle": 0, "mirror": True} if layer.group.num_rotations % 2 else {"angle": 180})
    with pytest.warns(fconv_jax.EquivarianceWarning, match=words) as warned:
        error = fconv_jax.equivariance_error(layer, x, **move)
    assert error > BROKEN
    if advised := re.search(r"a kernel of (\d+) with padding (\d+)", str(warned[0].message)):
        options |= {"kernel_size": int(advised[1]), "padding": int(advised[2])}
        fitting = LiftingFConv(1, 1, **options)  # a warning is an error here
        assert fconv_jax.equivariance_error(fitting, x, **move) < QUARTER_TOLERANCE


class Chain(nnx.Module):
    """Three layers with ReLUs between; `plain`: He-initialised plain convolutions of the same sizes and widths."""

    def __init__(self, t, k, *, padding, plain=False, seed=0, **options):
        rngs = nnx.Rngs(seed)
        if plain:
            padding = ((padding, padding), (padding, padding))
            sizes = ((2, 4 * t), (4 * t, 4 * t), (4 * t, 8))
            layers = [nnx.Conv(n, m, (k, k), padding=padding, kernel_init=he_uniform, rngs=rngs) for n, m in sizes]
        else:
            kinds = ((LiftingFConv, 2, 4), (GroupFConv, 4, 4), (ProjectingFConv, 4, 8))
            options = reference_options(padding=padding, **options)
            layers = [cls(n, m, k, t, rngs=rngs, **options) for cls, n, m in kinds]
        self.layers = nnx.List(layers)

    def __call__(self, x):
        first, second, third = self.layers
        return third(nnx.relu(second(nnx.relu(first(x)))))


@pytest.mark.parametrize(("t", "k"), [(4, 3), (8, 5), (12, 4)])
def test_chains(t, k):
    """Image to field to field to image, three times."""
    chain = Chain(t, k, padding=2)
    for size in (9, 10):
        assert_law(chain, noise(2, size, size, 2))


def test_a_chain_of_plain_convolutions_fails():
    """Negative control, of the same sizes and widths."""
    for size in (9, 10):
        assert_no_law(Chain(8, 5, padding=2, plain=True), noise(2, size, size, 2))


@pytest.mark.parametrize("size", [8, 9])
def test_a_chain_with_pools_and_every_kind_of_layer(size):
    """A whole equivariant network: batch norm on fields, symmetric pools, a maximum over rotations."""
    rngs = nnx.Rngs(0)
    lift, mix = LiftingFConv(2, 4, 5, 8, rngs=rngs), GroupFConv(4, 4, 1, 8, rngs=rngs)
    norm, group = nnx.BatchNorm(4, use_running_average=False, rngs=rngs), GroupFConv(4, 4, 3, 8, padding=1, rngs=rngs)

    def network(x, pool=fconv_jax.spatial_max_pool):
        x = pool(nnx.relu(nnx.view(norm, use_running_average=True)(lift(x))))
        return fconv_jax.max_over_group(group(mix(x)))

    x = noise(2, size, size, 2)
    assert_law(network, x)
    if size % 2:
        assert_no_law(functools.partial(network, pool=fconv_jax.torch_reference.corner_max_pool), x)


@pytest.mark.parametrize("t", [4, 8, 12])
def test_rotate_features_is_the_law_of_these_tests(t):
    """`rotate_field` and `equivariance_error` against the rotation written out in `arrays`."""
    layer = biased(GroupFConv, t)
    x = square(layer, 7)
    chex.assert_trees_all_equal(fconv_jax.rotate_field(x, 90), rotate(x))
    assert float(fconv_jax.equivariance_error(layer, x, 90)) < QUARTER_TOLERANCE
    assert float(fconv_jax.equivariance_error(lambda x: jnp.flip(layer(x), 3), x, 90)) > BROKEN
