"""Operations between layers that have a plain form: activations, comparisons, stock pools, means, products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax.plain import parameters_from
from tests.fconv_jax.arrays import noise
from tests.fconv_jax.exported import ONNX_TOLERANCE, TOLERANCE, call, error, run

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]  # a network against another, to tolerances of their sums


class After(nnx.Module):
    """A function of a field, or of images, and of a dense layer."""

    def __init__(self, function, of_field=True):
        rngs = nnx.Rngs(0)
        self.first = fc.LiftingFConv(2, 3, 3, 4, rngs=rngs) if of_field else nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.dense, self.function, self.of_field = nnx.Linear(3, 3, rngs=rngs), function, of_field

    def __call__(self, x):
        return self.function(self.first(x), self.dense)


def excite(y, dense):
    """Squeeze and excitation by features that do not depend on the group element."""
    return y * nnx.sigmoid(dense(y.mean((1, 2, 3))))[:, None, None, None]


OF_FIELDS = {
    "leaky_relu": lambda y, _: nnx.leaky_relu(y),
    "selu": lambda y, _: nnx.selu(y),
    "elu, alpha 2": lambda y, _: nnx.elu(y, 2.0),
    "softplus": lambda y, _: nnx.softplus(y),
    "gelu": lambda y, _: nnx.gelu(y, approximate=False),
    "sin and cos": lambda y, _: jnp.sin(y) - jnp.cos(2 * y),
    "small numbers": lambda y, _: jnp.expm1(1e-5 * y),
    "small and large numbers": lambda y, _: jnp.log1p(1e-6 * y * y) + 1e-6 * jnp.log1p(1e3 * y * y),
    "large numbers": lambda y, _: jnp.expm1(8 * y),
    "comparisons": lambda y, _: jnp.where(y != 0, (y >= 0.1) * 1.0 + (y < 0.2) * 2.0 + (y <= -0.1) * 4.0, y),
    "a number where": lambda y, _: jnp.where(y > 0.1, 0.5, y),
    "excited": excite,
    "excited, with kept axes": lambda y, dense: y * nnx.sigmoid(dense(y.mean((1, 2), keepdims=True))),
    "variance": lambda y, _: y.var((1, 2)),
    "over its own deviation": lambda y, _: y / (y.std((1, 2, 3), keepdims=True) + 0.1),
}
OF_IMAGES = {
    "max_pool": lambda y, _: nnx.max_pool(y, (3, 3), (2, 2)),
    "avg_pool": lambda y, _: nnx.avg_pool(y, (2, 2), (2, 2), padding=((1, 1), (1, 1))),
}


@pytest.mark.parametrize("name", [*OF_FIELDS, *OF_IMAGES])
def test_operations_of_networks_for_any_size(name, tmp_path):
    model = After((OF_FIELDS | OF_IMAGES)[name], name in OF_FIELDS)
    plain = fc.export.to_plain(model, (9, 8, 2))
    assert plain.input_shape == (None, None, 2)
    for size in ((9, 8), (13, 13)):
        images = noise(2, *size, 2)
        assert error(call(plain, images), call(model, images)) < TOLERANCE
    fc.export.to_onnx(model, tmp_path / "file.onnx", (9, 8, 2))
    images = noise(2, 9, 8, 2)
    assert error(run(tmp_path / "file.onnx", images), call(model, images)) < ONNX_TOLERANCE


def test_an_unbiased_variance_is_of_one_size():
    model, images = After(lambda y, _: jnp.var(y, (1, 2), ddof=1)), noise(2, 9, 8, 2)
    plain = fc.export.to_plain(model, (9, 8, 2))
    assert plain.input_shape == (9, 8, 2)
    assert error(call(plain, images), call(model, images)) < TOLERANCE


def test_a_constant_that_differs_between_features_is_of_one_size():
    model = After(lambda y, _: jnp.where(y > 0, y, jnp.asarray([0.5, 1.0, 2.0])))
    plain, images = fc.export.to_plain(model, (9, 8, 2)), noise(2, 9, 8, 2)
    assert error(call(plain, images), call(model, images)) < TOLERANCE


@pytest.mark.parametrize("kind", ["uint8", "bool", "bfloat16", "float16"])
def test_images_of_other_types_are_widened(kind):
    model = Rows()
    images = jnp.asarray(np.random.default_rng(0).uniform(0, 200, (2, 16, 16, 1))).astype(kind)
    plain = call(fc.export.to_plain(model, (16, 16, 1)), images)
    assert plain.dtype == jnp.float32
    assert error(plain, call(model, images.astype(jnp.float32))) < TOLERANCE


class Rows(nnx.Module):
    """Sums of many pixels, which overflow or lose digits in small types."""

    def __call__(self, x):
        return fc.spatial_mean_pool(x, 8, strides=1)


class Sized(nnx.Module):
    """Something else at some sizes."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor(*x.shape[1:3])


@pytest.mark.parametrize(
    ("factor", "shape"),
    [
        (lambda height, width: 1 + (height > 64), (16, 16, 1)),
        (lambda height, width: 2 + height % 3, (6, 6, 2)),
        (lambda height, width: 1 + (height == width), (6, 9, 2)),
    ],
)
def test_what_depends_on_the_size_otherwise_is_for_one_size(factor, shape):
    assert fc.export.to_plain(Sized(factor), shape).input_shape == shape


class Shrinks(nnx.Module):
    """At 4 x 4 its last map is of one pixel."""

    def __call__(self, x):
        return fc.spatial_mean_pool(fc.spatial_mean_pool(x, 2), 2).mean((1, 2))


def test_a_mean_of_one_pixel_stays_a_mean():
    plain, images = fc.export.to_plain(Shrinks(), (4, 4, 1)), noise(2, 12, 12, 1)
    assert plain.input_shape == (None, None, 1)
    assert error(call(plain, images), call(Shrinks(), images)) < TOLERANCE


def test_a_mean_of_other_axes_than_its_sum():
    model = After(lambda y, _: y.sum((1, 2)).reshape(-1, 1, 3) / 36.0, of_field=False)
    images = noise(2, 6, 6, 2)
    assert error(call(fc.export.to_plain(model, (6, 6, 2)), images), call(model, images)) < TOLERANCE


def test_onnx_does_not_reflect_again_and_again(tmp_path):
    layer = fc.LiftingFConv(1, 1, 7, 4, padding="REFLECT", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="ONNX reflects no image of 3 x 9 by 3 pixels"):
        fc.export.to_onnx(layer, tmp_path / "file.onnx", (3, 9, 1))


class Pair(nnx.Module):
    """Returns something beside the array."""

    def __init__(self, other):
        self.other = other

    def __call__(self, x):
        return nnx.relu(x), self.other


@pytest.mark.parametrize("other", [None, 3, "text"])
def test_a_module_may_return_more_than_arrays(other):
    model = After(lambda y, _: y)
    model.pair, model.function = Pair(other), lambda y, _: model.pair(y)[0]
    images = noise(2, 9, 8, 2)
    assert error(call(fc.export.to_plain(model, (9, 8, 2)), images), call(model, images)) < TOLERANCE


class Tokens(nnx.Module):
    """A dense layer of every pixel in a row."""

    def __init__(self):
        self.dense = nnx.Linear(16, 16, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.dense(x.reshape(x.shape[0], -1, 16))


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (Tokens(), (64, 64, 16), "too large"),
        (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), (5, 5, 3), r"does not take images of input_shape \(=\(5, 5, 3\)\)"),
        (nnx.Conv(2, 3, (7, 7), padding="VALID", rngs=nnx.Rngs(0)), (5, 5, 2), "Conv leaves no pixels"),
        (After(lambda y, _: y > 0), (5, 5, 2), "type bool"),
        (After(lambda y, _: jax.lax.select_n(jnp.asarray(5), y, -y, 3 * y)), (5, 5, 2), "select_n of"),
        (After(lambda y, _: jnp.where(y > 0, 3, 1) // 2 * 1.0), (5, 5, 2), "type int32"),
    ],
)
def test_what_has_no_plain_form_is_one_line(model, shape, words):
    with pytest.raises(ValueError, match=words) as caught:
        fc.export.to_plain(model, shape)
    assert "\n" not in str(caught.value)


def test_parameters_of_another_network_are_refused():
    network = fc.export.to_plain(After(lambda y, _: y), (9, 8, 2))
    arrays = {".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(network))}
    name = next(name for name in arrays if name.endswith("bias"))
    parameters_from(arrays, network)
    with pytest.raises(ValueError, match=f"{name} has the shape"):
        parameters_from(arrays | {name: jnp.zeros(1)}, network)
    with pytest.raises(ValueError, match="other has the shape"):
        parameters_from(arrays | {"other": jnp.zeros(1)}, network)
    with pytest.raises(ValueError, match=f"{name} has the shape None"):
        parameters_from({key: array for key, array in arrays.items() if key != name}, network)


def test_constants_stay_float32_where_jax_has_float64():
    description = fc.export.to_plain(After(lambda y, _: y + jnp.asarray([0.5, 1.0, 2.0])), (9, 8, 2)).description
    with jax.enable_x64(True):
        network = fc.export.PlainNetwork(description)
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(network))} == {np.dtype(np.float32)}
