"""One seed's init, steps and choice of the best epoch; all ways of mapping seeds agree."""

import functools
import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.training import network as networks
from experiments.training import steps
from experiments.training.devices import Layout
from experiments.training.programs import Programs
from fconv_jax.models.stages import Dropout, StagedModel, flatten
from tests.experiments import helpers, small_digits

pytestmark = pytest.mark.unoptimized  # ways to train are compared with each other
LOOP = Layout("loop", None, 250, 1, (1, 1))

# Adam divides a gradient by its own size: rounding in an entry near 0 becomes a sizable part of a step (learning
# rate 2e-4).  Ways to compute an epoch of 3 steps may differ by this much in one entry, and by far less on average.
ONE_ENTRY, ON_AVERAGE = 3e-4, 1e-6
LOSS = 2e-5  # relative; losses are sums of many float32


class Small(StagedModel):
    """Dense layers and dropout, as AlexNet's head but narrow: compiled at once."""

    input_shape = (28, 28, 1)

    def __init__(self, *, num_classes=10, init="report", rngs):
        self.hidden = nnx.Linear(28 * 28, 16, rngs=rngs)
        self.dropout = Dropout(0.5)
        self.dense = nnx.Linear(16, num_classes, rngs=rngs)

    @property
    def stages(self):
        stages = [("flatten", flatten), ("hidden", self.hidden), ("relu", nnx.relu), ("dropout", self.dropout)]
        return (*stages, ("dense", self.dense))


def small(precision="float32"):
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: Small(rngs=nnx.Rngs(0))), nnx.Param, ...)
    return networks.Network(graphdef, Small, 10, jnp.dtype(precision), has_stats=False)


def network_of(name):
    return small() if name == "small" else networks.build(name)


def train(network, layout, seeds, split, *, epochs=1, batch_size=32, settings=(), learning_rate=2e-4, change=None):
    """Some epochs; returns (host states, losses [seed, step])."""
    programs = Programs(network, layout, seeds, settings, batch_size=batch_size, learning_rate=learning_rate)
    states, data = programs.init(), programs.place(split)
    if change is not None:
        states = change(states)
    losses = []
    for epoch in range(epochs):
        orders, step = programs.orders(data, epoch), 0
        while step < programs.num_steps(data):
            states, some, done = programs.steps(states, orders, data, epoch, step, layout.steps_per_call)
            losses.append(programs.rows(some))
            step += done
        if not settings:
            continue
        correct = np.trace(programs.confusion(states["params"], states["stats"], data), axis1=1, axis2=2)
        states = programs.keep_best(states, dict.fromkeys(settings, correct), epoch + 1)
    return programs.rows(states), np.concatenate(losses, axis=1)


def assert_close(first, second):
    (states, losses), (others, other_losses) = first, second
    np.testing.assert_allclose(losses, other_losses, rtol=LOSS)
    differences = jax.tree.map(lambda a, b: np.abs(a - b), states["params"], others["params"])
    for difference in jax.tree.leaves(differences):
        assert difference.max() < ONE_ENTRY
        assert difference.mean() < ON_AVERAGE


@pytest.fixture(scope="module")
def whole():
    """The reference: seeds 0, 1 and 3 looped over, whole batches."""
    return functools.cache(lambda name: train(network_of(name), LOOP, (0, 1, 3), small_digits.split("train", False)))


LAYOUTS = {
    "vmap": Layout("vmap", None, 250, 1, (1, 1)),
    "vmap, slices": Layout("vmap", 10, 7, 1, (1, 1)),
    "loop, slices of a half": Layout("loop", 16, 250, 1, (1, 1)),
    "loop, two slices at a time": Layout("loop", 8, 250, 1, (1, 1), 2),
    "vmap, an epoch a call": Layout("vmap", None, 250, 64, (1, 1)),
}


# The two others go through all branches.
LATER = {"vmap, slices": pytest.mark.slow} | dict.fromkeys(
    ["loop, slices of a half", "vmap, an epoch a call"], pytest.mark.long
)


@pytest.mark.parametrize(
    "layout",
    [pytest.param(layout, marks=LATER.get(name, [])) for name, layout in LAYOUTS.items()],
    ids=LAYOUTS,
)
def test_all_ways_agree_for_a_network_with_dropout(whole, layout):
    assert_close(train(small(), layout, (0, 1, 3), small_digits.split("train", False)), whole("small"))


@pytest.mark.parametrize("name", ["vmap", "loop, two slices at a time"])
def test_all_ways_agree_for_lenet_fconv(whole, name):
    assert_close(train(networks.build("lenet_fconv"), LAYOUTS[name], (0, 1, 3), small_digits.split("train", False)),
                 whole("lenet_fconv"))  # fmt: skip


def test_a_seed_alone_is_that_seed_of_several(whole):
    states, losses = train(small(), LOOP, (3,), small_digits.split("train", False))
    several, several_losses = whole("small")
    assert_close((states, losses), (jax.tree.map(lambda x: x[2:], several), several_losses[2:]))


MESHES = [("small", "vmap", None, (1, 2)), ("small", "loop", 6, (2, 1)), ("small", "loop", None, (1, 8)),
          ("small", "vmap", 6, (2, 3))]  # fmt: skip


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(MESHES, marks=pytest.mark.slow, id="small"),
        pytest.param([("lenet_fconv", "vmap", None, (1, 8))], marks=pytest.mark.long, id="lenet_fconv"),
    ],
)
def test_all_meshes_agree(cases):
    """In a process with 8 CPU devices, against one device there."""
    code = """
        import json
        import sys
        import jax
        from experiments.training.devices import Layout
        from tests.experiments import helpers, small_digits
        from tests.experiments.training import test_steps as test
        split, cases = small_digits.split("train", False), json.loads(sys.argv[1])
        found = {"devices": len(jax.devices())}
        whole = test.train(test.network_of(cases[0][0]), test.LOOP, (0, 1, 3), split)
        for name, kind, size, shape in cases:
            case = test.train(test.network_of(name), Layout(kind, size, 9, 1, tuple(shape)), (0, 1, 3), split)
            try:
                test.assert_close(case, whole)
            except AssertionError as error:
                found[str((name, kind, size, shape))] = str(error)[:300]
        print(json.dumps(found))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), json.dumps(cases)],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"devices": 8}


@pytest.mark.slow
def test_a_large_split_is_counted_on_several_devices():
    """Hundreds of programs that add up over two devices; given at once, they waited for each other for ever."""
    code = """
        import numpy as np
        from experiments.data import Split
        from experiments.training.devices import Layout
        from experiments.training.programs import Programs
        from tests.experiments.training import test_steps as test
        labels = np.arange(40_000) % 10
        split = Split(np.zeros((40_000, 28, 28, 1), np.uint8), labels, np.zeros(40_000))
        layout = Layout("loop", None, 100, 1, (1, 2))
        programs = Programs(test.small(), layout, (0,), (), batch_size=32, learning_rate=1e-3)
        states = programs.init()
        counts = programs.confusion(states["params"], states["stats"], programs.place(split))
        print(counts.sum((0, 2)).tolist())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == str([4_000] * 10)


def test_two_trainings_are_bitwise_equal():
    split = small_digits.split("train", False)
    layout = LAYOUTS["loop, slices of a half"]
    first, second = (train(small(), layout, (0, 3), split, epochs=2, settings=(1,)) for _ in range(2))
    helpers.assert_trees_equal(first, second)


def test_seeds_differ_in_weights_order_and_dropout():
    network = small()
    states = [jax.device_get(steps.init(network, (1,), steps.Adam(1e-3), seed)) for seed in (0, 1)]
    assert not np.array_equal(states[0]["params"]["dense"]["kernel"], states[1]["params"]["dense"]["kernel"])
    orders = [np.asarray(steps.epoch_order(70, jnp.uint32(seed), epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(70))
    # The same weights and images: only dropout is left to differ, by seed, by epoch and by step, and not by chance.
    split = small_digits.split("train", False)
    data = (jnp.asarray(split.images), jnp.asarray(split.labels))
    one = jax.jit(functools.partial(steps.seed_gradient, network, LOOP))
    losses = [
        float(one(states[0], jnp.uint32(seed), epoch, index, jnp.arange(32), data)[0])
        for seed, epoch, index in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]
    ]
    assert len(set(losses[:4])) == 4
    assert losses[4] == losses[0]


def test_the_last_smaller_batch_is_trained_on_and_its_loss_is_its_own_mean():
    """Steps of learning rate 0 leave the weights, so that each step's loss can be computed apart."""
    split, network = small_digits.split("train", False), networks.build("lenet")
    for layout in (LOOP, LAYOUTS["vmap, slices"]):
        states, losses = train(network, layout, (3,), split, learning_rate=0.0)
        assert losses.shape == (1, 3)  # 32 + 32 + 6
        order = np.asarray(steps.epoch_order(70, jnp.uint32(3), 0))
        params = jax.tree.map(lambda x: x[0], states["params"])
        logits = np.asarray(network.apply(network.expand(params), {}, jnp.asarray(split.images))[0], np.float64)
        own = np.log(np.exp(logits).sum(1)) - logits[np.arange(70), split.labels]
        expected = [own[order[part]].mean() for part in (slice(0, 32), slice(32, 64), slice(64, 70))]
        np.testing.assert_allclose(losses[0], expected, rtol=LOSS)


def test_the_last_batch_alone_moves_the_weights():
    split, network = small_digits.split("train", False), small()
    programs = Programs(network, LOOP, (0,), (1,), batch_size=64, learning_rate=1e-3)
    states, data = programs.init(), programs.place(split)
    before = jax.device_get(states["params"])
    states, losses, done = programs.steps(states, programs.orders(data, 0), data, 0, 1, 5)
    assert (done, losses.shape) == (1, (1, 1))
    assert not np.array_equal(before["dense"]["kernel"], jax.device_get(states["params"])["dense"]["kernel"])


@pytest.mark.parametrize("batch_size", [1, 70, 1000])
def test_batches_of_one_of_all_and_of_more_than_all(batch_size):
    split = small_digits.split("train", False)
    _, losses = train(small(), LOOP, (0,), split, batch_size=batch_size)
    assert losses.shape == (1, -(-70 // batch_size))
    assert np.isfinite(losses).all()


def test_the_earliest_best_epoch_is_kept_for_each_seed_and_setting():
    def state(value, best):
        return {"params": jnp.float32([value]), "stats": {}, "best": best}

    nothing = {"params": jnp.float32([0]), "stats": {}, "correct": jnp.int32(-1), "epoch": jnp.int32(0)}
    best = {"1": nothing, "3": nothing}
    counts = {1: [0, 5, 5, 4], 3: [2, 1, 0, 3]}
    for epoch in range(4):
        correct = {str(setting): jnp.int32(row[epoch]) for setting, row in counts.items()}
        best = steps.keep_best(jnp.int32(epoch + 1), state(10.0 + epoch, best), correct)["best"]
    assert (int(best["1"]["epoch"]), float(best["1"]["params"][0]), int(best["1"]["correct"])) == (2, 11.0, 5)
    assert (int(best["3"]["epoch"]), float(best["3"]["params"][0]), int(best["3"]["correct"])) == (4, 13.0, 3)


def test_one_training_for_two_settings_keeps_what_each_alone_keeps():
    split = small_digits.split("train", False)
    both, losses = train(small(), LOOP, (0, 1), split, epochs=2, settings=(1, 3))
    for setting in (1, 3):
        alone, alone_losses = train(small(), LOOP, (0, 1), split, epochs=2, settings=(setting,))
        helpers.assert_trees_equal(alone["best"][str(setting)], both["best"][str(setting)])
        helpers.assert_trees_equal((alone["params"], alone_losses), (both["params"], losses))


@pytest.mark.parametrize("name", ["vmap", "loop, slices of a half", "loop, two slices at a time"])
def test_one_seeds_nan_leaves_the_others(name):
    def poison(states):
        return {**states, "params": jax.tree.map(lambda x: x.at[1].set(jnp.nan), states["params"])}

    split, layout = small_digits.split("train", False), LAYOUTS[name]
    good, losses = train(small(), layout, (0, 1, 3), split, settings=(1,))
    bad, bad_losses = train(small(), layout, (0, 1, 3), split, settings=(1,), change=poison)
    assert np.isnan(bad_losses[1]).all()
    rows = [0, 2]
    helpers.assert_trees_equal(*(jax.tree.map(lambda x: x[rows], x) for x in (good["params"], bad["params"])))
    helpers.assert_trees_equal(*(jax.tree.map(lambda x: x[rows], x) for x in (good["best"], bad["best"])))
    np.testing.assert_array_equal(losses[rows], bad_losses[rows])
