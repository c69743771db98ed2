"""The paper's own MNIST networks: sizes, initial weights, dropout and what keeps quarter turns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from fconv_jax import models

NAMES = ("fconv_mnist_simple", "fconv_mnist")
WIDTHS = {"fconv_mnist_simple": (10,) * 6, "fconv_mnist": (16, 16, 32, 32, 32, 64, 96)}
ROTATIONS = {"fconv_mnist_simple": 8, "fconv_mnist": 12}


@pytest.fixture(scope="module")
def networks():
    return {name: models.create(name, rngs=nnx.Rngs(0)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_as_published(networks, name):
    model, widths = networks[name], WIDTHS[name]
    for number, width in enumerate(widths, start=1):
        conv = getattr(model, f"conv{number}")
        assert (conv.out_features, conv.num_rotations, conv.bias) == (width, ROTATIONS[name], None)
        assert (conv.kernel_size, conv.num_frequencies) == ((7, 5) if number == 1 else (5, 4))
        assert conv.padding == (1 if number in (1, len(widths)) else 2)
        assert (conv.mask, conv.smooth) == ("gaussian", True)
        norm = getattr(model, f"norm{number}")
        assert (norm.momentum, norm.epsilon, norm.num_features) == (0.9, 1e-5, width)
    assert model.dense1.kernel.shape == (widths[-1], widths[-1])
    assert model.dense2.kernel.shape == (widths[-1], 10)
    dropped = [stage for stage, _ in model.stages if stage.startswith("field_dropout")]
    assert len(dropped) == (6 if name == "fconv_mnist" else 0)
    assert model.dropout.rate == {"fconv_mnist_simple": 0.2, "fconv_mnist": 0.7}[name]


@pytest.mark.parametrize("name", NAMES)
def test_sizes_of_the_stages(networks, name):
    graph, state = nnx.split(nnx.view(networks[name], deterministic=True, use_running_average=True))

    def sizes(x):
        shapes = {}
        for stage, call in nnx.merge(graph, state, copy=True).stages:
            x = call(x)
            shapes[stage] = x.shape
        return shapes

    shapes = {}
    jax.eval_shape(lambda x: shapes.update(sizes(x)), jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32))
    last = WIDTHS[name][-1]
    assert [shapes[stage][1] for stage in ("conv1", "conv2", "pool1", "conv4", "pool2")] == [24, 24, 13, 13, 7]
    assert shapes["pool3"] == (2, 1, 1, ROTATIONS[name], last)
    assert shapes["flatten"] == (2, last)
    assert shapes["dense2"] == (2, 10)


def test_initial_coefficients_are_as_published(networks):
    conv = networks["fconv_mnist"].conv4
    basis = conv.fourier_basis
    bound = np.sqrt(6 / (32 * basis.rank)) * basis.weights
    scaled = np.asarray(conv.coefficients[...]) / bound
    assert np.max(np.abs(scaled)) <= 1.0 + 1e-6
    np.testing.assert_allclose(np.std(scaled, axis=(0, 1, 2)), 1 / np.sqrt(3), rtol=0.03)
    np.testing.assert_array_equal(networks["fconv_mnist"].norm4.scale[...], 1.0)


def test_he_start_differs_and_other_inits_are_refused():
    he = models.create("fconv_mnist_simple", init="he", num_classes=3, rngs=nnx.Rngs(0))
    published = models.create("fconv_mnist_simple", num_classes=3, rngs=nnx.Rngs(0))
    assert he.dense2.kernel.shape == (10, 3)
    assert not np.allclose(he.conv2.coefficients[...], published.conv2.coefficients[...])
    with pytest.raises(ValueError, match=r"init \(='paper'\)"):
        models.create("fconv_mnist_simple", init="paper", rngs=nnx.Rngs(0))


def test_training_needs_rngs_and_updates_the_statistics():
    model = models.create("fconv_mnist_simple", rngs=nnx.Rngs(0))
    images = jax.random.uniform(jax.random.key(0), (4, 28, 28, 1))
    with pytest.raises(ValueError, match="needs rngs"):
        model(images)
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def step(parameters, rest):
        def loss(parameters):
            merged = nnx.merge(graph, parameters, rest, copy=True)
            logits = merged(images, rngs=nnx.Rngs(dropout=1))
            return jnp.mean(jax.nn.logsumexp(logits, -1)), nnx.state(merged, nnx.BatchStat)

        return jax.grad(loss, has_aux=True)(parameters)

    gradients, statistics = step(parameters, rest)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients["conv1"]))
    assert float(jnp.max(jnp.abs(statistics["norm6"]["mean"][...]))) > 0.0
    model.eval()
    assert model(images).shape == (4, 10)


def test_quarter_turns_are_exact_up_to_the_second_pool(networks):
    graph, state = nnx.split(nnx.view(networks["fconv_mnist_simple"], deterministic=True, use_running_average=True))
    x = jax.random.uniform(jax.random.key(0), (2, 28, 28, 1))

    def up_to(last):
        def run(x):
            for stage, call in nnx.merge(graph, state, copy=True).stages:
                x = call(x)
                if stage == last:
                    return x

        return jax.jit(run)

    assert fconv_jax.equivariance_error(up_to("relu4"), x) < 1e-5
    assert fconv_jax.equivariance_error(up_to("pool2"), x) > 1e-2
    assert fconv_jax.equivariance_error(up_to("flatten"), x) > 1e-3
