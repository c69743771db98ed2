"""Adam of all seeds at once, its schedules and weight decay, against Optax one seed at a time."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.training.steps import Adam

SEEDS, STEPS = 3, 5


def tree(seed, leading=()):
    random = np.random.RandomState(seed)
    shapes = {"dense": {"kernel": (4, 2), "bias": (2,)}, "norm": {"scale": (2,)}, "conv": {"coefficients": (2, 3)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=(*leading, *shape)), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


CASES = {
    "constant": (Adam(0.1), optax.adam(0.1)),
    "cosine": (Adam(0.1, "cosine", num_steps=STEPS), optax.adam(optax.cosine_decay_schedule(0.1, STEPS))),
    "steps": (
        Adam(0.1, "steps", num_steps=STEPS),
        optax.adam(optax.join_schedules([lambda n: 0.1, lambda n: 0.02, lambda n: 0.004], [2, 3])),
    ),
    "l2": (Adam(0.1, l2=0.3), optax.chain(optax.add_decayed_weights(0.3), optax.adam(0.1))),
    "cosine, weight decay": (
        Adam(0.1, "cosine", 0.3, STEPS),
        optax.adamw(
            optax.cosine_decay_schedule(0.1, STEPS),
            weight_decay=0.3,
            mask={"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}, "conv": {"coefficients": True}},
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_all_seeds_at_once_are_optax_one_by_one(case):
    ours, reference = CASES[case]
    params = tree(0, (SEEDS,))
    state = jax.vmap(ours.init)(params)
    rows = [jax.tree.map(operator.itemgetter(i), params) for i in range(SEEDS)]
    states = [reference.init(row) for row in rows]
    for step in range(STEPS):
        gradients = tree(step + 1, (SEEDS,))
        params, state = jax.jit(ours.update)(params, state, gradients)
        for i in range(SEEDS):
            updates, states[i] = reference.update(jax.tree.map(operator.itemgetter(i), gradients), states[i], rows[i])
            rows[i] = optax.apply_updates(rows[i], updates)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), params, expected)
    assert np.abs(params["norm"]["scale"] - tree(0, (SEEDS,))["norm"]["scale"]).max() > 0.05
