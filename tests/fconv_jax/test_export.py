"""Plain networks and ONNX files compute what the network does; what has no plain form is refused in one line."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise

D4 = fc.Group(4, reflections=True)
MODELS = {
    "lenet": ("lenet", {}),
    "lenet_fconv": ("lenet_fconv", {}),
    "lenet_classic": ("lenet_classic", {}),
    "fconv_mnist_simple": ("fconv_mnist_simple", {}),
    "lenet_fconv_invariant": ("lenet_fconv_invariant", {}),
    "resnet18_fconv": ("resnet18_fconv", {"width": 2, "group": D4}),
    "resnet18_fconv, large": ("resnet18_fconv", {"width": 1, "group": 4, "large": True, "norm": "layer"}),
    "unet_fconv": ("unet_fconv", {"depth": 2, "width": 2, "group": D4}),
    "unet_fconv of vectors": ("unet_fconv", {"depth": 1, "width": 2, "output": "vectors"}),
    "unet_fconv, plain": ("unet_fconv", {"depth": 1, "width": 2, "group": None, "num_classes": 2}),
    "edsr_fconv": ("edsr_fconv", {"blocks": 1, "width": 2, "scale": 3, "group": D4, "residual_scale": 0.1}),
}
LARGE = {
    "alexnet": ("alexnet", {}),
    "alexnet_fconv": ("alexnet_fconv", {"init": "he"}),  # as published its logits hardly depend on the image
    "fconv_mnist": ("fconv_mnist", {}),
    "alexnet_fconv_invariant": ("alexnet_fconv_invariant", {}),
}
# Relative to the largest output.  A layer norm subtracts two large means of squares, in whatever order XLA adds: here
# a network differs as much from itself on rotated images.
TOLERANCE, LAYER_NORM_TOLERANCE, ONNX_TOLERANCE = 1e-6, 1e-4, 1e-5
VECTOR_TOLERANCE = 2e-5  # vectors are differences of fields that are a hundred times as large


def trained(model, seed=1):
    """In evaluation, with statistics, scales and biases as after training, not the zeros and ones of the start."""
    random = np.random.default_rng(seed)
    for path, leaf in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        limits = {"var": (0.5, 2), "mean": (-0.1, 0.1), "scale": (0.5, 1.5), "bias": (-0.1, 0.3)}.get(path[-1])
        if limits is not None:
            leaf[...] = jnp.asarray(random.uniform(*limits, leaf.shape), leaf.dtype)
    model.eval()
    return model


def made(name):
    kind, options = (MODELS | LARGE)[name]
    return trained(fc.models.create(kind, rngs=nnx.Rngs(0), **options))


def images_for(model, batch=3, size=32, seed=0):
    height, width, channel = model.input_shape
    random = np.random.default_rng(seed)
    return jnp.asarray(random.uniform(size=(batch, height or size, width or size, channel)), jnp.float32)


def call(model, images):
    return nnx.jit(lambda model, images: model(images))(model, images)


def error(actual, expected):
    assert actual.shape == expected.shape
    return float(np.abs(np.asarray(actual) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max())


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": np.asarray(images)})[0]


@pytest.mark.parametrize("name", [*MODELS, *(pytest.param(name, marks=pytest.mark.long) for name in LARGE)])
def test_a_plain_network_and_its_onnx_file_compute_what_the_network_does(name, tmp_path):
    model = made(name)
    images = images_for(model)
    expected, plain = call(model, images), fc.export.to_plain(model)
    loose = LAYER_NORM_TOLERANCE if "LayerNorm" in plain.description else 0.0
    loose = VECTOR_TOLERANCE if "vectors" in name else loose
    assert error(call(plain, images), expected) < max(loose, TOLERANCE)
    assert {type(layer) for layer in plain.layers.values()} <= {nnx.Conv, nnx.Linear, nnx.LayerNorm}  # norms folded
    fc.export.to_onnx(model, tmp_path / "model.onnx", tuple(images.shape[1:]))
    assert error(run(tmp_path / "model.onnx", images), expected) < max(loose, ONNX_TOLERANCE)
    assert error(run(tmp_path / "model.onnx", images[:1]), expected[:1]) < max(loose, ONNX_TOLERANCE)
    changed = np.asarray(images).copy()
    changed[:, :, : changed.shape[2] // 2] = 0
    assert error(call(plain, jnp.asarray(changed)), expected) > 1e-3  # the comparison can fail


@pytest.mark.parametrize("name", ["resnet18_fconv", "unet_fconv", "edsr_fconv"])
def test_a_network_for_images_of_any_size_stays_one(name):
    model = made(name)
    plain, images = fc.export.to_plain(model), images_for(model, 2, 40)
    assert plain.input_shape[:2] == (None, None)
    assert error(plain(images), model(images)) < TOLERANCE
    with pytest.raises(ValueError, match=r"must be \[batch, any, any, "):
        plain(images[..., :0])


class Sized(nnx.Module):
    """A number that depends on the images' size."""

    def __init__(self, number):
        self.number = number
        self.input_shape = "small"  # not of this library

    def __call__(self, x):
        return x.sum(axis=(1, 2)) / self.number(x)


def test_what_depends_on_the_size_is_for_one_size():
    images = noise(2, 8, 12, 1)
    for number in (lambda x: x.shape[1] ** 0.5, lambda x: 64, lambda x: 2 if x.shape[2] > 12 else 3):
        plain = fc.export.to_plain(Sized(number), (8, 8, 1))
        assert plain.input_shape == (8, 8, 1)
    plain = fc.export.to_plain(Sized(lambda x: x.shape[1] * x.shape[2]), (8, 8, 1))  # a mean
    assert error(plain(images), images.mean(axis=(1, 2))) < TOLERANCE


def test_a_network_for_one_size_takes_no_other():
    with pytest.raises(ValueError, match=r"must be \[batch, 28, 28, 1\]"):
        fc.export.to_plain(made("lenet"))(jnp.zeros((1, 32, 32, 1)))


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


LAYERS = {
    "circular": {"padding": "CIRCULAR"},
    "reflect": {"padding": "REFLECT", "kernel_size": 5},
    "dilation": {"kernel_dilation": 2},
    "stride": {"kernel_size": 4, "padding": 1, "strides": 2},
    "stride of an odd kernel": {"kernel_size": 3, "strides": 2},  # the same padding on both sides, not XLA's
    "depthwise": {"feature_group_count": 4},
    "valid": {"padding": "VALID", "use_bias": False},
    "1 x 1": {"kernel_size": 1},
    "bicubic": {"basis": fc.Bicubic()},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.filterwarnings("ignore::fconv_jax.layers.EquivarianceWarning")
def test_every_option_of_a_layer_is_exported(options, tmp_path):
    class Three(nnx.Module):
        def __init__(self, rngs):
            self.lift = fc.LiftingFConv(1, 4, 3, D4, rngs=rngs)
            self.group = fc.GroupFConv(4, 4, **{"kernel_size": 3, **options}, group=D4, rngs=rngs)
            self.project = fc.ProjectingFConv(4, 2, 3, D4, rngs=rngs)

        def __call__(self, x):
            return self.project(self.group(self.lift(x)))

    model, images = trained(Three(nnx.Rngs(0))), noise(2, 10, 10, 1)
    assert error(call(fc.export.to_plain(model, (10, 10, 1)), images), call(model, images)) < TOLERANCE
    fc.export.to_onnx(model, tmp_path / "layer.onnx", (10, 10, 1))
    assert error(run(tmp_path / "layer.onnx", images), call(model, images)) < ONNX_TOLERANCE


def test_variables_of_other_kinds_are_exported():
    with nnx.var_defaults(hijax=True):
        model = fc.LiftingFConv(1, 2, 3, 4, rngs=nnx.Rngs(0))
    images = noise(2, 8, 8, 1)
    assert error(fc.export.to_plain(model, (8, 8, 1))(images), model(images)) < TOLERANCE
    exported = jax.export.deserialize(bytearray(fc.export.to_stablehlo(model, (8, 8, 1), ["cpu"])))
    assert error(exported.call(images), model(images)) < TOLERANCE


def test_a_plain_network_trains_and_is_a_copy():
    model = made("lenet_fconv")
    plain, images = fc.export.to_plain(model), images_for(model)
    before, gradients = call(model, images), nnx.grad(lambda net: jnp.mean(net(images) ** 2))(plain)
    nnx.update(plain, jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(plain, nnx.Param), gradients))
    assert error(call(plain, images), before) > 1e-3
    assert error(call(model, images), before) == 0


WITHOUT = """
import importlib.util, json, sys
sys.modules["fconv_jax"] = None  # to import it is an error
spec = importlib.util.spec_from_file_location("plain", "plain.py")
plain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain)
import numpy as np
network = plain.PlainNetwork(open("description.json").read())
plain.parameters_from(dict(np.load("parameters.npz")), network)
np.save("logits.npy", network(np.load("images.npy")))
"""


def test_a_plain_network_is_loaded_without_this_package(tmp_path):
    model = made("lenet_fconv_invariant")
    plain, images = fc.export.to_plain(model), images_for(model)
    (tmp_path / "plain.py").write_bytes(pathlib.Path(fc.plain.__file__).read_bytes())
    (tmp_path / "description.json").write_text(plain.description)
    arrays = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(plain))}
    np.savez(tmp_path / "parameters.npz", **arrays)
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, check=True)
    assert error(np.load(tmp_path / "logits.npy"), call(model, images)) < TOLERANCE


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    fc.export.to_onnx(padded("same"), path, (8, 8, 1))
    before, write = path.read_bytes(), pathlib.Path.write_bytes

    def full(self, data):
        write(self, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(ValueError, match="cannot be written: No space"):
        fc.export.to_onnx(padded("same", 2.0), path, (8, 8, 1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_onnx_file_says_what_it_is(tmp_path):
    fc.export.to_onnx(made("lenet_fconv"), tmp_path / "a.onnx", metadata={"classes": "0 1 2"})
    fc.export.to_onnx(made("lenet_fconv"), tmp_path / "b.onnx", metadata={"classes": "0 1 2"})
    fc.export.to_onnx(made("lenet_fconv"), tmp_path / "half.onnx", float16=True)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    model = onnx.load(tmp_path / "a.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (20, 10)
    assert {prop.key: prop.value for prop in model.metadata_props} == {"classes": "0 1 2"}
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        28,
        28,
        1,
    ]
    assert [value.name for value in model.graph.output] == ["logits"]
    images = images_for(made("lenet_fconv"))
    whole, half = run(tmp_path / "a.onnx", images), run(tmp_path / "half.onnx", images)
    assert 1e-6 < error(half, whole) < 2e-3
    assert (tmp_path / "half.onnx").stat().st_size < 0.55 * (tmp_path / "a.onnx").stat().st_size


@pytest.mark.parametrize("name", sorted(set(fc.pretrained.SHIPPED.values())))
def test_networks_that_ship_repeat_themselves_in_onnx(name, tmp_path):
    model = fc.from_pretrained(name)
    images = images_for(model, 7)
    fc.export.to_onnx(model, tmp_path / "model.onnx")
    for batch in (1, 7):
        logits = run(tmp_path / "model.onnx", images[:batch])
        assert error(logits, call(model, images[:batch])) < ONNX_TOLERANCE


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


def padded(padding, scale=1.0):
    init = nnx.initializers.constant(scale)
    return nnx.Conv(1, 8, (3, 3), padding=padding, kernel_init=init, rngs=nnx.Rngs(0))


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
        (lambda: fc.export.to_onnx(made("lenet"), "/nowhere/model.onnx"), "cannot be written"),
        (lambda: fc.export.to_stablehlo(made("lenet"), platforms=("gpu",)), "must be some of cpu, cuda"),
    ],
)
def test_what_cannot_be_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_description_is_json_of_stock_layers():
    contents = json.loads(fc.export.to_plain(made("lenet_fconv")).description)
    assert contents["layers"]["conv"][0] == "Conv"
    assert contents["input_shape"] == [28, 28, 1]
