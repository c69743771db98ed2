"""The ladder's networks: one fix a rung, and invariance where it must come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from experiments.settings import MODELS, RUNGS
from experiments.training.ladder_networks import LadderAlexNet, LadderLeNet
from experiments.training.network import build, num_parameters

pytestmark = pytest.mark.unoptimized  # exact whatever the order of sums, or wrong by far

NETWORKS = {"lenet_fconv": LadderLeNet, "narrow alexnet_fconv": LadderAlexNet}
PUBLISHED, EQUAL = RUNGS.index("as published") - 1, RUNGS.index("equal parameters") - 1


@pytest.mark.parametrize("ladder", NETWORKS)
def test_each_rung_is_a_row_of_the_models_and_adds_one_fix(ladder):
    rows = [spec for spec in MODELS.values() if spec.ladder == ladder and spec.rung]
    assert [spec.rung for spec in rows] == list(RUNGS)
    assert [spec.options["fixes"] for spec in rows] == list(range(-1, 6))
    assert {spec.builder.split(":")[1] for spec in rows} == {NETWORKS[ladder].__name__}


@pytest.mark.parametrize("ladder", NETWORKS)
def test_the_last_rung_has_nearly_the_parameters_of_the_plain_network(ladder):
    rows = [name for name, spec in MODELS.items() if spec.ladder == ladder and spec.rung]
    plain, *_, last = (num_parameters(build(name)) for name in rows)
    assert 0.95 * plain < last <= plain


@pytest.mark.parametrize(("fixes", "name"), [(-1, "lenet"), (PUBLISHED, "lenet_fconv")])
def test_the_first_rungs_are_the_published_networks(fixes, name):
    published = fconv_jax.models.create(name, rngs=nnx.Rngs(0))
    first = LadderLeNet(fixes, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.RandomState(0).uniform(size=(2, 28, 28, 1)), jnp.float32)
    np.testing.assert_array_equal(first(x), published(x))


@pytest.mark.parametrize("ladder", ["lenet_fconv", pytest.param("narrow alexnet_fconv", marks=pytest.mark.slow)])
def test_only_the_mean_over_space_makes_quarter_turns_exact(ladder):
    x = jnp.asarray(np.random.RandomState(0).uniform(size=(1, 28, 28, 1)), jnp.float32)
    changes = {}
    for fixes in range(1, EQUAL + 1):  # with the published weights and seed 0, both features are dead
        model = NETWORKS[ladder](fixes, rngs=nnx.Rngs(0))
        model.eval()
        run = jax.jit(model.__call__)
        change = jnp.abs(run(jnp.rot90(x, axes=(1, 2))) - run(x)).max() / jnp.abs(run(x)).max()
        changes[RUNGS[fixes + 1]] = float(change)
    exact = [rung for rung, change in changes.items() if change < 1e-5]
    assert exact == ["mean over space", "equal parameters"], changes


def test_a_flatten_is_what_the_mean_over_space_replaces():
    names = [name for name, _ in LadderLeNet(RUNGS.index("mean over space") - 1, rngs=nnx.Rngs(0)).stages]
    assert "flatten" not in names
    assert names[3:5] == ["max_over_group", "mean_over_space"]
