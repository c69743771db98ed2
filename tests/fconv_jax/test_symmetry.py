"""The measure of equivariance, each case with a negative control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise
from tests.fconv_jax.layer_cases import make
from tests.fconv_jax.test_turns import blob

pytestmark = pytest.mark.unoptimized  # exact whatever the order of sums, or wrong by far

ROUNDING = 1e-5
D4 = fc.Group(4, reflections=True)


def lifting(*sizes, **options):
    return make(fc.LiftingFConv, *(sizes or (1, 2, 5, 8)), **options)


class TwoGroups(nnx.Module):
    """The field of one layer, beside another one of as many elements."""

    def __init__(self):
        self.used, self.other = (fc.LiftingFConv(1, 2, 3, group, rngs=nnx.Rngs(0)) for group in (8, D4))

    def __call__(self, x):
        return self.used(x)


@pytest.mark.parametrize(
    ("function", "shape", "options", "message"),
    [
        (jnp.tanh, (1, 4, 5, 1), {"margin": 2}, "square images"),
        (jnp.tanh, (1, 4, 4, 1), {"margin": "wide"}, r"margin \(=wide\) must be a finite number"),
        (lambda x: x[:, :2], (1, 4, 4, 1), {}, "for the rotated input"),
        (lambda x: {}, (1, 4, 4, 1), {}, "returns no array"),
        (TwoGroups(), (1, 4, 4, 1), {}, "8 elements may be of C8 or D4: give group="),
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
    band_limited = lifting(1, 8, 7, 8, num_frequencies=3, padding="SAME", init="paper")
    all_frequencies = lifting(1, 8, 7, 8, padding="SAME", init="paper")
    plain = nnx.Conv(1, 8, (7, 7), rngs=nnx.Rngs(0))
    assert 1e-5 < fc.equivariance_error(band_limited, x, 45, margin=2) < 0.05
    assert 0.1 < fc.equivariance_error(all_frequencies, x, 45, margin=2) < 0.5
    assert fc.equivariance_error(plain, x, 45, margin=2) > 0.5


def test_a_margin_may_be_an_array_of_one_number():
    layer, x = lifting(), jnp.asarray(np.random.default_rng(0).random((1, 15, 15, 1), np.float32))
    errors = [float(fc.equivariance_error(layer, x, 45, margin=kind(3))) for kind in (float, jnp.float32)]
    assert errors[0] == errors[1] > 0


def test_the_error_of_nothing_is_zero_and_it_can_be_compiled():
    assert fc.equivariance_error(jnp.zeros_like, noise(1, 4, 4, 1)) == 0.0
    compiled = jax.jit(lambda x: fc.equivariance_error(fc.torch_reference.corner_max_pool, x))
    x = noise(1, 7, 7, 2)
    np.testing.assert_allclose(compiled(x), fc.equivariance_error(fc.torch_reference.corner_max_pool, x), rtol=1e-5)


def slopes(x):
    return jnp.stack(jnp.gradient(x, axis=(1, 2)), axis=3)


KINDS = [
    (slopes, "vector", True),
    (lambda x: slopes(x)[..., ::-1, :], "vector", False),  # components exchanged
    (lambda x: slopes(x).mean((1, 2)), "vector", True),
    (slopes, "scalar", None),
    (lambda x: x[..., 0], "scalar", True),
    (lambda x: x[:, ::-1, :, 0], "scalar", False),
    (lambda x: lifting()(x), "field", True),
    (lambda x: (x, slopes(x)), (None, "vector"), True),
    (lambda x: (x, slopes(x)), (None, "field"), None),
    (lambda x: {"b": x[..., 0], "a": slopes(x)}, {"a": "vector", "b": "scalar"}, True),
    (lambda x: {"b": x[:, ::-1], "a": slopes(x)}, {"a": "vector", "b": None}, False),
]


@pytest.mark.parametrize(("function", "kind", "equivariant"), KINDS)
def test_what_rotates_follows_from_the_kind_of_the_output(function, kind, equivariant):
    x = noise(2, 7, 7, 2) if kind != "field" else noise(2, 7, 7, 1)
    if equivariant is None:
        with pytest.raises(ValueError, match=r"360 / 2|is not a scalar"):
            fc.equivariance_error(function, x, kind=kind)
        return
    for angle in (90, 180, 270) if equivariant else (90,):
        assert (fc.equivariance_error(function, x, angle, kind=kind) < ROUNDING) == equivariant
    if equivariant:
        fc.assert_equivariant(function, x, kind=kind)


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (slopes, "image", "must be one of scalar, field, vector"),
        (lambda x: (x, x), ("scalar",), "must match the output"),
        (lambda x: x, "vector", "is not a vector"),
    ],
)
def test_a_kind_that_cannot_be_is_named(function, kind, message):
    with pytest.raises(ValueError, match=message):
        fc.equivariance_error(function, noise(1, 4, 4, 1), kind=kind)


def test_mirrors_are_measured_and_plain_kernels_fail():
    lifting = fc.LiftingFConv(1, 2, 3, D4, rngs=nnx.Rngs(0))
    x = noise(2, 7, 7, 1)
    for angle in (0, 90, 270):
        fc.assert_equivariant(lifting, x, angle, mirror=True)
        fc.assert_equivariant(lambda x: lifting(x), x, angle, mirror=True, group=D4)
    with pytest.raises(AssertionError, match="a mirror and 0 degrees"):
        fc.assert_equivariant(nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), x, 0, mirror=True)
    rotations = fc.LiftingFConv(1, 2, 3, 4, rngs=nnx.Rngs(0))
    invariant = lambda x: fc.max_over_group(rotations(x))  # noqa: E731
    fc.assert_equivariant(invariant, x)
    assert fc.equivariance_error(invariant, x, 0, mirror=True) > 0.1  # C4 knows no mirror


def test_a_field_of_reflections_rotates_by_its_own_group():
    group = fc.GroupFConv(1, 2, 3, D4, rngs=nnx.Rngs(0))
    x = noise(2, 7, 7, 8, 1)
    fc.assert_equivariant(group, x)  # the module says its group
    fc.assert_equivariant(lambda x: group(x), x, group=D4)
    assert fc.equivariance_error(lambda x: group(x), x, group=8) > 0.1  # negative control: as C8 it is no such field
    with pytest.raises(ValueError, match="must have reflections"):
        fc.equivariance_error(lambda x: group(x), x, mirror=True)
    with pytest.raises(ValueError, match="must have 4 elements for C4"):
        fc.equivariance_error(lambda x: group(x), x, group=4)


def test_vectors_mirror_too():
    x = noise(2, 7, 7, 1)
    fc.assert_equivariant(slopes, x, 90, mirror=True, kind="vector")
    with pytest.raises(AssertionError):
        fc.assert_equivariant(lambda x: slopes(x)[..., ::-1, :], x, 0, mirror=True, kind="vector")
    fc.assert_equivariant(lambda x: x[..., 0], x, 0, mirror=True, kind="scalar")


def test_a_scalar_without_a_channel_axis_is_measured_inside_the_disk_too():
    def wrong_in_a_corner(x):
        return x + jnp.zeros((33, 33, 1)).at[0, 0].set(50.0)

    x, options = noise(2, 33, 33, 1), {"kind": "scalar", "margin": 10}
    assert fc.equivariance_error(lambda x: wrong_in_a_corner(x)[..., 0], x, **options) < ROUNDING
    assert fc.equivariance_error(lambda x: wrong_in_a_corner(x)[..., 0], x, kind="scalar") > 0.1


def test_a_measurement_leaves_running_averages_as_they_are():
    block = fc.ResidualBlock(2, 2, 3, 4, norm="batch", rngs=nnx.Rngs(0))
    fc.assert_equivariant(block, noise(2, 8, 8, 4, 2))
    np.testing.assert_array_equal(block.norm1.mean[...], 0)
    block(noise(2, 8, 8, 4, 2))
    assert jnp.any(block.norm1.mean[...] != 0)  # a call of one's own does move them


def test_a_field_whose_group_was_guessed_is_named():
    layer, x = lifting(2, 3, 3, D4), noise(2, 8, 8, 2)
    fc.assert_equivariant(layer, x)
    with pytest.raises(AssertionError, match="taken for one of C8: give group= if not"):
        fc.assert_equivariant(lambda x: layer(x), x)
    with pytest.raises(AssertionError, match="taken for one of C8"):
        fc.assert_equivariant(lambda x: layer(x).mean((1, 2)), x)
    fc.assert_equivariant(lambda x: layer(x), x, group=D4)
    with pytest.raises(AssertionError, match=r"is above 1e-05$"):
        fc.assert_equivariant(lambda x: x[:, :, ::-1] * jnp.arange(8.0)[:, None], x)


def test_the_gradient_of_an_error_of_zero_is_zero():
    x = noise(1, 6, 6, 1)
    np.testing.assert_array_equal(jax.grad(lambda x: fc.equivariance_error(jnp.square, x))(x), 0)
    slope = jax.grad(lambda x: fc.equivariance_error(lambda y: y * y * jnp.arange(6.0)[:, None], x))(x)
    assert jnp.isfinite(slope).all()
    assert jnp.any(slope != 0)


class Flow(nnx.Module):
    """A network of C4 that gives vectors."""

    def __init__(self):
        self.lift = fc.LiftingFConv(1, 2, 3, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return fc.to_vectors(self.lift(x), 4)


def test_two_components_of_a_network_without_a_group_of_two_are_vectors():
    x = noise(2, 7, 7, 1)
    for angle in (90, 180):
        fc.assert_equivariant(Flow(), x, angle)
    assert fc.audit(Flow(), (7, 7, 1)).first_break is None
    with pytest.raises(AssertionError):
        fc.assert_equivariant(Flow(), x, 180, kind="field", group=2)
