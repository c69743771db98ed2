"""Networks of one's own are exported, or refused in one line."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise
from tests.fconv_jax.exported import ONNX_TOLERANCE, TOLERANCE, call, error, images_for, made, padded, run, trained

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]  # a network against another, to tolerances of their sums


class Own(nnx.Module):
    """A user's network: a functional pool, a sum, a mean, statistics that cannot be folded, a norm without a layer."""

    def __init__(self, group=8):
        rngs = nnx.Rngs(0)
        self.first = nnx.BatchNorm(1, rngs=rngs)
        self.conv1 = fc.LiftingFConv(1, 4, 5, group, rngs=rngs)
        self.conv2 = fc.GroupFConv(4, 4, 3, group, feature_group_count=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.mix = nnx.Linear(4, 4, rngs=rngs)  # at each pixel and element
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv1(self.first(x) - 0.5))
        x = fc.blur_pool(x, 3) + 0.5 * fc.spatial_mean_pool(x)
        y = x + self.dropout(nnx.gelu(self.mix(self.norm(nnx.silu(self.conv2(x))))))
        y = jnp.concatenate([y.max(axis=-2), fc.mean_over_group(y) ** 2], axis=-1)
        return self.out(jnp.tanh(y.mean(axis=(1, 2))) / (1.0 + jnp.exp(-y.max(axis=(1, 2)))))


def test_a_network_of_ones_own_is_exported(tmp_path):
    model = trained(Own())
    images = noise(3, 16, 16, 1)
    plain = fc.export.to_plain(model, (16, 16, 1))
    assert error(call(plain, images), call(model, images)) < TOLERANCE
    assert [type(layer) for layer in plain.layers.values()].count(nnx.BatchNorm) == 2
    fc.export.to_onnx(model, tmp_path / "own.onnx", (16, 16, 1))
    assert error(run(tmp_path / "own.onnx", images), call(model, images)) < ONNX_TOLERANCE


class Placed(nnx.Module):
    """Numbers of each pixel, element and channel, added to an image, a field, and a field without pixels."""

    def __init__(self, size=8):
        shapes = ((size, size, 3), (size, size, 8, 2), (8, 2))
        self.image, self.field, self.pooled = (nnx.Param(noise(*shape)) for shape in shapes)
        self.plain = nnx.Conv(1, 3, (3, 3), rngs=nnx.Rngs(0))
        self.lift = fc.LiftingFConv(3, 2, 3, 8, rngs=nnx.Rngs(0))

    def __call__(self, x):
        x = self.lift(self.plain(x) * self.image[...]) + self.field[...]
        return (x.mean(axis=(1, 2)) - self.pooled[...]).max(axis=-2)


class Blocks(nnx.Module):
    """A stage that is a block of layers; the norm that is read last does not come last."""

    def __init__(self):
        self.block = fc.ResidualBlock(1, 2, 3, None, norm="batch", rngs=nnx.Rngs(0))
        self.input_shape = (8, 8, 1)

    @property
    def stages(self):
        return (("block", self.block), ("mean", lambda x: x.mean(axis=(1, 2))))

    def __call__(self, x):
        return self.block(x).mean(axis=(1, 2))


class Two(nnx.Module):
    """The output is a norm whose convolution is not the last step."""

    def __init__(self):
        self.first, self.second = (nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(i)) for i in range(2))
        self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    def __call__(self, x):
        y = self.first(x)
        self.second(x)
        return self.norm(y)


class Unread(nnx.Module):
    """What a norm makes of the output is not read."""

    def __init__(self):
        self.conv, self.norm = nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    def __call__(self, x):
        y = self.conv(x)
        self.norm(y)
        return y


@jax.jit
def relu(x):
    return jnp.clip(x, 0.0, 6.0)


class Changed(nnx.Module):
    """Kernels that a call changes, `stages` that are modules, and a function that only looks like a known one."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.stages = nnx.List([nnx.WeightNorm(nnx.Conv(1, 2, (3, 3), rngs=rngs), rngs=rngs)])
        self.dense = nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x):
        for stage in self.stages:
            x = fc.spatial_mean_pool(jax.checkpoint(relu)(20.0 * stage(x)), 2, padding=2)
        graphdef, state = nnx.split(self.dense)
        return nnx.merge(graphdef, jax.tree.map(lambda kernel: 0.5 * kernel, state))(x)


@pytest.mark.parametrize("kind", [Placed, Blocks, Two, Unread, Changed])
def test_networks_of_other_shapes(kind, tmp_path):
    model, images = trained(kind()), noise(3, 8, 8, 1)
    assert error(call(fc.export.to_plain(model, (8, 8, 1)), images), call(model, images)) < TOLERANCE
    fc.export.to_onnx(model, tmp_path / "model.onnx", (8, 8, 1))
    assert error(run(tmp_path / "model.onnx", images), call(model, images)) < ONNX_TOLERANCE


class OverTheSum(nnx.Module):
    """What looks like a mean: as many as there are pixels, over their sum."""

    def __init__(self):
        self.conv = fc.LiftingFConv(1, 2, 3, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return 64.0 / (100.0 + jnp.sum(self.conv(x), axis=(1, 2)))


class Cropped(OverTheSum):
    """Images of an odd size are cropped."""

    def __call__(self, x):
        height, width = x.shape[1:3]
        return self.conv(x[:, : height - height % 2, : width - width % 2]).mean(axis=(1, 2))


class Small(OverTheSum):
    """Small images are not pooled."""

    def __call__(self, x):
        y = self.conv(x)
        return (fc.spatial_max_pool(y) if x.shape[1] >= 8 else y).mean(axis=(1, 2))


@pytest.mark.parametrize(("kind", "shape"), [(OverTheSum, None), (Cropped, (8, 8, 1)), (Small, (8, 8, 1))])
def test_networks_that_do_otherwise_at_other_sizes_are_of_one_size(kind, shape):
    model, images = trained(kind()), noise(3, 8, 8, 1)
    plain = fc.export.to_plain(model, (8, 8, 1))
    assert error(call(plain, images), call(model, images)) < TOLERANCE
    assert shape is None or tuple(plain.input_shape) == shape


def test_a_network_of_half_precision_becomes_one_of_float32(tmp_path):
    model = trained(fc.models.create("unet_fconv", depth=1, width=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    images = images_for(model)
    plain = call(fc.export.to_plain(model), images)
    assert plain.dtype == jnp.float32
    assert 1e-6 < error(plain, call(model, images).astype(jnp.float32)) < 0.05  # eight bits
    fc.export.to_onnx(model, tmp_path / "model.onnx", tuple(images.shape[1:]))
    assert error(run(tmp_path / "model.onnx", images), plain) < ONNX_TOLERANCE


class Scanned(nnx.Module):
    def __init__(self):
        self.conv = fc.LiftingFConv(1, 1, 3, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return jax.lax.fori_loop(0, 2, lambda i, y: y * 2.0, self.conv(x))


class Normed(nnx.Module):
    def __init__(self):
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(x)


class Doubled(fc.LiftingFConv):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Several(nnx.Module):
    def __init__(self):
        self.conv = fc.LiftingFConv(1, 1, 3, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.conv(x.reshape(x.shape[0], 2, 4, 8, 1)).mean(axis=(1, 2, 3))


class Does(nnx.Module):
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


class OfTheBatch(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.norm(x, use_running_average=False)


def masked():
    return nnx.Conv(1, 2, (3, 3), mask=jnp.ones((3, 3, 1, 2)).at[0].set(0), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fc.export.to_plain(Own()), r"input_shape \(=None\) must be \(height, width, channel\)"),
        (lambda: fc.export.to_plain(Scanned(), (8, 8, 1)), "has no plain form yet"),
        (lambda: fc.export.to_plain(Normed(), (8, 8, 4)), "GroupNorm.*has no plain form yet"),
        (
            lambda: fc.export.to_plain(Doubled(1, 2, 3, 4, rngs=nnx.Rngs(0)), (8, 8, 1)),
            "Doubled.*has no plain form yet",
        ),
        (lambda: fc.export.to_plain(OfTheBatch(), (8, 8, 1)), "BatchNorm.*has no plain form yet"),
        (lambda: fc.export.to_plain(Does(lambda x: {"logits": x}), (8, 8, 1)), "an output that is not one array"),
        (lambda: fc.export.to_plain(Does(lambda x: x if x.min() > 0 else -x), (8, 8, 1)), "looks at the images"),
        (lambda: fc.export.to_stablehlo(Does(lambda x: x if x.shape[0] > 1 else -x), (8, 8, 1)), "at the batch's size"),
        (lambda: fc.export.to_plain(Does(lambda x: x.mean(axis=0)), (8, 8, 1)), "arithmetic with the batch's size"),
        (lambda: fc.export.to_plain(padded(((-1, 0), (0, 0))), (8, 8, 1)), r"padding \(\(-1, 0\), \(0, 0\)\) has no"),
        (lambda: fc.export.to_onnx(padded("same", 1e6), "none.onnx", (8, 8, 1), float16=True), "is more than 65504"),
        (lambda: fc.export.to_plain(masked(), (8, 8, 1)), "with a mask or input_dilation has no plain form"),
        (lambda: fc.export.to_plain(nnx.BatchNorm(8, axis=1, rngs=nnx.Rngs(0)), (8, 8, 2)), "along axis 1"),
        (lambda: fc.export.to_plain(made("lenet"), (32, 32, 1)), r"\(32, 32, 1\)\) must be \(28, 28, 1\)"),
        (lambda: fc.export.to_plain(made("lenet"), (28, 28)), r"must be \(height, width, channel\)"),
        (lambda: fc.export.to_plain(lambda x: x), "must be an nnx.Module"),
        (lambda: fc.export.to_plain(Several(), (8, 8, 1)), "LiftingFConv over .* not with one batch axis"),
        (lambda: fc.export.to_onnx(made("lenet"), "/nowhere/model.onnx"), "cannot be written"),
        (lambda: fc.export.to_stablehlo(made("lenet"), platforms=("gpu",)), "must be some of cpu, cuda"),
    ],
)
def test_what_cannot_be_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_stablehlo_runs_with_any_batch_and_is_lowered_for_cuda():
    model = made("lenet_fconv_invariant")
    exported = jax.export.deserialize(bytearray(fc.export.to_stablehlo(model)))
    assert exported.platforms == ("cpu", "cuda")
    for batch in (1, 4):
        images = images_for(model, batch)
        assert error(exported.call(images), call(model, images)) < TOLERANCE
    exported = jax.export.deserialize(bytearray(fc.export.to_stablehlo(Changed(), (8, 8, 1), ["cpu"])))
    images = noise(2, 8, 8, 1)
    assert error(exported.call(images), Changed()(images)) < TOLERANCE
