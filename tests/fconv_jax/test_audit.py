"""The audit names the stages that break rotations by 90 degrees, and only those."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax.models.invariant import InvariantFConv, Layer
from tests.fconv_jax.arrays import noise

pytestmark = pytest.mark.unoptimized  # errors far from the bar, or exact; what takes the time is to compile

SHAPE = (28, 28, 1)
IMAGES = noise(2, *SHAPE)  # as many as an audit takes noise of: one program for both


def audit(model, shape=SHAPE, *, angles=(), **options):
    """Without free angles, which take half of the time, unless they are asked for."""
    return fc.audit(model, shape, angles=angles, **options)


def create(name, **options):
    return fc.models.create(name, rngs=nnx.Rngs(0), **options)


def lifting():
    return fc.LiftingFConv(1, 2, 3, padding="SAME", rngs=nnx.Rngs(0))


def named(report):
    return [stage.name for stage in report.breaking]


class Net(nnx.Module):
    """Without stages: layers, a block, a pool, and a sum between them."""

    def __init__(self, pool=lambda x: x, strides=1, num_rotations=4):
        rngs = nnx.Rngs(0)
        self.conv1 = fc.LiftingFConv(1, 2, 3, num_rotations, padding="SAME", rngs=rngs)
        self.conv2 = fc.GroupFConv(2, 3, 3, num_rotations, padding="SAME", strides=strides, rngs=rngs)
        self.block = fc.ResidualBlock(3, 3, 3, num_rotations, norm="batch", rngs=rngs)
        self.dense = nnx.Linear(3, 10, rngs=rngs)
        self.pool = pool

    def __call__(self, x):
        x = self.block(self.pool(nnx.relu(self.conv2(self.conv1(x)))))
        return self.dense(fc.max_over_group(x).mean(axis=(1, 2)))


class Small(nnx.Module):
    """A lifting layer, something in between, the maximum over rotations and the mean over space."""

    def __init__(self, middle):
        self.conv, self.middle = lifting(), middle

    def __call__(self, x):
        return self.middle(fc.max_over_group(self.conv(x))).mean((1, 2))


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
        y = fc.max_over_group(x=self.conv(x))
        return self.ramp(self.sum(y, y=2 * y)).mean((1, 2))


@pytest.mark.long  # a narrow one, without its pools, is audited in test_ladder_networks.py
def test_alexnet_fconv_breaks_at_the_last_pool_and_then_at_the_flatten():
    images = jnp.abs(IMAGES)
    report = audit(create("alexnet_fconv"), images=images)
    assert named(report) == ["pool3", "flatten"]
    assert "7 -> 3" in report.first_break.reason
    assert "3x3 positions" in report.breaking[1].reason
    errors = {stage.name: stage.error for stage in report.stages}
    assert errors["relu5"] < fc.symmetry.TOLERANCE < errors["pool3"]
    # The report's third cause: at the start a few hundred-thousandths of the logits depend on the image.
    assert 1e-6 < report.stages[-1].signal < 1e-3
    logits = create("alexnet_fconv", init="he")
    logits.eval()
    logits = logits(images)
    assert jnp.linalg.norm(logits - logits.mean(0)) > 0.01 * jnp.linalg.norm(logits)


@pytest.mark.parametrize("init", ["report", "he"])
def test_lenet_fconv_breaks_at_the_flatten(init):
    """With the report's weights this seed's features are dead on every image: errors alone would show nothing."""
    report = audit(create("lenet_fconv", init=init))
    assert named(report) == ["flatten"]
    assert report.first_break.name == "flatten"
    assert report.warnings == ()  # it is broken already
    assert str(report).splitlines()[-1].startswith("flatten breaks quarter turns")


@pytest.mark.slow
def test_a_network_without_stages_is_audited_call_by_call():
    model = Net(lambda x: fc.spatial_mean_pool(x, 3))
    report = audit(model, images=IMAGES, angles=(30.0, 45.0))
    names = [stage.name for stage in report.stages]
    assert names == ["conv1", "conv2", "spatial_mean_pool", "block.conv1", "block.norm1", "block.conv2", "block.norm2",
                     "max_over_group", "dense"]  # fmt: skip
    assert report.first_break is None
    assert str(report).endswith("quarter turns are exact")
    assert report.stages[-1].error < 1e-5
    assert model(jnp.ones((1, *SHAPE))).shape == (1, 10)  # as before: nothing stays patched
    assert nnx.BatchNorm.__call__.__module__.startswith("flax")


blur, corner = fc.torch_reference.corner_blur_pool, fc.torch_reference.corner_max_pool


@pytest.mark.parametrize(
    ("build", "name", "words"),
    [
        (lambda: create("lenet"), "conv", "plain"),
        (lambda: Net(strides=2), "conv2", "stride of 2"),
        (lambda: Net(num_rotations=6), "conv1", "not among those of C6"),
        (lambda: Net(lambda x: fc.torch_reference.corner_max_pool(x, 3)), "corner_max_pool", "28 -> 9"),
        (lambda: Net(lambda x: blur(x, 5, strides=2, padding=0), 1, 8), "corner_blur_pool", "28 -> 12"),
        (lambda: Small(lambda x: blur(x, 5, strides=2)), "corner_blur_pool", "5 at a stride of 2 with padding 2"),
        (lambda: Small(lambda x: nnx.avg_pool(x, (3, 3), (2, 2))), "avg_pool", "13 drops the last row and column"),
        (lambda: Small(lambda x: nnx.max_pool(x, (5, 5), (5, 5))), "max_pool", "5 drops the last 3 rows and columns"),
        (lambda: Small(lambda x: nnx.max_pool(x, (3, 3), (2, 2), "SAME")), "max_pool", "more room at one border"),
    ],
)
def test_each_break_has_its_reason(build, name, words):
    first = audit(build(), images=IMAGES).first_break
    assert first.name == name
    assert words in first.reason


def test_a_pool_that_fits_is_not_blamed():
    """Negative control of the table above."""
    assert audit(Small(lambda x: nnx.avg_pool(x, (2, 2), (2, 2))), images=IMAGES).first_break is None


@pytest.mark.parametrize(
    ("last", "found"),
    [
        (
            (lambda x: x.reshape(x.shape[0], -1), nnx.Linear(28 * 28 * 2, 10, rngs=nnx.Rngs(0))),
            ["between max_over_group and layers.4"],
        ),
        ((lambda x: x[:, 3, 5],), ["between max_over_group and output"]),
        ((lambda x: x.mean((1, 2)),), []),
    ],
)
def test_what_a_network_does_between_its_layers_is_named_too(last, found):
    """A flatten that is no stage and no module; and a sum with positions at the very end."""
    assert named(audit(nnx.Sequential(lifting(), nnx.relu, fc.max_over_group, *last), images=IMAGES)) == found


@pytest.mark.slow
def test_errors_are_those_of_equivariance_error():
    model, images = create("lenet_fconv", init="he"), jax.random.uniform(jax.random.key(1), (3, *SHAPE))
    report = audit(model, images=images, angles=(45.0, 30.0), margin=5.0)
    conv, logits = report.stages[0], report.stages[-1]
    expected = float(fc.equivariance_error(model.conv, images, 45, margin=5.0))
    np.testing.assert_allclose(conv.free_errors[45.0], expected, rtol=1e-5)
    assert math.isnan(conv.free_errors[30.0])
    np.testing.assert_allclose(logits.error, float(fc.equivariance_error(model, images, 90)), rtol=1e-4)
    y = model(images)
    np.testing.assert_allclose(logits.signal, jnp.linalg.norm(y - y.mean(0)) / jnp.linalg.norm(y), rtol=1e-4)


def test_any_way_to_call_a_layer():
    assert audit(Calls(False), images=IMAGES).first_break is None
    report = audit(Calls(True), images=IMAGES)
    assert named(report) == ["ramp"]
    assert [stage.name for stage in report.stages] == ["conv", "max_over_group", "sum", "ramp", "output"]
    assert "__call__" not in vars(Calls.Layer)


def test_arrays_that_are_no_maps_are_left_out():
    """Inside attention arrays are [batch, position, head, channel]: no rotation of them is known, so none is blamed."""

    class Attentive(Small):
        def __init__(self):
            super().__init__(None)
            self.attention = nnx.MultiHeadAttention(2, 2, decode=False, rngs=nnx.Rngs(0))

        def __call__(self, x):
            y = fc.max_over_group(self.conv(x))
            return self.attention(y.reshape(len(y), -1, 2)).mean(1)

    report = audit(Attentive(), (8, 8, 1))
    inner = [stage.error for stage in report.stages if len(stage.shape) == 3 and stage.shape[0] == 64]
    assert len(inner) == 3  # query, key, value
    assert all(math.isnan(error) for error in inner)
    assert report.stages[-1].error < 1e-5
    assert "exact nevertheless" in str(report)


def staged():
    return InvariantFConv((Layer(3, 2),), num_rotations=4, hidden=4, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("build", "name"), [(staged, "dense1"), (Net, "conv1")])
def test_a_network_that_is_not_finite_is_not_exact(build, name):
    model = build()
    assert named(audit(model, images=IMAGES)) == []  # negative control
    for _, parameter in nnx.to_flat_state(nnx.state(getattr(model, name), nnx.Param)):
        parameter[...] = jnp.full_like(parameter[...], jnp.nan)
    report = audit(model, images=IMAGES)
    assert named(report) == [name]
    assert report.first_break.reason == "its output is not finite"
    assert report.stages[-1].error == math.inf


class Ending(nnx.Module):
    """A layer, a maximum over the group and an end of one's own."""

    def __init__(self, end, group=8):
        self.layer, self.end = fc.LiftingFConv(2, 4, 3, group, rngs=nnx.Rngs(0)), end

    def __call__(self, x):
        return self.end(fc.max_over_group(self.layer(x)))


def test_what_cannot_be_measured_is_not_called_exact():
    cropped = audit(Ending(lambda x: x[:, :6]), (8, 8, 2))
    assert cropped.first_break.name == "between max_over_group and output"
    assert "cuts or pads a map of 8x8" in cropped.first_break.reason
    rows = audit(Ending(lambda x: x.mean(1), fc.Group(4, reflections=True)), (10, 10, 2))
    assert rows.first_break is None
    assert "quarter turns are not measured at the output" in str(rows)
    assert "mirror images are not measured at the output" in str(rows)
    mask = Ending(lambda x: x.sum(-1))
    assert "quarter turns are exact" in str(audit(mask, (10, 10, 2), kind="scalar"))
    assert "quarter turns are not measured" in str(audit(mask, (10, 10, 2)))


def test_a_map_that_is_not_square_reaches_no_layer_unseen():
    class Cropping(nnx.Module):
        def __init__(self):
            self.one, self.two = (
                fc.LiftingFConv(1, 2, 3, 4, rngs=nnx.Rngs(0)),
                fc.GroupFConv(2, 2, 3, 4, rngs=nnx.Rngs(0)),
            )

        def __call__(self, x):
            return fc.max_over_group(self.two(self.one(x)[:, 1:])).mean((1, 2))

    assert audit(Cropping(), (9, 9, 1)).first_break.name == "between one and two"


def test_more_batch_axes_and_outputs_that_are_no_maps_are_no_breaks():
    class Frames(nnx.Module):
        def __init__(self):
            self.layer = lifting()

        def __call__(self, x):
            frames = jnp.stack([x, 2 * x, 3 * x], axis=1)  # [batch, 3, height, width, channel]
            return fc.max_over_group(self.layer(frames)[:, 0]).mean((1, 2))

    assert audit(Frames(), (9, 9, 1)).first_break is None
    tokens = audit(Ending(lambda x: x.mean((1, 2)).reshape(-1, 1, 2, 2)), (8, 8, 2))
    assert tokens.first_break is None
    assert "not measured at the output" in str(tokens)


def test_layers_in_containers_are_stages():
    class Contained(nnx.Module):
        def __init__(self):
            self.steps = nnx.data((lifting(), {"plain": nnx.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0))}))

        def __call__(self, x):
            return self.steps[1]["plain"](fc.max_over_group(self.steps[0](x)))

    found = audit(Contained(), (9, 9, 1))
    assert found.first_break.name == "steps.1.plain"
    assert "a plain convolution" in found.first_break.reason
