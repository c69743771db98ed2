"""Which of Flax's norms keep the law on fields `[batch, height, width, group, channel]` (docs/group.md)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise

GROUP, RNGS = fc.Group(4, reflections=True), {"rngs": nnx.Rngs(0)}
KEEP = {
    "batch": lambda: nnx.BatchNorm(4, **RNGS),
    "layer": lambda: nnx.LayerNorm(4, **RNGS),
    "layer over group and channels": lambda: fc.field_norm("layer", 4, **RNGS),
    "rms": lambda: nnx.RMSNorm(4, **RNGS),
    "group": lambda: nnx.GroupNorm(4, num_groups=2, **RNGS),
    "instance": lambda: nnx.InstanceNorm(4, **RNGS),
}
BREAK = {
    "a scale for each element": lambda: nnx.LayerNorm(8, feature_axes=-2, reduction_axes=(-2, -1), **RNGS),
    "over rows": lambda: nnx.LayerNorm(4, reduction_axes=1, **RNGS),
}


def error(norm, move):
    for parameter in jax.tree.leaves(nnx.state(norm, nnx.Param), is_leaf=lambda x: isinstance(x, nnx.Variable)):
        values = np.random.RandomState(1).uniform(0.5, 2.0, parameter[...].shape)
        parameter[...] = jnp.asarray(values, jnp.float32)
    x = noise(2, 6, 6, 8, 4)
    y = move(norm(x))
    return float(jnp.linalg.norm(norm(move(x)) - y) / jnp.linalg.norm(y))


def moves():
    return (lambda x: fc.rotate_field(x, 90, GROUP)), (lambda x: fc.mirror_field(x, GROUP))


@pytest.mark.parametrize("name", KEEP)
def test_these_norms_keep_quarter_turns_and_mirrors(name):
    assert max(error(KEEP[name](), move) for move in moves()) < 1e-6


@pytest.mark.parametrize("name", BREAK)
def test_these_do_not(name):
    assert error(BREAK[name](), moves()[0]) > 0.01
