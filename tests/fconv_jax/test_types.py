"""Images of every type: pixels are computed with as in float32, and measured so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax._precision import norm, relative_error
from tests.fconv_jax import every
from tests.fconv_jax.arrays import assert_close

# A type against another in the same program, or an error far from its bar.
pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

TYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16", "float32"]
# One of each kind; the others, which go the same ways, before a release.
MARKS = {dtype: [pytest.mark.long] for dtype in TYPES if dtype not in ("bool", "uint8", "int32", "bfloat16")}
# Rounding of the type, in which a floating-point result is given back.
ROUNDING = {"float16": 2.0**-9, "bfloat16": 2.0**-6}


def pixels(dtype, *shape, seed=0):
    """Whole numbers up to the type's limits, 200 and 30,000."""
    random = np.random.RandomState(seed)
    if dtype == "bool":
        return jnp.asarray(random.randint(0, 2, shape), dtype)
    low, high = (jnp.iinfo(dtype).min, jnp.iinfo(dtype).max) if "int" in dtype else (-30000, 30000)
    return jnp.asarray(random.randint(max(low, -30000), min(high, 30000) + 1, shape), dtype)


# Each function in each type; pools of images, which are those of fields, in two types but before a release.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name,
            dtype,
            marks=MARKS.get(dtype, [pytest.mark.long] * (name.endswith("_4") and dtype not in ("uint8", "bfloat16"))),
        )
        for name in every.FUNCTIONS
        if name not in ("dropout", "disk")
        for dtype in TYPES
    ],
)
def test_every_type_gives_what_float32_gives(name, dtype):
    function, axes = every.FUNCTIONS[name]
    x = pixels(dtype, 2, *every.SHAPES[axes])
    y, expected = function(x), np.asarray(function(x.astype(jnp.float32)))
    if "rotate" in name or "max" in name:
        assert y.dtype == x.dtype
    if y.dtype == dtype and not jnp.issubdtype(y.dtype, jnp.inexact):
        limits = (0, 1) if dtype == "bool" else (jnp.iinfo(dtype).min, jnp.iinfo(dtype).max)
        expected = np.round(np.clip(expected, *limits))
        assert np.abs(np.asarray(y, np.float64) - expected).max() <= (dtype in ("int32", "uint32"))
    else:
        assert_close(y.astype(jnp.float32), expected, ROUNDING.get(dtype, 1e-6))


def test_extremes_neither_wrap_nor_overflow():
    assert fc.spatial_mean_pool(jnp.full((1, 2, 2, 1), 200, jnp.uint8)).item() == 200
    assert fc.spatial_mean_pool(jnp.full((1, 2, 2, 1), 60000, jnp.float16)).item() == 60000
    top = jnp.full((1, 8, 8, 1), 255, jnp.uint8).at[0, 4:].set(0)
    turned = fc.rotate_image(top, 30)
    assert_close(turned, jnp.clip(jnp.round(fc.rotate_image(top.astype(jnp.float32), 30)), 0, 255))
    low = jnp.full((1, 4, 4, 1), -100, jnp.int8)
    assert int(fc.spatial_max_pool(low, 3, strides=2, padding=1).max()) == -100
    assert int(fc.torch_reference.corner_max_pool(low, 2, padding=1).max()) == -100
    most = jnp.full((1, 4, 4, 1), 2**32 - 1, jnp.uint32)
    assert int(fc.rotate_image(most, 30).max()) == 2**32 - 1
    with pytest.raises(ValueError, match="must be real numbers"):
        fc.spatial_max_pool(jnp.ones((1, 4, 4, 1), jnp.complex64))


@pytest.mark.parametrize("dtype", [pytest.param(dtype, marks=MARKS.get(dtype, [])) for dtype in TYPES])
def test_an_error_is_that_of_float32(dtype):
    x = jnp.asarray(np.random.RandomState(0).randint(0, 2 if dtype == "bool" else 31, (1, 7, 7, 2)), dtype)
    expected = float(fc.equivariance_error(fc.torch_reference.corner_max_pool, x.astype(jnp.float32)))
    assert expected > 0.03
    assert float(fc.equivariance_error(fc.torch_reference.corner_max_pool, x)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(AssertionError, match="relative equivariance error"):
        fc.assert_equivariant(fc.torch_reference.corner_max_pool, x)
    for pool in map(jax.jit, (fc.spatial_max_pool, fc.spatial_mean_pool, fc.blur_pool)):
        fc.assert_equivariant(pool, x)
        fc.assert_equivariant(pool, x, margin=10)


@pytest.mark.parametrize("dtype", ["bool", "uint8"])
@pytest.mark.parametrize("angle", [30, 45])
def test_rounding_rotated_pixels_is_no_error_of_a_function(dtype, angle):
    """At angles between the pixels: an equivariant function has the error of float32 images, nearly none."""
    x = jnp.asarray(np.random.RandomState(0).randint(0, 2, (1, 9, 9, 2)), dtype)
    assert float(fc.equivariance_error(lambda x: 3.0 * x, x, angle)) < 1e-6
    assert float(fc.equivariance_error(fc.torch_reference.corner_max_pool, x, angle)) > 0.1  # negative control
    wide = fc.equivariance_error(fc.torch_reference.corner_max_pool, x.astype(jnp.float32), angle)
    assert float(fc.equivariance_error(fc.torch_reference.corner_max_pool, x, angle)) == float(wide)


@pytest.mark.parametrize("name", [name for name in every.FUNCTIONS if name != "dropout"])
def test_float64_of_numpy_is_the_float32_of_jax(name):
    """Without jax's 64 bits, which is the default: no warning, no other type."""
    function, axes = every.FUNCTIONS[name]
    x = np.random.RandomState(0).normal(size=(2, *every.SHAPES[axes]))
    expected = function(jnp.asarray(x))
    assert expected.dtype == jnp.float32
    np.testing.assert_array_equal(function(x), expected, strict=True)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1.0, 1e20, 1e38])
def test_no_square_overflows(scale):
    a, b = (jnp.asarray(np.random.RandomState(seed).uniform(0.5, 1, 40) * scale, jnp.float32) for seed in (0, 1))
    expected = np.linalg.norm(np.float64(a) - np.float64(b)) / np.linalg.norm(np.float64(b))
    assert float(relative_error(a, b)) == pytest.approx(expected, rel=1e-5)
    assert float(relative_error(a, a)) == 0.0
    assert float(norm(jnp.full(4, 30000, jnp.float16))) == 60000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_what_is_equivariant_passes_and_of_what_is_not_fails(dtype):
    layer = fc.LiftingFConv(1, 4, 5, 8, param_dtype=dtype, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.RandomState(0).uniform(0, 30, (2, 9, 9, 1)), dtype)
    assert layer(x).dtype == dtype
    fc.assert_equivariant(layer, x)
    plain = nnx.Conv(1, 4, (3, 3), param_dtype=dtype, rngs=nnx.Rngs(0))
    with pytest.raises(AssertionError):
        fc.assert_equivariant(plain, x)


class Two(nnx.Module):
    """A kind of convolution twice."""

    def __init__(self, kind, dtype):
        options = {"param_dtype": dtype, "rngs": nnx.Rngs(0)}
        self.first = nnx.Conv(1, 3, (3, 3), **options) if kind == "plain" else fc.LiftingFConv(1, 3, 3, **options)
        self.second = nnx.Conv(3, 3, (3, 3), **options) if kind == "plain" else fc.GroupFConv(3, 3, 3, **options)

    def __call__(self, x):
        """Returns the output of both."""
        return self.second(nnx.relu(self.first(x)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_an_audit_sees_through_half_precision(dtype):
    images = jnp.asarray(np.random.RandomState(0).uniform(0, 30, (2, 9, 9, 1)), dtype)
    report = fc.audit(Two("plain", dtype), (9, 9, 1), images=images, angles=())
    assert [stage.name for stage in report.breaking] == ["first", "second"]
    assert "a plain convolution" in report.first_break.reason
    kept = fc.audit(Two("fconv", dtype), (9, 9, 1), images=images, angles=())
    assert kept.first_break is None, str(kept)
    assert "quarter turns are exact" in str(kept)


def test_an_audit_is_not_blinded_by_norms_above_the_largest_float16():
    """Of 28 x 28 x 12 outputs about 5, the squares' sum is infinite, that of the differences is not."""
    options = {"param_dtype": jnp.float16, "bias_init": nnx.initializers.constant(5.0), "rngs": nnx.Rngs(0)}
    images = jnp.ones((2, 28, 28, 1), jnp.float16)
    report = fc.audit(nnx.Conv(1, 12, (3, 3), **options), (28, 28, 1), images=images, angles=())
    assert report.stages[0].own_error == pytest.approx(0.28, abs=0.05)
    assert "a plain convolution" in report.first_break.reason


@pytest.mark.parametrize("strides", [1, 2])
def test_a_stride_that_fits_is_never_a_reason(strides):
    class Broken(fc.LiftingFConv):
        def __call__(self, x):
            return super().__call__(x).at[:, 0].set(1.0)

    layer = Broken(1, 2, 3, strides=strides, padding="VALID", rngs=nnx.Rngs(0))
    assert (
        fc.audit(layer, (9, 9, 1), angles=()).first_break.reason == "it does not commute with quarter turns (scatter)"
    )
    if strides == 2:
        with pytest.warns(fc.EquivarianceWarning, match="a kernel of 4 with padding 0"):
            layer(jnp.ones((1, 10, 10, 1)))
        assert "its stride of 2 does not fit" in fc.audit(layer, (10, 10, 1), angles=()).first_break.reason


def test_a_disk_fades_whole_numbers_as_it_does_others():
    x = jnp.full((1, 9, 9, 1), 200, jnp.uint8)
    assert_close(fc.symmetry.inside_disk(x, 10), fc.symmetry.inside_disk(x.astype(jnp.float32), 10))


def test_float64_stays():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.RandomState(0).normal(size=(1, 7, 7, 8, 2)))
        for pool in every.POOLS.values():
            assert pool(x).dtype == jnp.float64
        assert fc.rotate_field(x, 45).dtype == jnp.float64
        assert fc.equivariance_error(fc.blur_pool, x).dtype == jnp.float64
        assert int(fc.rotate_image(jnp.full((1, 4, 4, 1), 2**62, jnp.int64), 90).max()) == 2**62
