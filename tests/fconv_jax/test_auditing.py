"""The audit names the stages that break quarter turns, and only those."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc

SHAPE = (28, 28, 1)


def audited(name, **options):
    return fc.audit(fc.models.create(name, rngs=nnx.Rngs(0), **options), SHAPE)


def named(report):
    return [stage.name for stage in report.breaking]


class Net(nnx.Module):
    """Without stages: layers, a block, a pool, and a sum between them."""

    def __init__(self, pool, strides=1, num_rotations=4):
        rngs = nnx.Rngs(0)
        self.conv1 = fc.LiftingFConv(1, 2, 3, num_rotations, padding="SAME", rngs=rngs)
        self.conv2 = fc.GroupFConv(2, 3, 3, num_rotations, padding="SAME", strides=strides, rngs=rngs)
        self.block = fc.ResidualBlock(3, 3, num_rotations, batch_norm=True, rngs=rngs)
        self.dense = nnx.Linear(3, 10, rngs=rngs)
        self.pool = pool

    def __call__(self, x):
        x = self.block(self.pool(nnx.relu(self.conv2(self.conv1(x)))))
        return self.dense(fc.max_over_rotations(x).mean(axis=(1, 2)))


def test_alexnet_fconv_breaks_at_the_last_pool_and_then_at_the_flatten():
    report = audited("alexnet_fconv")
    assert named(report) == ["pool3", "flatten"]
    assert "7 -> 3" in report.first_break.reason and "3x3 positions" in report.breaking[1].reason
    errors = {stage.name: stage.error for stage in report.stages}
    assert errors["relu5"] < fc.symmetry.TOLERANCE < errors["pool3"]
    # The report's third cause: at the start a few hundred-thousandths of the logits depend on the picture.
    assert 1e-6 < report.stages[-1].signal < 1e-3
    assert audited("alexnet_fconv", init="he").stages[-1].signal > 0.01


@pytest.mark.parametrize("init", ["report", "he"])
def test_lenet_fconv_breaks_at_the_flatten(init):
    """With the report's weights this seed's features are dead on every picture: errors alone would show nothing."""
    report = audited("lenet_fconv", init=init)
    assert named(report) == ["flatten"] and report.first_break.name == "flatten"
    assert str(report).splitlines()[-1].startswith("flatten breaks quarter turns")


def test_plain_networks_break_at_their_first_convolution():
    assert audited("lenet").first_break.name == "conv" and "plain" in audited("lenet").first_break.reason


def test_a_network_without_stages_is_audited_call_by_call():
    model = Net(lambda x: fc.spatial_mean_pool(x, 3))
    report = fc.audit(model, SHAPE)
    names = [stage.name for stage in report.stages]
    assert names == ["conv1", "conv2", "spatial_mean_pool", "block.conv1", "block.norm1", "block.conv2", "block.norm2",
                     "max_over_rotations", "dense"]  # fmt: skip
    assert report.first_break is None and str(report).endswith("quarter turns are exact")
    assert report.stages[-1].error < 1e-5
    assert model(jnp.ones((1, *SHAPE))).shape == (1, 10)  # as before: nothing stays patched
    assert nnx.BatchNorm.__call__.__module__.startswith("flax")


@pytest.mark.parametrize(
    ("pool", "options", "name", "words"),
    [
        (lambda x: fc.corner_max_pool(x, 3), {}, "corner_max_pool", "28 -> 9"),
        (
            lambda x: fc.corner_blur_pool(x, 5, strides=2, padding=0),
            {"num_rotations": 8},
            "corner_blur_pool",
            "28 -> 12",
        ),
        (lambda x: x, {"strides": 2}, "conv2", "stride of 2"),
        (lambda x: x, {"num_rotations": 6}, "conv1", "none of its 6 rotations"),
    ],
)
def test_each_break_has_its_reason(pool, options, name, words):
    first = fc.audit(Net(pool, **options), SHAPE).first_break
    assert first.name == name and words in first.reason


def test_what_a_network_does_between_its_layers_is_named_too():
    """A flatten that is no stage and no module; and a sum with positions at the very end."""
    rngs = nnx.Rngs(0)
    layers = [fc.LiftingFConv(1, 2, 3, padding="SAME", rngs=rngs), nnx.relu, fc.max_over_rotations]
    flat = nnx.Sequential(*layers, lambda x: x.reshape(x.shape[0], -1), nnx.Linear(28 * 28 * 2, 10, rngs=rngs))
    assert named(fc.audit(flat, SHAPE)) == ["between max_over_rotations and layers.4"]
    last = nnx.Sequential(*layers, lambda x: x[:, 3, 5])
    assert named(fc.audit(last, SHAPE)) == ["between max_over_rotations and output"]
    mean = nnx.Sequential(*layers, lambda x: x.mean((1, 2)))
    assert not named(fc.audit(mean, SHAPE))


def test_errors_are_those_of_equivariance_error():
    model = fc.models.create("lenet_fconv", init="he", rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(1), (3, *SHAPE))
    report = fc.audit(model, SHAPE, images=images, angles=(45.0, 30.0), margin=5.0)
    conv, logits = report.stages[0], report.stages[-1]
    expected = float(fc.equivariance_error(model.conv, images, 45, margin=5.0))
    np.testing.assert_allclose(conv.free_errors[45.0], expected, rtol=1e-5)
    assert math.isnan(conv.free_errors[30.0])
    np.testing.assert_allclose(logits.error, float(fc.equivariance_error(model, images, 90)), rtol=1e-4)
    y = model(images)
    np.testing.assert_allclose(logits.signal, jnp.linalg.norm(y - y.mean(0)) / jnp.linalg.norm(y), rtol=1e-4)


class Small(nnx.Module):
    """A lifting layer, something in between, the maximum over rotations and the mean over space."""

    def __init__(self, middle):
        self.conv = fc.LiftingFConv(1, 2, 3, padding="SAME", rngs=nnx.Rngs(0))
        self.middle = middle

    def __call__(self, x):
        return self.middle(fc.max_over_rotations(self.conv(x))).mean((1, 2))


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (lambda x: nnx.avg_pool(x, (3, 3), strides=(2, 2)), "28 -> 13 drops the last row and column"),
        (lambda x: nnx.max_pool(x, (5, 5), strides=(5, 5)), "28 -> 5 drops the last 3 rows and columns"),
        (lambda x: nnx.max_pool(x, (3, 3), strides=(2, 2), padding="SAME"), "more room at one border"),
        (lambda x: fc.corner_blur_pool(x, 5, strides=2), "windows of 5 at a stride of 2 with padding 2"),
    ],
)
def test_a_pool_is_blamed_for_what_it_does_to_the_size(pool, words):
    first = fc.audit(Small(pool), SHAPE).first_break
    assert "pool" in first.name and words in first.reason
    assert fc.audit(Small(lambda x: nnx.avg_pool(x, (2, 2), strides=(2, 2))), SHAPE).first_break is None


class Sum(nnx.Module):
    def __call__(self, x, y):
        return x + y


class Ramp(nnx.Module):
    def __call__(self, x):
        return x * jnp.arange(x.shape[1])[:, None, None]


class Calls(nnx.Module):
    """Calls by keyword, a module of two arrays, and a method that is inherited."""

    class Layer(fc.LiftingFConv):
        pass

    def __init__(self, ramp):
        self.conv = self.Layer(1, 2, 3, padding="SAME", rngs=nnx.Rngs(0))
        self.sum, self.ramp = Sum(), Ramp() if ramp else nnx.Dropout(0.5)

    def __call__(self, x):
        field = self.conv(x)
        y = fc.max_over_rotations(x=field)
        return self.ramp(self.sum(y, y=2 * y)).mean((1, 2))


def test_any_way_to_call_a_layer():
    assert fc.audit(Calls(False), SHAPE).first_break is None
    report = fc.audit(Calls(True), SHAPE)
    assert named(report) == ["ramp"]
    assert [stage.name for stage in report.stages] == ["conv", "max_over_rotations", "sum", "ramp", "output"]
    assert "__call__" not in vars(Calls.Layer)


def test_arrays_that_are_no_maps_are_left_out():
    """Inside attention arrays are [batch, position, head, channel]: no turn is known for them, so none is blamed."""

    class Attentive(Small):
        def __init__(self):
            super().__init__(None)
            self.attention = nnx.MultiHeadAttention(2, 2, decode=False, rngs=nnx.Rngs(0))

        def __call__(self, x):
            y = fc.max_over_rotations(self.conv(x))
            return self.attention(y.reshape(len(y), -1, 2)).mean(1)

    report = fc.audit(Attentive(), (8, 8, 1))
    assert all(math.isnan(stage.error) for stage in report.stages if len(stage.shape) == 3 and stage.shape[0] == 64)
    assert report.stages[-1].error < 1e-5 and "exact nevertheless" in str(report)


@pytest.mark.parametrize("staged", [True, False])
def test_a_network_that_is_not_finite_is_not_exact(staged):
    if staged:
        model, name = fc.models.create("lenet_fconv_invariant", rngs=nnx.Rngs(0)), "dense1"
        model.dense1.kernel[...] = jnp.full_like(model.dense1.kernel[...], jnp.nan)
    else:
        model, name = Net(lambda x: x), "conv1"
        for _, parameter in nnx.to_flat_state(nnx.state(model.conv1, nnx.Param)):
            parameter[...] = jnp.full_like(parameter[...], jnp.nan)
    report = fc.audit(model, SHAPE)
    assert named(report) == [name] and report.first_break.reason == "its output is not finite"
    assert report.stages[-1].error == math.inf


def test_layers_inside_jit_are_not_seen_and_that_is_said():
    class Jitted(Small):
        __call__ = nnx.jit(lambda self, x: self.conv(x)[:, 14, 10, 0])

    assert "jit" in fc.audit(Jitted(None), SHAPE).first_break.reason


def test_what_cannot_be_audited():
    class Pair(nnx.Module):
        def __call__(self, x):
            return x, x

    class Empty(nnx.Module):
        stages = ()

    with pytest.raises(ValueError, match="one array"):
        fc.audit(Pair(), SHAPE)
    with pytest.raises(ValueError, match="empty"):
        fc.audit(Empty(), SHAPE)
    with pytest.raises(ValueError, match=r"must be \[batch, 28, 28, 1\]"):
        fc.audit(fc.models.create("lenet", rngs=nnx.Rngs(0)), (20, 20, 1))
    with pytest.raises(ValueError, match="finite"):
        fc.audit(fc.models.create("lenet", rngs=nnx.Rngs(0)), SHAPE, images=jnp.full((2, *SHAPE), jnp.nan))


def test_whole_numbers_are_pictures_too():
    model = fc.models.create("lenet", rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 2, (2, *SHAPE))
    found = [fc.audit(model, SHAPE, images=jnp.asarray(images, kind)).stages[-1] for kind in ("uint8", "float32")]
    assert found[0] == found[1]


@pytest.mark.parametrize("shape", [(28, 27, 1), (28, 28), (0, 0, 1), (-3, -3, 1), (1, 1, 1), (28.0, 28.0, 1), "abc"])
def test_only_square_images(shape):
    with pytest.raises(ValueError, match="input_shape"):
        fc.audit(fc.models.create("lenet", rngs=nnx.Rngs(0)), shape)


@pytest.mark.parametrize("shape", [(1, 28, 28, 1), (2, 27, 27, 1)])
def test_pictures_must_fit(shape):
    with pytest.raises(ValueError, match="at least 2"):
        fc.audit(fc.models.create("lenet", rngs=nnx.Rngs(0)), SHAPE, images=jnp.zeros(shape))
