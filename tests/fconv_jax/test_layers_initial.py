"""Initial coefficients and biases of the layers: the bounds of each `init`, and the variance that "he" keeps."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax import GroupFConv, ProjectingFConv, initializers
from tests.fconv_jax.arrays import assert_uniform
from tests.fconv_jax.layer_cases import EVERY, POINTWISE_KINDS, SPATIAL_KINDS, Group1x1, make, noise_for

pytestmark = pytest.mark.unoptimized  # numbers that are drawn are drawn either way

# The figure for one layer: white noise in, variance over interior pixels against a He-initialised convolution.
HE_FACTOR = 1.3


def assert_fills(values, bound, num_values):
    """Uniform within +-bound, the largest of many close to it."""
    assert values.size >= num_values
    assert_uniform(values, bound)
    assert np.abs(values).max() > 0.98 * bound


@pytest.mark.parametrize("cls", EVERY)
def test_report_init(cls):
    layer = make(cls, in_features=3, out_features=400, init="report")
    rank = 1 if cls in POINTWISE_KINDS else 9
    expand = 4 if cls in (GroupFConv, Group1x1) else 1
    bound = 1 / math.sqrt(3 * expand * rank)
    assert_fills(np.asarray(layer.coefficients[...]), bound, 1000)
    assert_fills(np.asarray(layer.bias[...]), bound, 400)


@pytest.mark.parametrize("cls", SPATIAL_KINDS)
def test_paper_init(cls):
    layer = make(cls, in_features=3, out_features=400, init="paper", mask="gaussian")
    basis, coefficients = layer.sampled_basis, np.asarray(layer.coefficients[...])
    for function in range(basis.rank):
        bound = math.sqrt(6 / (3 * basis.rank)) * basis.weights[function]
        assert_fills(coefficients[..., function], bound, 1000)
    np.testing.assert_array_equal(layer.bias[...], 0.0)


@pytest.mark.parametrize("cls", SPATIAL_KINDS)
@pytest.mark.parametrize("t", [1, 4, 8, 12])
def test_he_init_keeps_the_variance_of_white_noise(monkeypatch, cls, t):
    """2 times the input's variance, as a He-initialised convolution: exactly the sum of squares of a filter.

    Averaged over the filters of 64 output features (group layer: 64 / t), so that the factor is not one of chance.
    Numbers are drawn with NumPy here, since JAX compiles a generator for each of the sixty shapes.
    """
    draw = np.random.RandomState(0).uniform
    monkeypatch.setattr(initializers, "_uniform", lambda _, shape, dtype, bound: bound * draw(-1, 1, shape))
    group = cls is GroupFConv
    for k, options in ((2, {}), (3, {}), (4, {"smooth": False}), (5, {}), (7, {"num_frequencies": 5})):
        layer = make(cls, 4, 64 // t if group else 64, k, t, **options)
        coefficients = np.asarray(layer.coefficients[...], np.float64).reshape(-1, layer.sampled_basis.rank)
        kernel = layer.sampled_basis.values.astype(np.float64) @ coefficients.T  # [k, k, t, filters]
        per_output = layer.out_features * (1 if cls is ProjectingFConv else t)
        variance = np.sum(kernel**2) / per_output
        assert 2 / HE_FACTOR < variance < 2 * HE_FACTOR, f"k={k}: {variance:.2f}"
        np.testing.assert_array_equal(layer.bias[...], 0.0)


@pytest.mark.parametrize("cls", EVERY)
def test_he_init_on_white_noise(cls):
    """The same, measured over the interior pixels of an image beside a plain convolution's."""
    layer = make(cls, 8, 32, 5, 8, **({"padding": 2} if cls in SPATIAL_KINDS else {}))
    x = noise_for(layer, 2, 16, 16)
    he = nnx.initializers.he_uniform()
    plain = nnx.Conv(math.prod(x.shape[3:]), 64, (3, 3), padding=2, kernel_init=he, rngs=nnx.Rngs(1))
    expected = jnp.var(plain(x.reshape(*x.shape[:3], -1))[:, 2:-2, 2:-2])
    ratio = jnp.var(layer(x)[:, 2:-2, 2:-2]) / expected
    assert 1 / HE_FACTOR < ratio < HE_FACTOR


def test_report_init_does_not_keep_the_variance():
    """Negative control, and the report's trouble: at 3x3 and 8 rotations the variance falls to about 0.01."""
    layer = make(GroupFConv, in_features=4, out_features=8, num_rotations=8, init="report", use_bias=False)
    assert 0.002 < jnp.var(layer(noise_for(layer, 2, 16, 16))) < 0.05


def he_by_name(key, shape, dtype, *, facts):
    return fc.initializers.he_smooth()(key, shape, dtype, facts)


@pytest.mark.parametrize("function", [
    nnx.with_metadata(fc.initializers.he_smooth(), of="edges"),  # passes on no names
    he_by_name,
    lambda key, shape, dtype, more=None, facts=None: he_by_name(key, shape, dtype, facts=facts),
])  # fmt: skip
def test_an_initialiser_gets_the_facts_however_it_takes_them(function):
    expected = fc.LiftingFConv(2, 4, 3, 8, rngs=nnx.Rngs(0)).coefficients[...]
    found = fc.LiftingFConv(2, 4, 3, 8, coefficient_init=function, rngs=nnx.Rngs(0)).coefficients[...]
    np.testing.assert_array_equal(found, expected)


@dataclasses.dataclass
class Constant:
    """An initialiser that cannot be hashed, as `nnx.Conv` takes it."""

    value: float

    def __call__(self, key, shape, dtype):
        return jnp.full(shape, self.value, dtype)


def test_an_initialiser_that_cannot_be_hashed():
    layer = fc.LiftingFConv(1, 2, 3, 4, coefficient_init=Constant(2.0), rngs=nnx.Rngs(0))
    assert (layer.coefficients[...] == 2.0).all()


@pytest.mark.parametrize("init", ["he", "report", "paper"])
def test_a_filter_of_feature_groups_is_drawn_for_the_features_that_it_sees(init):
    parts, part = make(GroupFConv, 4, 6, init=init, feature_group_count=2), make(GroupFConv, 2, 6, init=init)
    np.testing.assert_array_equal(parts.coefficients[...], part.coefficients[...], strict=True)
