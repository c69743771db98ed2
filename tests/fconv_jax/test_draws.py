"""Random parameters: the same numbers at once, in a trace and one length after another."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax.draws import _LONG, _SHORT, draw


@pytest.mark.parametrize("shape", [(3, 5), (_SHORT,), (_SHORT + 1,), (3, _LONG // 3)])
@pytest.mark.parametrize("sampler", [jax.random.uniform, jax.random.normal])
def test_cut_rows_are_the_numbers_of_the_plain_sampler(sampler, shape):
    key = jax.random.key(3)
    expected = sampler(key, (int(np.prod(shape)),), jnp.float32).reshape(shape)
    chex.assert_trees_all_equal(draw(sampler, key, shape, jnp.float32), expected)


def test_a_trace_draws_the_same_numbers():
    key, scale = jax.random.key(4), np.linspace(1.0, 2.0, 5)

    def one(key):
        return draw(jax.random.uniform, key, (3, 2, 5), jnp.float32, -1.0, 1.0, scale=scale)

    chex.assert_trees_all_close(jax.jit(one)(key), one(key), rtol=1e-6)
    assert np.ptp(one(jax.random.key(5)) - one(key)) > 0.1


@pytest.mark.parametrize("count", [15, _SHORT + 5, _LONG + 5])
def test_a_key_that_a_trace_closes_over_draws_the_same_numbers(count):
    key = jax.random.key(4)
    outside = draw(jax.random.uniform, key, (count,), jnp.float32, scale=0.5)
    within = jax.jit(lambda: draw(jax.random.uniform, key, (count,), jnp.float32, scale=0.5))()
    chex.assert_trees_all_close(within, outside, rtol=1e-6)
    shape = jax.eval_shape(lambda: draw(jax.random.uniform, key, (count,), jnp.float32, scale=0.5))
    assert shape.shape == (count,)
    layer = jax.jit(lambda: nnx.state(fc.LiftingFConv(1, 2, 3, rngs=nnx.Rngs(key)), nnx.Param))()
    chex.assert_trees_all_close(layer, nnx.state(fc.LiftingFConv(1, 2, 3, rngs=nnx.Rngs(key)), nnx.Param), rtol=1e-6)


def test_more_than_a_long_row_is_several_of_keys_of_their_own():
    key = jax.random.key(6)
    values = draw(jax.random.uniform, key, (2, _LONG - 5), jnp.float32)
    rows = [jax.random.uniform(each, (_LONG,)) for each in jax.random.split(key, 2)]
    np.testing.assert_array_equal(values.reshape(-1), np.concatenate(rows)[: 2 * _LONG - 10])
    chex.assert_trees_all_equal(
        jax.jit(lambda k: draw(jax.random.uniform, k, (2, _LONG - 5), jnp.float32))(key), values
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_type_is_kept(dtype):
    assert draw(jax.random.uniform, jax.random.key(0), (4,), dtype, -1.0, 1.0, scale=0.5).dtype == dtype
