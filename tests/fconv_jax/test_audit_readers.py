"""Audits of networks that readers found: dead on noise, read twice, outside noise's domain, of several angles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax._lowered_layers import NotPlainError
from fconv_jax.models.invariant import InvariantFConv, Layer
from tests.fconv_jax.arrays import noise

SHAPE = (9, 9, 1)


class Does(nnx.Module):
    def __init__(self, function):
        self.function = function

    def __call__(self, *x):
        return self.function(*x)


class Net(nnx.Module):
    """A lifting layer, then what `then` does."""

    def __init__(self, then, group=8):
        self.conv, self.then = fc.LiftingFConv(1, 2, 3, group, rngs=nnx.Rngs(0)), then

    def __call__(self, x):
        return self.then(self.conv(x))


def test_a_stage_that_noise_does_not_wake_is_blamed():
    rows = jnp.arange(1.0, 9.0)[:, None]

    class Dead(nnx.Module):
        @property
        def stages(self):
            return (("stem", lambda x: nnx.relu(x - 100.0) * rows), ("mean", lambda x: x.mean((1, 2))))

    report = fc.audit(Dead(), (8, 8, 1), images=255 * noise(4, 8, 8, 1))
    assert report.first_break.name == "stem"
    assert "are exact" not in str(report)
    report = fc.audit(
        Net(Does(lambda y: (y > 5.0) * rows[:8, :, None, None])), (8, 8, 1), images=50 * noise(4, 8, 8, 1)
    )
    assert report.first_break.name == "then"


def test_a_second_audit_says_the_same():
    @jax.jit
    def down(x):
        return fc.torch_reference.corner_max_pool(x)

    @nnx.jit
    def mean(x):
        return fc.spatial_mean_pool(x)

    model = Net(lambda y: mean(fc.max_over_group(down(y))))
    model(noise(8, *SHAPE))
    first, second = (fc.audit(model, SHAPE) for _ in range(2))
    assert [stage.name for stage in first.stages] == [stage.name for stage in second.stages]
    assert "corner_max_pool" in [stage.name for stage in first.stages]
    assert str(first) == str(second)


@pytest.mark.parametrize(
    "function",
    [lambda y: jnp.sqrt(nnx.relu(y) + 1e-3), lambda y: jnp.log(nnx.relu(y) + 1.0), lambda y: nnx.relu(y) ** 2.5],
)
def test_roots_and_logarithms_are_not_blamed_for_noise(function):
    relu, root = Does(nnx.relu), Does(function)
    report = fc.audit(Net(lambda y: root(relu(y))), SHAPE)
    assert report.first_break is None
    model = InvariantFConv((Layer(3, 2),), num_rotations=4, power=2.5, hidden=4, rngs=nnx.Rngs(0))
    assert fc.audit(model, (28, 28, 1)).first_break is None


def test_an_input_at_several_angles():
    model = InvariantFConv((Layer(3, 2),), num_rotations=4, input_turns=(0.0, 30.0, 60.0), hidden=4, rngs=nnx.Rngs(0))
    assert fc.audit(model, (28, 28, 1)).first_break is None


class Two(nnx.Module):
    """Second differences along rows and along columns, with weights of their own that are equal at first."""

    def __init__(self):
        self.a, self.b = nnx.Param(jnp.ones(1)), nnx.Param(jnp.ones(1))

    def __call__(self, x):
        along = [sum(jnp.roll(x, i, axis) for i in (-1, 1)) - 2 * x for axis in (1, 2)]
        return self.a * along[0] + self.b * along[1]


def test_parameters_that_are_equal_at_first_do_not_stay_so():
    model = Two()
    report = fc.audit(model, SHAPE)
    assert report.first_break is None
    assert len(report.warnings) == 1


def test_a_field_of_a_subgroup_that_no_layer_has():
    d8, d4 = fc.Group(8, reflections=True), fc.Group(4, reflections=True)
    model = Net(lambda y: fc.max_over_group(fc.restrict(y, d8, d4)).mean((1, 2)), group=d8)
    assert fc.audit(model, SHAPE).first_break is None


@pytest.mark.parametrize("take", [lambda y: y[..., :7, :].max(3), lambda y: y[..., 0, :]])
def test_some_of_the_rotations(take):
    assert fc.audit(Net(take), SHAPE).first_break.reason.startswith("it takes some of the rotations and leaves")


def test_a_margin_that_is_an_array():
    model = Net(lambda y: y)
    found = [
        fc.audit(model, SHAPE, angles=(45,), margin=margin).stages[-1].free_errors for margin in (2, jnp.float32(2))
    ]
    assert found[0] == found[1]
    assert found[0][45] < 1


def test_a_gate_by_a_pooled_field_is_exact():
    gate = Does(lambda y, s: y * nnx.sigmoid(50 * s)[:, None, None])
    assert fc.audit(Net(lambda y: gate(y, y.mean((1, 2)))), SHAPE).first_break is None


@jax.jit
def relu(x, bias):
    return jnp.maximum(x + bias, 0)


def _named(name, function):
    function.__name__ = name
    return jax.jit(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: relu(y, jnp.array([1.0, -1.0])),
        lambda y: nnx.elu(y, jnp.array([0.5, 2.0])),
        _named("relu", lambda y: jnp.maximum(y - y.mean((1, 2), keepdims=True), 0)),
        _named("relu", lambda y: jnp.concatenate([nnx.relu(y), nnx.relu(-y)], -1)),
        _named("relu", lambda y: jnp.maximum(jnp.broadcast_to(y[..., :1], (*y.shape[:-1], 5)), 0)),
    ],
    ids=["bias", "elu", "mean", "both", "wider"],
)
def test_functions_that_only_have_an_activations_name(function):
    model, images = Net(Does(function)), noise(3, 8, 8, 1)
    try:
        plain = fc.export.to_plain(model, (8, 8, 1))
    except NotPlainError:
        return
    expected = model(images)
    np.testing.assert_allclose(plain(images).reshape(expected.shape), expected, atol=1e-5)


def test_numpys_whole_numbers_and_axes_in_any_order_are_lowered():
    conv = functools.partial(nnx.Conv, 1, 2, (3, 3), rngs=nnx.Rngs(0))
    images = noise(3, 8, 8, 1)
    for model in (
        conv(strides=tuple(np.array([2, 2]))),
        conv(kernel_dilation=tuple(np.array([2, 2]))),
        nnx.BatchNorm(int(np.prod([1])), rngs=nnx.Rngs(0)),
        Net(lambda y: y.mean((2, 1))),
    ):
        model.eval()
        np.testing.assert_allclose(
            fc.export.to_plain(model, (8, 8, 1))(images).ravel(), model(images).ravel(), atol=1e-5
        )


def test_a_frozen_layer_stays_frozen_where_its_filters_are_expanded():
    class Frozen(nnx.Variable):
        pass

    model = Net(lambda y: y)
    model.conv.coefficients = Frozen(model.conv.coefficients[...])
    assert type(fc.expand_filters(model).conv.kernel) is Frozen
