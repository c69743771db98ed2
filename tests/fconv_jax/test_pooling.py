"""Pools against the reference's numbers, a plain NumPy definition and rotations by 90 degrees."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax.torch_reference import corner_blur_pool, corner_max_pool
from tests import goldens
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import assert_close, noise

pytestmark = pytest.mark.unoptimized  # exact whatever the order of sums, or wrong by far

SIZES = range(5, 11)  # each remainder by the strides of 2 and 3, with each parity
# Sums of a few dozen float32 numbers in another order: rounding, 1e-6 relative.
ROUNDING = 1e-6
SYMMETRIC = {
    "max": fc.spatial_max_pool,
    "mean": fc.spatial_mean_pool,
    "blur": lambda x, window, **options: fc.blur_pool(x, window, **{"strides": None, "padding": 0} | options),
}


def rotated(x):
    """The pixels alone: pools over space leave the rotations where they are."""
    return jnp.rot90(x, 1, axes=(1, 2))


def stored(case, *names):
    """Arrays of a case, channels last, and what the file says of it."""
    arrays = goldens.load("layers")
    return goldens.meta("layers")["cases"].get(case), *(oracle.images(arrays[f"{case}.{name}"]) for name in names)


@pytest.mark.parametrize("case", range(5))
def test_blur_pools_equal_the_reference(case):
    """The symmetric one where the stride fits; the lopsided case is refused, or its windows widened."""
    options, x, y = stored(f"aapool{case}", "x", "y")
    window, options = options["sizeF"], {"strides": options["stride"], "padding": options["padding"]}
    assert_close(corner_blur_pool(x, window, **options), y, ROUNDING)
    if case != 1:
        assert_close(fc.blur_pool(x, window, **options, widen=False), y, ROUNDING)
        return
    with pytest.raises(ValueError, match=r"strides \(=2\) must divide .*8 \+ 4 - 5.*window of 6"):
        fc.blur_pool(x, window, **options, widen=False)  # 9 x 8, window 5, stride 2, padding 2
    assert fc.blur_pool(x, window, **options).shape == (2, 5, 4, 3)


@pytest.mark.parametrize("case", range(4))
def test_disk_mask_equals_the_reference(case):
    options, x, y, expected = stored(f"mask{case}", "x", "y", "mask")
    mask = fc.disk_mask(options["S"], options["margin"])
    np.testing.assert_allclose(mask, expected[0, ..., 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(x * mask[..., None], y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [4, 8])
def test_pools_over_rotations_equal_the_reference(t):
    _, largest, mean = stored(f"gpool_t{t}", "y_max", "y_mean")
    x = oracle.fields(goldens.load("layers")[f"gpool_t{t}.x"], t)
    np.testing.assert_array_equal(fc.max_over_group(x), largest)
    np.testing.assert_allclose(fc.mean_over_group(x), mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", SYMMETRIC)
@pytest.mark.parametrize(
    ("window", "strides", "padding"), [(2, None, 0), (3, 2, 1), (3, None, 0), (4, 3, 2), (2, 3, 1)]
)
def test_symmetric_pools_keep_quarter_rotations_at_every_size(kind, window, strides, padding):
    pool = jax.jit(functools.partial(SYMMETRIC[kind], window=window, strides=strides, padding=padding))
    for size in SIZES:
        x = noise(1, size, size, 4, 2, seed=size)
        y = pool(x)
        side = (size + 2 * padding - window) // (strides or window) + 1
        assert y.shape == (1, side, side, 4, 2)
        assert_close(pool(rotated(x)), rotated(y), ROUNDING)
    assert fc.equivariance_error(pool, x) < ROUNDING


@pytest.mark.parametrize("pool", [fc.spatial_mean_pool, fc.blur_pool])
def test_half_precision_is_rounded_once(pool):
    """Rounded between the axes too, an image and the rotated one differ by a step of the type."""
    x = noise(4, 12, 12, 3).astype(jnp.bfloat16)
    expected = pool(x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(pool(x), expected)
    few = jnp.asarray([[1, 1], [1.0078125, 1.015625]], jnp.bfloat16).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(fc.spatial_mean_pool(few), fc.spatial_mean_pool(fc.rotate_image(few, 90)))


def test_corner_pools_break_quarter_rotations_where_the_stride_does_not_fit():
    x = noise(1, 7, 7, 3)
    for pool in (
        corner_max_pool,
        lambda x: corner_blur_pool(x, 4, strides=2, padding=1),
    ):
        assert fc.equivariance_error(pool, x) > 0.1
    assert fc.equivariance_error(corner_max_pool, noise(1, 8, 8, 3)) == 0.0


@pytest.mark.parametrize("size", [7, 8])
def test_symmetric_pools_equal_their_definition(size):
    x = np.asarray(noise(1, size, size + 1, 2))
    widths = [2 + length % 2 for length in x.shape[1:3]]
    windows = np.lib.stride_tricks.sliding_window_view(x, widths, axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(fc.spatial_max_pool(x), windows.max((-1, -2)))
    np.testing.assert_allclose(fc.spatial_mean_pool(x), windows.mean((-1, -2)), rtol=0, atol=1e-6)


def test_an_even_size_is_pooled_as_the_corner_pool_does():
    x = noise(2, 8, 8, 3)
    np.testing.assert_array_equal(fc.spatial_max_pool(x), corner_max_pool(x))


@pytest.mark.parametrize(
    ("pool", "sizes"),
    [(fc.spatial_max_pool, (28, 14, 7, 3, 1)), (functools.partial(fc.blur_pool, window=3), (28, 14, 7, 4, 2))],
)
def test_pools_stack_from_28_pixels_down(pool, sizes):
    x = noise(1, 28, 28, 4, 1)
    for before, after in itertools.pairwise(sizes):
        assert x.shape[1] == before
        assert fc.equivariance_error(pool, x) < ROUNDING
        x = pool(x)
        assert x.shape[1:3] == (after, after)


@pytest.mark.parametrize("pool", [fc.spatial_max_pool, corner_max_pool])
def test_padding_of_a_maximum_never_shows(pool):
    assert bool(jnp.all(jnp.isfinite(pool(-1.0 - jnp.abs(noise(1, 6, 6, 2)), 2, padding=1))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: fc.spatial_max_pool(x, 9), r"side of 7 .* below the window \(=9\)"),
        (lambda x: fc.spatial_max_pool(x, 0), r"window \(=0\)"),
        (lambda x: fc.spatial_mean_pool(x, 2, strides=0), r"strides \(=0\)"),
        (lambda x: fc.spatial_mean_pool(x, 2, padding=-1), r"padding \(=-1\)"),
        (lambda x: fc.spatial_max_pool(x, 2, padding=2), r"padding \(=2\) must be at most half the window"),
        (lambda x: fc.spatial_max_pool(x, 2, widen=False), r"strides \(=2\) must divide"),
        (lambda x: fc.spatial_max_pool(x[0]), r"must be an image .* or a field"),
        (lambda x: corner_max_pool(x, 8), r"7 x 7 .* below the window \(=8\)"),
        (lambda x: corner_max_pool(x, 0), r"window \(=0\)"),
        (lambda x: fc.upsample(x[:, :0]), "an image of 0 x 7 must have pixels"),
        (lambda x: fc.max_over_group(x), "must be a field"),
        (lambda x: fc.mean_over_group(x), "must be a field"),
        (lambda x: fc.disk_mask(0), r"size \(=0\)"),
        (lambda x: fc.disk_mask(8, 101), r"margin \(=101\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((1, 7, 7, 2)))


@pytest.mark.parametrize("kind", SYMMETRIC)
def test_pools_compose(kind):
    pool = SYMMETRIC[kind]

    def loss(x):
        return jnp.sum(pool(x, 3, strides=2).astype(jnp.float32) ** 2)

    x = noise(3, 7, 7, 4, 2)
    value, gradient = jax.jit(jax.value_and_grad(jax.checkpoint(loss)))(x)
    assert_close(value, loss(x), ROUNDING)
    # The gradient of a symmetric pool rotates with its input.
    assert_close(jax.grad(loss)(rotated(x)), rotated(gradient), 10 * ROUNDING)
    each = jax.vmap(lambda one: pool(one[None], 3, strides=2)[0])(x)
    assert_close(each, pool(x, 3, strides=2), ROUNDING)
    assert pool(x.astype(jnp.bfloat16), 3).dtype == jnp.bfloat16


def test_field_dropout_drops_whole_fields_and_keeps_the_mean():
    dropout = fc.FieldDropout(0.25)
    x = jnp.ones((200, 3, 3, 4, 20))
    y = dropout(x, rngs=nnx.Rngs(0))
    kept = y[:, 0, 0, 0]
    np.testing.assert_array_equal(y, jnp.broadcast_to(kept[:, None, None, None], y.shape))
    assert set(np.unique(kept)) == {np.float32(0.0), np.float32(1 / 0.75)}
    assert abs(float(jnp.mean(kept)) - 1.0) < 0.03  # 4,000 draws: standard deviation 0.009
    key = jax.random.key(1)
    np.testing.assert_array_equal(dropout(rotated(x), rngs=key), rotated(dropout(x, rngs=key)))


def test_field_dropout_is_off_in_evaluation_and_needs_rngs_in_training():
    dropout, x = fc.FieldDropout(0.25), noise(2, 3, 3, 4, 2)
    with pytest.raises(ValueError, match="needs rngs"):
        dropout(x)
    dropout.eval()
    np.testing.assert_array_equal(dropout(x), x)
    with pytest.raises(ValueError, match=r"\(3,\) keys for 2 images"):
        fc.FieldDropout(0.25)(x, rngs=jax.random.split(jax.random.key(0), 3))
