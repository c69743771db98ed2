"""Plain networks and ONNX files compute what the network does."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise
from tests.fconv_jax.exported import (
    D4,
    LARGE,
    LAYER_NORM_TOLERANCE,
    MODELS,
    ONNX_TOLERANCE,
    TOLERANCE,
    VECTOR_TOLERANCE,
    call,
    error,
    images_for,
    made,
    padded,
    run,
    trained,
)

pytestmark = pytest.mark.unoptimized  # a network against another, to tolerances of their sums
MARKS = dict.fromkeys([*LARGE, "resnet18_fconv, large"], pytest.mark.long)


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in MODELS | LARGE])
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


def test_a_plain_network_made_plain_again_is_a_copy_too():
    plain = fc.export.to_plain(made("lenet_fconv"))
    again = fc.export.to_plain(plain)
    kernel = again.layers["conv"].kernel
    np.testing.assert_array_equal(kernel[...], plain.layers["conv"].kernel[...])
    kernel[...] = jnp.zeros_like(kernel[...])
    assert jnp.any(plain.layers["conv"].kernel[...] != 0)


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


@pytest.mark.slow
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


def test_a_description_is_json_of_stock_layers():
    contents = json.loads(fc.export.to_plain(made("lenet_fconv")).description)
    assert contents["layers"]["conv"][0] == "Conv"
    assert contents["input_shape"] == [28, 28, 1]


class Restricted(nnx.Module):
    """A field of one group goes on as one of a subgroup."""

    def __init__(self, group, subgroup):
        self.groups, rngs = (group, subgroup), nnx.Rngs(0)
        self.lift = fc.LiftingFConv(1, 2, 3, group, rngs=rngs)
        self.conv = fc.GroupFConv(4, 3, 3, subgroup, rngs=rngs)  # half the elements, twice the features

    def __call__(self, x):
        return fc.max_over_group(self.conv(fc.restrict(self.lift(x), *self.groups)))


@pytest.mark.parametrize(("group", "subgroup"), [(8, 4), (D4, 4)])
def test_a_restriction_is_a_permutation_of_channels(group, subgroup, tmp_path):
    model, images = Restricted(group, subgroup), noise(2, 8, 8, 1)
    expected = model(images)
    assert error(fc.export.to_plain(model, (8, 8, 1))(images), expected) < TOLERANCE
    fc.export.to_onnx(model, tmp_path / "model.onnx", (8, 8, 1))
    assert error(run(tmp_path / "model.onnx", images), expected) < ONNX_TOLERANCE
