"""Inputs at the edge of what is documented: empty batches, infinities, NumPy's types, images below a kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise


@pytest.mark.parametrize("algorithm", ["direct", "loops"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_an_empty_batch_by_each_algorithm(algorithm, size):
    layer = fc.GroupFConv(2, 4, size, 8, rngs=nnx.Rngs(0))
    with fc.convolution_algorithm(algorithm):
        assert layer(jnp.ones((0, 8, 8, 8, 2))).shape == (0, 8, 8, 8, 4)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3, 4, 7])
def test_quarter_turns_of_vectors_move_numbers_only(turns):
    vectors = jnp.array([jnp.inf, 1.0]).reshape(1, 1, 1, 2, 1)
    expected = {0: (np.inf, 1), 1: (-1, np.inf), 2: (-np.inf, -1), 3: (1, -np.inf)}[turns % 4]
    np.testing.assert_array_equal(fc.rotate_vectors(vectors, 90 * turns).ravel(), expected)


def test_vectors_of_numpys_numbers():
    field = np.random.default_rng(0).normal(size=(1, 2, 2, 4, 3))
    vectors = fc.to_vectors(field, 4)
    assert vectors.dtype == jnp.float32
    np.testing.assert_array_equal(vectors, fc.to_vectors(jnp.asarray(field, jnp.float32), 4))
    assert fc.from_vectors(np.asarray(vectors, np.float64), 4).dtype == jnp.float32


def test_an_unet_of_vectors_needs_three_rotations():
    with pytest.raises(ValueError, match="at least 3 rotations"):
        fc.models.create("unet_fconv", group=2, output="vectors", depth=1, width=2, rngs=nnx.Rngs(0))


def test_nnx_conv_on_an_image_below_its_kernel():
    layers = [
        nnx.Conv(1, 2, (5, 5), padding=0, rngs=nnx.Rngs(0), **more)
        for more in ({}, {"conv_general_dilated": fc.conv_general_dilated})
    ]
    ours, theirs = (layer(jnp.ones((1, 3, 3, 1))) for layer in layers)
    assert ours.shape == theirs.shape


def test_nnx_conv_keeps_the_type_that_is_asked_for():
    """A NumPy type equals None."""
    with jax.enable_x64(True):
        asked = {"preferred_element_type": np.dtype("float64"), "padding": 1, "rngs": nnx.Rngs(0)}
        layer = nnx.Conv(2, 3, (3, 3), conv_general_dilated=fc.conv_general_dilated, **asked)
        assert layer(jnp.ones((1, 4, 4, 2), jnp.float32)).dtype == jnp.float64


def test_a_twin_has_the_biases_that_a_plain_layer_can_have():
    for name in ("edsr_fconv", "unet_fconv"):
        options = {"group": 4, "width": 2, "in_features": 1, "rngs": nnx.Rngs(0)}
        fc.models.plain_twin(name, bias_init=fc.initializers.torch_reference(), **options)
    twin = fc.models.plain_twin("edsr_fconv", bias_init=nnx.initializers.ones, **options)
    np.testing.assert_array_equal(twin.conv.bias[...], 1)
    with pytest.raises(ValueError, match="must be resnet18_fconv"):
        fc.models.plain_twin(["edsr_fconv"], rngs=nnx.Rngs(0))


def test_plain_blocks_refuse_what_blocks_with_a_group_refuse():
    for options, said in (((1, 0, 3), "out_features"), ((1, 2, 4), "odd kernel_size")):
        with pytest.raises(ValueError, match=said):
            fc.ConvBlock(*options, None, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="'foo'"):
        fc.ConvBlock(1, 2, 3, None, padding="foo", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="in_features"):
        fc.UpBlock("1", 2, 3, rngs=nnx.Rngs(0))


def test_an_output_that_is_none_is_no_array():
    x = noise(1, 5, 5, 1)
    assert fc.equivariance_error(lambda x: (x, None), x) == 0
    assert fc.equivariance_error(lambda x: {"a": x, "b": None}, x, kind={"a": "scalar", "b": None}) == 0
    with pytest.raises(ValueError, match="no array"):
        fc.equivariance_error(lambda x: None, x)


def test_edsr_computes_in_half_precision_under_strict_types():
    model = fc.models.create("edsr_fconv", in_features=3, blocks=1, width=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    images = noise(1, 8, 8, 3)
    expected = model(images)
    with jax.numpy_dtype_promotion("strict"):
        found = model(images)
    assert found.dtype == expected.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)


def test_gradients_of_half_precision_in_large_batches_under_strict_types():
    layer = fc.LiftingFConv(2, 2, 3, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    images = noise(40, 5, 5, 2).astype(jnp.bfloat16)
    loss = nnx.grad(lambda layer, x: (layer(x) ** 2).sum().astype(jnp.float32))
    expected = loss(layer, images)
    with jax.numpy_dtype_promotion("strict"):
        found = loss(layer, images)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_nnx_conv_with_our_convolution_is_exported_for_any_size():
    conv = nnx.Conv(
        1, 2, (5, 5), padding=((0, 0), (0, 0)), conv_general_dilated=fc.conv_general_dilated, rngs=nnx.Rngs(0)
    )
    sizes = jax.export.symbolic_shape("b,h,w")
    images = jax.ShapeDtypeStruct((*sizes, 1), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: conv(x)))(images)
    x = noise(2, 9, 7, 1)
    np.testing.assert_allclose(exported.call(x), conv(x), atol=1e-6)


def test_a_resnet_without_norms_has_biases():
    model = fc.models.create("resnet18_fconv", width=1, group=4, norm=None, rngs=nnx.Rngs(0))
    assert model.blocks[0].conv1.bias is not None


@pytest.mark.parametrize("name", ["lenet", "lenet_fconv", "alexnet_fconv"])
def test_a_networks_name_says_what_its_convolutions_are(name):
    with pytest.raises(ValueError, match=r"fconv .* must be an option of"):
        fc.models.create(name, fconv="fconv" not in name, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", ["layer", "facts"])
def test_an_initialiser_of_ones_own_gets_the_layers_facts(name):
    he = fc.initializers.he()
    half = {
        "layer": lambda key, shape, dtype, layer: 0.5 * he(key, shape, dtype, layer),
        "facts": lambda key, shape, dtype, *, facts: 0.5 * he(key, shape, dtype, facts),
    }[name]
    whole, halved = (
        fc.LiftingFConv(1, 2, 3, 4, coefficient_init=one, rngs=nnx.Rngs(0)).coefficients[...] for one in (he, half)
    )
    np.testing.assert_array_equal(halved, 0.5 * whole)
    fourth = nnx.initializers.normal()  # its fourth argument, which has a default, is not the facts
    assert fc.LiftingFConv(1, 2, 3, 4, coefficient_init=fourth, rngs=nnx.Rngs(0)).coefficients.shape[:2] == (1, 2)


def test_layers_that_the_reference_cannot_hold_are_named():
    """A stack of layers, as `nnx.vmap` makes them, and a convolution along a line."""

    @nnx.vmap
    def stack(rngs):
        return fc.LiftingFConv(1, 2, 3, 4, rngs=rngs)

    model = nnx.Dict(stack=stack(nnx.Rngs(0).split(2)), line=nnx.Conv(1, 2, (3,), rngs=nnx.Rngs(0)))
    layer = fc.LiftingFConv(1, 2, 3, 4, rngs=nnx.Rngs(0))
    basis = layer.sampled_basis.values
    state = {"stack.Basis": basis, "stack.weights": np.zeros((2, 1, 1, basis.shape[-1]), np.float32)}
    with pytest.raises(ValueError, match=r"(?s)a convolution with a kernel.*a stack of layers"):
        fc.torch_reference.load_weights(model, state, names={"stack": "stack", "line": "line"})


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "uint8"])
def test_upsampling_and_vectors_keep_the_type_and_make_float32_of_whole_numbers(dtype):
    field = jnp.asarray(np.arange(128).reshape(1, 4, 4, 4, 2), dtype)
    kept, vectors = "float32" if dtype == "uint8" else dtype, fc.to_vectors(field, 4)
    assert vectors.dtype == fc.from_vectors(vectors, 4).dtype == kept
    expected = fc.upsample(field.astype(jnp.float32)).astype(kept)  # rounded once
    np.testing.assert_array_equal(fc.upsample(field), expected, strict=True)


def test_padding_of_a_maximum_is_below_every_pixel():
    darkest = jnp.full((1, 4, 4, 1), -jnp.inf)
    for pool in (fc.spatial_max_pool, fc.torch_reference.corner_max_pool):
        assert jnp.all(pool(darkest, 2, padding=1) == -jnp.inf)
