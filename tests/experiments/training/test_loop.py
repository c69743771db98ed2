"""The loop's clock, and what it is told."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.settings import RunConfig
from experiments.training.loop import Loop, Position, _CompileClock, make
from experiments.training.steps import Adam
from tests.experiments import small_digits


def test_the_clock_adds_up_what_jax_compiles_and_nothing_else():
    clock = _CompileClock()
    for seconds in (2.0, 0.5):
        jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", seconds)
    jax.monitoring.record_event_duration_secs("/jax/checkpoint/write/async/blocking_duration_secs", 100.0)
    assert clock.read() == pytest.approx(2.5)
    assert clock.read() == 0.0
    jax.monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 0.25)
    assert clock.read() == pytest.approx(0.25)
    assert clock.total == pytest.approx(2.75)


@pytest.fixture
def loop():
    """70 images in batches of 32: the third batch of an epoch is a smaller one."""
    config = RunConfig("lenet", 1, "mnist_5k", 0, (0, 1), 4, 32, 1e-3, "report", "float32", "auto", schedule="cosine")
    return Loop([config], {1: small_digits.load("mnist_5k", 1)})


def test_what_a_run_was_told_of_its_training_reaches_it():
    told = {"schedule": "steps", "weight_decay": 0.1, "label_smoothing": 0.2, "l2": 0.3, "augmentation": "rotations"}
    config = RunConfig("lenet", 1, "mnist_rot_like", 0, (0,), 2, 8, 1e-3, "report", "bfloat16", "auto", **told)
    network, programs = make(config, num_train=80)
    assert programs.optimizer == Adam(1e-3, "steps", 0.1, num_steps=20, l2=0.3)
    assert (network.label_smoothing, network.augmentation, network.compute_dtype) == (0.2, "rotations", "bfloat16")


def test_the_learning_rates_schedule_ends_with_the_last_step(loop):
    assert loop.num_steps == 3
    assert loop.programs.optimizer.num_steps == 4 * loop.num_steps


def test_the_images_of_a_smaller_batch_are_counted_as_they_are(loop):
    loop.position, loop.states = Position(step=2), None
    loop.programs = SimpleNamespace(
        layout=loop.programs.layout, rows=np.asarray, steps=lambda *_: (None, np.ones((2, 1)), 1)
    )
    loop._step(orders=None)
    assert (loop.position.step, loop.position.images) == (3, 2 * 6)  # of both seeds
