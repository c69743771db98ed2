"""The compiled programs: every network trains a step, and those of the report compile for CUDA."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import training
from experiments.backends import Plan
from experiments.settings import MODELS
from experiments.trainer import Trainer

LOOP, GPU = Plan("loop", None, 250, 1, (1, 1)), Plan("vmap", None, 5000, 64, (1, 1))
REPORT = MODELS[:5]


def trainer_of(name, plan, seeds, batch_size, settings=(1,)):
    return Trainer(training.build(name), plan, seeds, settings, batch_size=batch_size, learning_rate=1e-3)


def first(split, count):
    return dataclasses.replace(
        split, images=split.images[:count], labels=split.labels[:count], angles=split.angles[:count]
    )


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("alexnet") and name != "fconv_mnist"])
def test_every_small_network_trains_a_step(lab, name):
    trainer = trainer_of(name, LOOP, (0,), 4, settings=())
    states, data = trainer.init(), trainer.place(first(lab.split("train", False), 4))
    before = jax.device_get(states["params"])
    states, losses, done = trainer.steps(states, trainer.orders(data, 0), data, 0, 0, 1)
    assert done == 1 and np.isfinite(losses).all()
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, jax.device_get(states["params"]))
    assert all(jax.tree.leaves(moved)), moved


@pytest.mark.parametrize("name", MODELS)
def test_every_network_has_a_step(name):
    """In shapes only: losses of the seeds, and a state like the one before."""
    trainer = trainer_of(name, dataclasses.replace(LOOP, slice_size=None), (0, 1), 8)
    states = jax.eval_shape(trainer._init, trainer.seeds)
    arguments = abstract_arguments(states, 2, 16)
    after, losses = jax.eval_shape(trainer._steps(1, 8), *arguments)
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
    plan = dataclasses.replace(GPU, slice_size=1024 if name.startswith("alexnet") else None)
    trainer = trainer_of(name, plan, range(5), 4096)
    states = jax.eval_shape(trainer._init, trainer.seeds)
    arguments = abstract_arguments(states, 5, 17_500)
    for program in (trainer._steps(4, 4096), trainer._last_step(17_500 % 4096)):
        exported = jax.export.export(program, platforms=["cuda"])(*arguments)
        assert exported.platforms == ("cuda",) and exported.out_avals[-1].shape[0] == 5
        assert "convolution" in exported.mlir_module()
    rows = (states["params"], states["stats"], jax.ShapeDtypeStruct((), jnp.int32), arguments[-1])
    assert jax.export.export(trainer._confusion, platforms=["cuda"])(*rows).out_avals[0].shape == (5, 10, 10)


def test_counts_of_a_whole_split_by_hand(lab):
    """Whatever the size of the parts and slices: no image twice, none missed."""
    split, network = lab.split("test", True), training.build("lenet_classic")
    params = jax.device_get(trainer_of("lenet_classic", LOOP, (0, 2), 8).init()["params"])
    apply = functools.partial(network.apply, stats={}, images=jnp.asarray(split.images))
    logits = jax.vmap(lambda params: apply(network.expand(params))[0])(params)
    expected = np.zeros((2, 10, 10), int)
    for seed in range(2):
        np.add.at(expected[seed], (split.labels, np.argmax(logits[seed], axis=1)), 1)
    for eval_size, slice_size in [(250, None), (64, 10)]:
        plan = Plan("loop", slice_size, eval_size, 1, (1, 1))
        trainer = trainer_of("lenet_classic", plan, (0, 2), 8)
        np.testing.assert_array_equal(trainer.confusion(params, {}, trainer.place(split)), expected)
