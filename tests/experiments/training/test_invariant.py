"""Training invariant networks: they stay invariant, and all ways of mapping seeds agree with batch norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.training import devices
from experiments.training import network as networks
from experiments.training.devices import Layout
from experiments.training.programs import Programs
from fconv_jax.models.invariant import InvariantFConv, Layer
from tests.experiments import small_digits

EXACT = 1e-5  # of the largest logit: the order of float32 sums
UNROLLED = Layout("loop", None, 250, 1, (1, 1), unrolled=True)


def train(network, split, layout, seeds, batch_size, steps):
    programs = Programs(network, layout, seeds, (), batch_size=batch_size, learning_rate=5e-3, schedule="cosine",
                      num_steps=steps)  # fmt: skip
    data, states = programs.place(split), programs.init()
    start, losses = jax.device_get(states["params"]), []
    orders = programs.orders(data, 0)
    for step in range(steps):
        states, some, _ = programs.steps(states, orders, data, 0, step, 1)
        losses.append(programs.rows(some))
    return start, programs.rows(states), np.concatenate(losses, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch_size", "steps"),
    [("lenet_fconv_invariant", 16, 4), pytest.param("alexnet_fconv_invariant", 4, 1, marks=pytest.mark.long)],
)
def test_invariant_before_and_after_training(name, batch_size, steps):
    network = networks.build(name)
    start, states, losses = train(network, small_digits.split("train", False), UNROLLED, (0,), batch_size, steps)
    assert np.isfinite(losses).all()
    images = jnp.asarray(small_digits.split("test", False).images[:4])

    @jax.jit
    def logits(params, images):
        params, stats = (jax.tree.map(lambda x: x[0], tree) for tree in (params, states["stats"]))
        return network.apply(network.expand(params), stats, images)[0]

    before, after = (logits(params, images) for params in (start, states["params"]))
    assert jnp.abs(after - before).max() > 100 * EXACT * jnp.abs(before).max()  # it has learned something
    for params, expected in ((start, before), (states["params"], after)):
        rotated = logits(params, jnp.rot90(images, axes=(1, 2)))
        np.testing.assert_allclose(rotated, expected, rtol=0, atol=EXACT * float(jnp.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.unoptimized  # they are compared with each other
def test_all_ways_agree_with_batch_norm():
    create = functools.partial(InvariantFConv, (Layer(3, 2, pool=True), Layer(3, 2)), num_rotations=4, hidden=4)
    network = networks.network(create)
    assert network.has_stats
    cases = [train(network, small_digits.split("train", False), layout, (0, 3), 16, 3) for layout in (
        UNROLLED, Layout("loop", None, 250, 1, (1, 1)), Layout("vmap", None, 250, 1, (1, 1)))]  # fmt: skip
    for _, states, losses in cases[1:]:
        np.testing.assert_allclose(losses, cases[0][2], rtol=2e-5)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
        jax.tree.map(close, states["stats"], cases[0][1]["stats"])


def test_networks_of_many_channels_are_unrolled_on_a_cpu():
    assert devices.layout("lenet_fconv_invariant", 5, 64, has_stats=True).unrolled
    assert not devices.layout("lenet_fconv", 5, 64).unrolled


def test_statistics_are_saved_apart_from_parameters():
    network = networks.build("lenet_fconv_invariant")
    model = networks.abstract_model(network)
    assert len(jax.tree.leaves(nnx.state(model, nnx.BatchStat))) == 8
