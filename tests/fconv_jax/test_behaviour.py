"""What users of Flax expect, of every layer, pool, rotation and model: tables of each kind."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax.draws import _SHORT
from fconv_jax.torch_reference import corner_blur_pool, corner_max_pool
from tests.fconv_jax import every
from tests.fconv_jax.arrays import assert_close, noise
from tests.fconv_jax.layer_cases import EVERY, POINTWISE_KINDS, Group1x1, make, noise_for

# What is told apart here (types, shapes, errors, programs against each other) no optimization of XLA's changes.
pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

WHOLE = [np.int8, np.uint8, np.int64, lambda n: np.array(n)]
RANDOM_FLAGS = [
    {"jax_threefry_partitionable": False},
    {"jax_default_prng_impl": "rbg"},
    pytest.param({"jax_threefry_partitionable": True}, marks=pytest.mark.long),
    pytest.param({"jax_default_prng_impl": "unsafe_rbg"}, marks=pytest.mark.long),
]


@pytest.fixture
def flags():
    """Sets flags of jax until the test ends."""
    before = {}

    def update(**values):
        for name, value in values.items():
            before.setdefault(name, getattr(jax.config, name))
            jax.config.update(name, value)

    yield update
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("name", every.FUNCTIONS)
def test_functions_take_an_empty_batch(name):
    function, axes = every.FUNCTIONS[name]
    one, none = jax.eval_shape(function, every.function_input(axes, 1)), function(every.function_input(axes, 0))
    assert (none.shape, none.dtype) == ((0, *one.shape[1:]), one.dtype)
    if "dropout" not in name and "vectors" not in name and axes > 3:
        assert float(fc.equivariance_error(function, every.function_input(axes, 0))) == 0.0
        fc.assert_equivariant(function, every.function_input(axes, 0))


@pytest.mark.parametrize("name", every.LAYERS)
def test_layers_take_an_empty_batch_and_its_gradient_is_zero(name):
    layer = every.LAYERS[name]()
    layer.eval()

    @nnx.jit
    def output_and_gradients(layer, x):
        return layer(x), nnx.grad(lambda layer, x: jnp.sum(layer(x)))(layer, x)

    one = nnx.eval_shape(lambda layer, x: layer(x), layer, every.layer_input(layer, 1))
    none, gradients = output_and_gradients(layer, every.layer_input(layer, 0))
    assert none.shape == (0, *one.shape[1:])
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(leaf, jnp.zeros_like(leaf))


@pytest.mark.parametrize("name", [name for name in fc.models.MODELS if name not in ("unet_fconv", "edsr_fconv")])
def test_models_take_an_empty_batch(name):
    options = {"width": 2} if "resnet" in name else {}
    model = nnx.eval_shape(lambda: fc.models.create(name, rngs=nnx.Rngs(0), **options))
    graph, state = nnx.split(model)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) if leaf.dtype.kind in "fi" else leaf, state)
    model = nnx.merge(graph, state)
    model.eval()
    assert nnx.jit(lambda model, x: model(x))(model, jnp.zeros((0, 28, 28, 1))).shape == (0, 10)


@pytest.mark.parametrize("flag", ["jax_numpy_rank_promotion", "jax_numpy_dtype_promotion"])
@pytest.mark.parametrize("name", [*every.FUNCTIONS, *every.LAYERS])
def test_nothing_is_promoted_by_rank_or_type(name, flag, flags):
    """Promotion is refused where a program is traced: nothing need be computed."""
    flags(**{flag: "raise" if "rank" in flag else "strict"})
    if name in every.FUNCTIONS:
        function, axes = every.FUNCTIONS[name]
        x = every.function_input(axes, 2)
        jax.eval_shape(jax.grad(lambda x: jnp.sum(function(x) ** 2)), x)
        if axes > 3 and name not in ("dropout", "rotate_vectors_30"):
            jax.eval_shape(lambda x: fc.equivariance_error(function, x, margin=10), x)
    else:
        layer = every.LAYERS[name]()
        x = every.layer_input(layer, 2)
        nnx.eval_shape(nnx.grad(lambda layer, x: jnp.sum(layer(x) ** 2), argnums=(0, 1)), layer, x)


@pytest.mark.parametrize("flag", ["jax_numpy_rank_promotion", "jax_numpy_dtype_promotion"])
def test_what_is_promoted_is_found_by_tracing(flag, flags):
    """Negative control."""
    other = jnp.ones(2) if "rank" in flag else jnp.ones((2, 2), jnp.int32)
    jax.eval_shape(lambda x: x + other, jnp.ones((2, 2)))
    flags(**{flag: "raise" if "rank" in flag else "strict"})
    with pytest.raises((ValueError, jax.dtypes.TypePromotionError)):
        jax.eval_shape(lambda x: x + other, jnp.ones((2, 2)))


@pytest.mark.parametrize("flag", ["jax_numpy_rank_promotion", "jax_numpy_dtype_promotion"])
@pytest.mark.parametrize("name", ["lenet_fconv", "fconv_mnist_simple", "lenet_fconv_invariant"])
def test_models_promote_nothing(name, flag, flags):
    flags(**{flag: "raise" if "rank" in flag else "strict"})
    model = nnx.eval_shape(lambda: fc.models.create(name, rngs=nnx.Rngs(0)))
    model.train()
    x, key = noise(2, 28, 28, 1), jax.random.key(0)
    nnx.eval_shape(nnx.grad(lambda model, x, key: jnp.sum(model(x, rngs=key) ** 2)), model, x, key)


@pytest.mark.parametrize("whole", WHOLE)
def test_sizes_may_be_numpys(whole):
    x = noise(1, 9, 9, 2)
    field, n = noise(1, 9, 9, 4, 2), whole
    for cls in EVERY:
        options = {"strides": n(2)} | ({} if cls in POINTWISE_KINDS else {"padding": n(1)})
        sizes = {"in_features": n(2), "out_features": n(3), "kernel_size": n(3), "num_rotations": n(4)}
        plain = {"strides": 2} | ({"padding": 1} if "padding" in options else {})
        layer, expected = make(cls, **sizes, **options), make(cls, **plain)
        y = noise_for(expected, 1, 9, 9)
        np.testing.assert_array_equal(layer(y), expected(y))
        assert all(type(value) is int for name, value in vars(layer).items() if name.endswith(("features", "strides")))
        assert len(jax.tree.leaves(nnx.state(layer))) == len(jax.tree.leaves(nnx.state(expected)))
    for pool in (fc.spatial_max_pool, fc.spatial_mean_pool, fc.blur_pool):
        expected = pool(x, 3, strides=2, padding=1)
        np.testing.assert_array_equal(pool(x, n(3), strides=n(2), padding=n(1)), expected)
    np.testing.assert_array_equal(corner_max_pool(x, n(3), padding=n(1)), corner_max_pool(x, 3, padding=1))
    np.testing.assert_array_equal(corner_blur_pool(x, n(3), strides=n(2)), corner_blur_pool(x, 3, strides=2))
    np.testing.assert_array_equal(fc.disk_mask(n(9)), fc.disk_mask(9))
    assert fc.Group(n(12)) == fc.Group(12)
    kernel = noise(3, 3, 2, 4)
    y = fc.convolve(x, kernel, strides=n(2), padding=n(1))
    np.testing.assert_array_equal(y, fc.convolve(x, kernel, strides=2, padding=1))
    assert fc.models.create("lenet_fconv", num_classes=n(3), rngs=nnx.Rngs(0)).dense2.out_features == 3
    assert fc.ResidualBlock(n(2), n(2), n(3), n(4), norm="batch", rngs=nnx.Rngs(0))(field).shape == field.shape


@pytest.mark.parametrize("wrong", [True, np.True_, 2.0, np.float32(2), "2", None, np.array([2]), jnp.array(True)])
def test_what_is_no_whole_number_is_refused(wrong):
    x = noise(1, 8, 8, 2)
    calls = [
        lambda: fc.spatial_max_pool(x, wrong),
        lambda: corner_max_pool(x, 2, padding=wrong),
        lambda: fc.convolve(x, noise(3, 3, 2, 4), strides=wrong),
        lambda: fc.disk_mask(wrong),
        lambda: fc.Group(wrong),
        lambda: fc.upsample(x, wrong),
        lambda: fc.LiftingFConv(wrong, 2, 3, rngs=nnx.Rngs(0)),
        lambda: fc.GroupFConv(2, 2, 1, feature_group_count=wrong, rngs=nnx.Rngs(0)),
        lambda: fc.models.create("lenet", num_classes=wrong, rngs=nnx.Rngs(0)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="must be a whole number"):
            call()


@pytest.mark.parametrize("name", every.LAYERS)
@pytest.mark.parametrize("inputs", ["bfloat16", "float16", "float32", "uint8"])
@pytest.mark.parametrize("params", ["bfloat16", "float16", "float32"])
def test_types_are_promoted_as_by_flax(name, inputs, params):
    layer = every.LAYERS[name](param_dtype=params)
    x = every.layer_input(layer, 2).astype(inputs)
    conv = nnx.Conv(x.shape[-1], 3, (3, 3), param_dtype=jnp.dtype(params), rngs=nnx.Rngs(0))
    y = layer(x)
    assert y.dtype == conv(x.reshape(-1, 8, 8, x.shape[-1])).dtype
    assert_close(y, layer(x.astype(jnp.float32)), 0.05)


ANGLES = [np.array([30.0, 45.0]), np.array([90.0]), [90], "90", None, True, np.nan, 1j, np.inf]


@pytest.mark.parametrize("angle", ANGLES, ids=str)
def test_an_angle_is_one_finite_number(angle):
    image, field = noise(1, 8, 8, 1), noise(1, 8, 8, 4, 1)
    calls = [
        lambda: fc.rotate_image(image, angle),
        lambda: fc.rotate_field(field, angle),
        lambda: fc.equivariance_error(fc.blur_pool, image, angle),
        lambda: fc.assert_equivariant(fc.blur_pool, image, angle),
        lambda: fc.audit(make(fc.LiftingFConv, 1), (8, 8, 1), angles=(angle,)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="angle"):
            call()


def test_an_angle_may_be_of_numpy_or_jax():
    image = noise(1, 8, 8, 1)
    for angle in (np.float32(30), np.array(30), jnp.array(30.0), 30):
        np.testing.assert_array_equal(fc.rotate_image(image, angle), fc.rotate_image(image, 30.0))
    with pytest.raises(ValueError, match="angle"):
        jax.jit(fc.rotate_image)(image, 30.0)


EXPORTED = {
    "lift": (make(fc.LiftingFConv, padding="SAME"), "b, h, w, 2"),
    "group": (make(fc.GroupFConv, padding="SAME"), "b, h, w, 4, 2"),
    "project": (make(fc.ProjectingFConv, kernel_size=4, padding=1, strides=2), "b, h, w, 4, 2"),
    "pointwise": (make(Group1x1), "b, h, w, 4, 2"),
    "upsample": (fc.upsample, "b, h, w, 4, 2"),
    "max_over_group": (fc.max_over_group, "b, h, w, 4, 2"),
    "max": (fc.spatial_max_pool, "b, 2*h, 2*w, 4, 2"),
    "mean": (fc.spatial_mean_pool, "b, 2*h, 2*w, 2"),
    "corner_max": (corner_max_pool, "b, h, w, 4, 2"),
    "blur": (lambda x: fc.blur_pool(x, 5, strides=1), "b, h, w, 2"),
    "quarter": (lambda x: fc.rotate_image(x, 90), "b, h, w, 2"),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_sizes_may_be_symbols_of_an_export(name):
    function, shape = EXPORTED[name]
    symbols = jax.export.symbolic_shape(shape)
    exported = jax.export.export(jax.jit(lambda x: function(x)))(jax.ShapeDtypeStruct(symbols, jnp.float32))
    x = noise(3, 8, 10, *(int(size) for size in symbols[3:]))
    assert_close(exported.call(x), function(x))


def test_a_symbolic_size_that_no_stride_is_known_to_divide_is_refused():
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, h, w, 2"), jnp.float32)
    with pytest.raises(ValueError, match=r"strides \(=2\) must be known to divide"):
        jax.export.export(jax.jit(fc.spatial_max_pool))(shape)
    with pytest.raises(ValueError, match="multiples of 90 degrees only"):
        jax.export.export(jax.jit(lambda x: fc.rotate_image(x, 30)))(shape)


@pytest.mark.parametrize("flag", RANDOM_FLAGS, ids=str)
def test_layers_are_the_same_made_at_once_and_under_jit(flag, flags):
    flags(**flag)
    makers = [lambda cls=cls: make(cls, 3, 5, 5, 8, init="report") for cls in EVERY]
    makers.append(lambda: fc.LiftingFConv(40, _SHORT // 40, 3, rngs=nnx.Rngs(0)))  # above the short row
    makers.append(lambda: fc.models.create("lenet", rngs=nnx.Rngs(3)))

    def parameters():
        return [nnx.to_pure_dict(nnx.state(maker(), nnx.Param)) for maker in makers]

    chex.assert_trees_all_close(parameters(), jax.jit(parameters)(), rtol=1e-6, atol=1e-8)
