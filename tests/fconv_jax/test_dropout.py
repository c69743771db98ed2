"""Dropout with a key for each image: all that `nnx.Dropout` takes works, or is a `ValueError`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax.dropout import Dropout, image_keys
from tests.fconv_jax.arrays import noise

KINDS = pytest.mark.parametrize("kind", [fc.FieldDropout, Dropout])
ONES = jnp.ones((4, 3, 3, 4, 16))


@KINDS
@pytest.mark.parametrize(
    "rngs", [nnx.Rngs(0), nnx.Rngs(dropout=0), nnx.Rngs(0).dropout, nnx.Rngs(0)["dropout"]], ids=["0", "1", "2", "3"]
)
def test_the_modules_own_rngs_are_used_and_go_on(kind, rngs):
    dropout = kind(0.5, rngs=rngs)
    first, second = dropout(ONES), dropout(inputs=ONES)
    assert {0.0, 2.0} == set(np.unique(first))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(
        nnx.jit(lambda module, x: module(x))(kind(0.5, rngs=nnx.Rngs(0)), ONES).shape, ONES.shape
    )


@KINDS
def test_rngs_of_the_call_come_first_and_may_be_of_every_kind(kind):
    dropout, key = kind(0.5, rngs=nnx.Rngs(1)), jax.random.key(3)
    expected = dropout(ONES, rngs=key)
    legacy, several = jax.random.key_data(key), jax.random.split(key, 4)
    for rngs in (legacy, np.asarray(legacy), several, jax.random.key_data(several)):
        np.testing.assert_array_equal(dropout(ONES, rngs=rngs), expected)
    for rngs in (nnx.Rngs(5), nnx.Rngs(5).dropout):
        np.testing.assert_array_equal(dropout(ONES, rngs=rngs), dropout(ONES, rngs=nnx.Rngs(5)))
    named = kind(0.5, rng_collection="other")
    np.testing.assert_array_equal(named(ONES, rngs=nnx.Rngs(other=7)), dropout(ONES, rngs=nnx.Rngs(dropout=7)))


def test_a_legacy_key_is_one_key_whatever_the_batch():
    for key in (jax.random.PRNGKey(1), jax.random.PRNGKey(2)):
        assert image_keys(key, 2).shape == (2,)  # not a key an image of its two numbers
        assert image_keys(key, 3).shape == (3,)


@KINDS
def test_deterministic_is_the_calls_then_the_modules(kind):
    x = noise(2, 3, 3, 4, 2)
    for dropout, option in (
        (kind(0.5), True),
        (kind(0.5, deterministic=None), True),
        (kind(0.5, deterministic=True), None),
    ):
        np.testing.assert_array_equal(dropout(x, deterministic=option), x)
    key = jax.random.key(0)
    forced = kind(0.5, deterministic=True)(x, deterministic=False, rngs=key)
    np.testing.assert_array_equal(forced, kind(0.5)(x, rngs=key))
    view = nnx.view(kind(0.5), deterministic=True)
    np.testing.assert_array_equal(view(x), x)


@KINDS
def test_a_rate_of_1_gives_zeros_with_zero_gradients(kind):
    dropout = kind(1.0, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(dropout(ONES), jnp.zeros_like(ONES))
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(dropout(x)))(ONES), jnp.zeros_like(ONES))
    np.testing.assert_array_equal(kind(0.0)(ONES), ONES)


@KINDS
@pytest.mark.parametrize("dims", [(0,), (4,), (-1,), (1, 2), (0, 1, 2, 3, 4), [3]])
def test_broadcast_dims_share_a_mask(kind, dims):
    y = kind(0.5, broadcast_dims=dims)(ONES, rngs=jax.random.key(1))
    for dim in dims:
        np.testing.assert_array_equal(y, jnp.broadcast_to(jnp.take(y, jnp.array([0]), axis=dim), y.shape))
    if len(dims) < 5:
        assert len(np.unique(y)) == 2


@KINDS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("rate", [0.25, np.float32(0.25), np.float64(0.25), jnp.array(0.25)])
def test_the_type_is_kept(kind, rate, dtype):
    assert kind(rate)(ONES.astype(dtype), rngs=jax.random.key(0)).dtype == dtype


@KINDS
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda kind: kind(1.5), r"rate \(=1.5\)"),
        (lambda kind: kind(-0.1), r"rate \(=-0.1\)"),
        (lambda kind: kind(np.nan), r"rate \(=nan\)"),
        (lambda kind: kind("0.5"), r"rate \(=0.5\)"),
        (lambda kind: kind(0.5, rngs=jax.random.key(0)), "must be nnx.Rngs"),
        (lambda kind: kind(0.5)(ONES), "needs rngs"),
        (lambda kind: kind(0.5)(ONES, rngs=5), "of type int"),
        (lambda kind: kind(0.5)(ONES, rngs=jnp.zeros(4)), "are not keys"),
        (lambda kind: kind(0.5)(ONES, rngs=jnp.zeros(7, jnp.uint32)), "are not keys"),
        (lambda kind: kind(0.5)(ONES, rngs=jax.random.split(jax.random.key(0), 3)), r"\(3,\) keys for 4 images"),
        (lambda kind: kind(0.5)(ONES, rngs=nnx.Rngs(params=0)), "no stream 'dropout'"),
        (lambda kind: kind(0.5, rngs=nnx.Rngs(params=0)), "no stream 'dropout'"),
        (lambda kind: kind(0.5, deterministic=None)(ONES), "deterministic=True or False"),
        (lambda kind: kind(0.5, broadcast_dims=(5,))(ONES, rngs=jax.random.key(0)), r"the axes \(5,\)"),
    ],
)
def test_the_rest_is_refused(kind, call, message):
    with pytest.raises(ValueError, match=message):
        call(kind)
