"""The compiled programs: every network trains a step, and those of the report compile for CUDA."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.settings import NAMED
from experiments.training import network as networks
from experiments.training.devices import Layout
from experiments.training.programs import Programs
from tests.experiments import small_digits

pytestmark = pytest.mark.unoptimized  # finite, moved, counted: whatever the order of sums
LOOP, GPU = Layout("loop", None, 250, 1, (1, 1)), Layout("vmap", None, 5000, 64, (1, 1))
REPORT = NAMED[:5]


def programs_of(name, layout, seeds, batch_size, settings=(1,)):
    return Programs(networks.build(name), layout, seeds, settings, batch_size=batch_size, learning_rate=1e-3)


def first(split, count):
    return dataclasses.replace(
        split, images=split.images[:count], labels=split.labels[:count], angles=split.angles[:count]
    )


SMALL = [name for name in NAMED if not name.startswith("alexnet") and name not in ("fconv_mnist", "stack_c4")]


# Networks of batch norm and many channels take most of the time to compile: one of them for all in the quick run.
LATER = {"stack_c8": [pytest.mark.long], "fconv_mnist_simple": [pytest.mark.slow]}


@pytest.mark.parametrize("name", [pytest.param(n, marks=LATER.get(n, [])) for n in SMALL])
def test_every_small_network_trains_a_step(name):
    programs = programs_of(name, LOOP, (0,), 4, settings=())
    states, data = programs.init(), programs.place(first(small_digits.split("train", False), 4))
    before = jax.device_get(states["params"])
    states, losses, done = programs.steps(states, programs.orders(data, 0), data, 0, 0, 1)
    assert done == 1
    assert np.isfinite(losses).all()
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, jax.device_get(states["params"]))
    assert all(jax.tree.leaves(moved)), moved


@pytest.mark.parametrize("name", [name for name in NAMED if name not in SMALL])
def test_every_large_network_has_a_step(name):
    """In shapes only: losses of the seeds, and a state like the one before."""
    programs = programs_of(name, dataclasses.replace(LOOP, slice_size=None), (0, 1), 8)
    states = jax.eval_shape(programs._init, programs.seeds)
    arguments = abstract_arguments(states, 2, 16)
    after, losses = jax.eval_shape(programs._steps(1, 8), *arguments)
    assert losses.shape == (2, 1)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), states)


def abstract_arguments(states, num_seeds, num_images):
    shape = jax.ShapeDtypeStruct
    data = (shape((num_images, 28, 28, 1), jnp.uint8), shape((num_images,), jnp.int32))
    one = shape((), jnp.int32)
    return states, shape((num_seeds,), jnp.uint32), one, one, shape((num_seeds, num_images), jnp.int32), data


@pytest.mark.parametrize("name", REPORT)
def test_steps_of_five_seeds_lower_for_cuda(name):
    """Abstract shapes only: no parameters are made."""
    layout = dataclasses.replace(GPU, slice_size=1024 if name.startswith("alexnet") else None)
    programs = programs_of(name, layout, range(5), 4096)
    states = jax.eval_shape(programs._init, programs.seeds)
    arguments = abstract_arguments(states, 5, 17_500)
    for program in (programs._steps(4, 4096), programs._last_step(17_500 % 4096)):
        exported = jax.export.export(program, platforms=["cuda"])(*arguments)
        assert exported.platforms == ("cuda",)
        assert exported.out_avals[-1].shape[0] == 5
        assert "convolution" in exported.mlir_module()
    rows = (states["params"], states["stats"], jax.ShapeDtypeStruct((), jnp.int32), arguments[-1])
    assert jax.export.export(programs._confusion, platforms=["cuda"])(*rows).out_avals[0].shape == (5, 10, 10)


def test_counts_of_a_whole_split_by_hand():
    """Whatever the size of the parts and slices: no image twice, none missed."""
    split, network = small_digits.split("test", True), networks.build("lenet")
    params = jax.device_get(programs_of("lenet", LOOP, (0, 2), 8).init()["params"])
    apply = functools.partial(network.apply, stats={}, images=jnp.asarray(split.images))
    logits = jax.vmap(lambda params: apply(network.expand(params))[0])(params)
    expected = np.zeros((2, 10, 10), int)
    for seed in range(2):
        np.add.at(expected[seed], (split.labels, np.argmax(logits[seed], axis=1)), 1)
    for eval_size, slice_size in [(250, None), (64, 10)]:
        layout = Layout("loop", slice_size, eval_size, 1, (1, 1))
        programs = programs_of("lenet", layout, (0, 2), 8)
        np.testing.assert_array_equal(programs.confusion(params, {}, programs.place(split)), expected)
