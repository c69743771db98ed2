"""The paper's own MNIST networks: sizes, initial weights, dropout and what keeps rotations by 90 degrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from tests.fconv_jax.models.test_init import create, images, sizes_of_stages

pytestmark = pytest.mark.unoptimized  # exact whatever the order of sums, or wrong by far

# name: (features of each layer, rotations, number of field dropouts, rate in the head)
NETWORKS = {"fconv_mnist_simple": ((10,) * 6, 8, 0, 0.2), "fconv_mnist": ((16, 16, 32, 32, 32, 64, 96), 12, 6, 0.7)}


@pytest.fixture(scope="module")
def networks():
    return {name: create(name) for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_as_published(networks, name):
    model, (widths, rotations, num_dropped, rate) = networks[name], NETWORKS[name]
    for number, width in enumerate(widths, start=1):
        conv, norm = getattr(model, f"conv{number}"), getattr(model, f"norm{number}")
        assert (conv.out_features, conv.group.order, conv.bias) == (width, rotations, None)
        assert (conv.kernel_size, conv.basis.num_frequencies) == ((7, 5) if number == 1 else (5, 4))
        assert conv.padding == (1 if number in (1, len(widths)) else 2)
        assert (conv.basis.mask, conv.basis.smooth) == ("gaussian", True)
        assert (norm.momentum, norm.epsilon, norm.num_features) == (0.9, 1e-5, width)
    assert model.dense1.kernel.shape == (widths[-1], widths[-1])
    assert model.dense2.kernel.shape == (widths[-1], 10)
    assert sum(stage.startswith("field_dropout") for stage, _ in model.stages) == num_dropped
    assert model.dropout.rate == rate


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_of_the_stages(networks, name):
    widths, rotations, *_ = NETWORKS[name]
    shapes = sizes_of_stages(networks[name])
    assert [shapes[stage][1] for stage in ("conv1", "conv2", "pool1", "conv4", "pool2")] == [24, 24, 13, 13, 7]
    assert shapes["pool3"] == (1, 1, 1, rotations, widths[-1])
    assert (shapes["flatten"], shapes["dense2"]) == ((1, widths[-1]), (1, 10))


def test_initial_coefficients_are_as_published(networks):
    conv = networks["fconv_mnist"].conv4
    bound = np.sqrt(6 / (32 * conv.sampled_basis.rank)) * conv.sampled_basis.weights
    scaled = np.asarray(conv.coefficients[...]) / bound
    assert np.max(np.abs(scaled)) <= 1.0 + 1e-6
    np.testing.assert_allclose(np.std(scaled, axis=(0, 1, 2)), 1 / np.sqrt(3), rtol=0.03)
    np.testing.assert_array_equal(networks["fconv_mnist"].norm4.scale[...], 1.0)


def test_he_weights_differ():
    he, published = (create("fconv_mnist_simple", init=init, num_classes=3) for init in ("he", "report"))
    assert he.dense2.kernel.shape == (10, 3)
    assert not np.allclose(he.conv2.coefficients[...], published.conv2.coefficients[...])


@pytest.mark.slow
def test_training_needs_rngs_and_updates_the_statistics():
    model, x = create("fconv_mnist_simple"), images(4)
    with pytest.raises(ValueError, match="needs rngs"):
        model(x)
    graph, parameters, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def step(parameters, rest):
        def loss(parameters):
            merged = nnx.merge(graph, parameters, rest, copy=True)
            logits = merged(x, rngs=nnx.Rngs(dropout=1))
            return jnp.mean(jax.nn.logsumexp(logits, -1)), nnx.state(merged, nnx.BatchStat)

        return jax.grad(loss, has_aux=True)(parameters)

    gradients, statistics = step(parameters, rest)
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients["conv1"]))
    assert float(jnp.max(jnp.abs(statistics["norm6"]["mean"][...]))) > 0.0
    model.eval()
    assert model(x).shape == (4, 10)


@pytest.mark.parametrize(("last", "broken"), [("relu4", None), ("pool2", 1e-2), ("flatten", 1e-3)])
def test_quarter_rotations_are_exact_up_to_the_second_pool(networks, last, broken):
    graph, state = nnx.split(nnx.view(networks["fconv_mnist_simple"], deterministic=True, use_running_average=True))

    @jax.jit
    def run(x):
        for stage, call in nnx.merge(graph, state, copy=True).stages:
            x = call(x)
            if stage == last:
                return x

    error = fconv_jax.equivariance_error(run, images(2))
    assert error < 1e-5 if broken is None else error > broken
