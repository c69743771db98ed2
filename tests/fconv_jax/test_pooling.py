"""Pools against the reference's numbers, a plain NumPy definition and quarter turns."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax

SIZES = range(5, 16)
# Sums of a few dozen float32 numbers in another order: rounding, 1e-6 relative.
ROUNDING = 1e-6
SYMMETRIC = {
    "max": fconv_jax.spatial_max_pool,
    "mean": fconv_jax.spatial_mean_pool,
    "blur": lambda x, window, **options: fconv_jax.blur_pool(x, window, **{"strides": None, "padding": 0} | options),
}


def image(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def turned(x, quarter_turns=1):
    return jnp.rot90(x, quarter_turns, axes=(1, 2))


def relative(actual, expected):
    return float(jnp.max(jnp.abs(actual - expected)) / jnp.max(jnp.abs(expected)))


def channels_last(x):
    return np.asarray(x).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("case", range(5))
def test_corner_blur_pool_equals_the_reference(goldens, case):
    arrays = goldens("layers")
    options = json.loads(str(arrays["meta_json"]))["cases"][f"aapool{case}"]
    y = fconv_jax.corner_blur_pool(
        channels_last(arrays[f"aapool{case}.x"]),
        options["sizeF"],
        strides=options["stride"],
        padding=options["padding"],
    )
    expected = channels_last(arrays[f"aapool{case}.y"])
    assert y.shape == expected.shape
    assert relative(y, expected) < ROUNDING


@pytest.mark.parametrize("case", [0, 2, 3, 4])
def test_blur_pool_equals_the_reference_where_the_stride_fits(goldens, case):
    arrays = goldens("layers")
    options = json.loads(str(arrays["meta_json"]))["cases"][f"aapool{case}"]
    x = channels_last(arrays[f"aapool{case}.x"])
    y = fconv_jax.blur_pool(x, options["sizeF"], strides=options["stride"], padding=options["padding"], widen=False)
    assert relative(y, channels_last(arrays[f"aapool{case}.y"])) < ROUNDING


def test_a_lopsided_case_of_the_reference_is_refused_or_widened(goldens):
    x = channels_last(goldens("layers")["aapool1.x"])  # 9 x 8, window 5, stride 2, padding 2
    with pytest.raises(ValueError, match=r"strides \(=2\) must divide .*8 \+ 4 - 5.*window of 6"):
        fconv_jax.blur_pool(x, 5, strides=2, padding=2, widen=False)
    assert fconv_jax.blur_pool(x, 5, strides=2, padding=2).shape == (2, 5, 4, 3)


@pytest.mark.parametrize("case", range(4))
def test_disk_mask_equals_the_reference(goldens, case):
    arrays = goldens("layers")
    options = json.loads(str(arrays["meta_json"]))["cases"][f"mask{case}"]
    mask = fconv_jax.disk_mask(options["S"], options["margin"])
    np.testing.assert_allclose(mask, arrays[f"mask{case}.mask"][0, 0], rtol=0, atol=1e-6)
    y = channels_last(arrays[f"mask{case}.x"]) * mask[..., None]
    np.testing.assert_allclose(y, channels_last(arrays[f"mask{case}.y"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [4, 8])
def test_pools_over_rotations_equal_the_reference(goldens, oracle, t):
    arrays = goldens("layers")
    x = oracle.fields(arrays[f"gpool_t{t}.x"], t)
    np.testing.assert_array_equal(fconv_jax.max_over_rotations(x), channels_last(arrays[f"gpool_t{t}.y_max"]))
    mean = fconv_jax.mean_over_rotations(x)
    np.testing.assert_allclose(mean, channels_last(arrays[f"gpool_t{t}.y_mean"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", SYMMETRIC)
@pytest.mark.parametrize(
    ("window", "strides", "padding"), [(2, None, 0), (3, 2, 1), (3, None, 0), (4, 3, 2), (2, 3, 1)]
)
def test_symmetric_pools_keep_quarter_turns_at_every_size(kind, window, strides, padding):
    pool = SYMMETRIC[kind]
    for size in SIZES:
        x = image(1, size, size, 4, 2, seed=size)
        y = pool(x, window, strides=strides, padding=padding)
        side = (size + 2 * padding - window) // (strides or window) + 1
        assert y.shape == (1, side, side, 4, 2)
        assert relative(pool(turned(x), window, strides=strides, padding=padding), turned(y)) < ROUNDING
        assert fconv_jax.equivariance_error(lambda x: pool(x, window, strides=strides, padding=padding), x) < ROUNDING


def test_corner_pools_break_quarter_turns_where_the_stride_does_not_fit():
    x = image(1, 7, 7, 3)
    for pool in (fconv_jax.corner_max_pool, lambda x: fconv_jax.corner_blur_pool(x, 4, strides=2, padding=1)):
        assert fconv_jax.equivariance_error(pool, x) > 0.1
    assert fconv_jax.equivariance_error(fconv_jax.corner_max_pool, image(1, 8, 8, 3)) == 0.0


@pytest.mark.parametrize("size", [7, 8])
def test_symmetric_pools_equal_their_definition(size):
    x = np.asarray(image(1, size, size + 1, 2))
    widths = [2 + length % 2 for length in x.shape[1:3]]
    windows = np.lib.stride_tricks.sliding_window_view(x, widths, axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(fconv_jax.spatial_max_pool(x), windows.max((-1, -2)))
    np.testing.assert_allclose(fconv_jax.spatial_mean_pool(x), windows.mean((-1, -2)), rtol=0, atol=1e-6)


def test_an_even_size_is_pooled_as_the_corner_pool_does():
    x = image(2, 8, 8, 3)
    np.testing.assert_array_equal(fconv_jax.spatial_max_pool(x), fconv_jax.corner_max_pool(x))


def test_pools_stack_from_28_pixels_down():
    sizes = {"plain": (28, 14, 7, 3, 1), "overlapping": (28, 14, 7, 4, 2)}
    pools = {"plain": lambda x: fconv_jax.spatial_max_pool(x), "overlapping": lambda x: fconv_jax.blur_pool(x, 3)}
    for name, pool in pools.items():
        x = image(1, 28, 28, 4, 1)
        for before, after in zip(sizes[name], sizes[name][1:], strict=False):
            assert x.shape[1] == before
            assert fconv_jax.equivariance_error(pool, x) < ROUNDING
            x = pool(x)
            assert x.shape[1:3] == (after, after)


def test_padding_of_a_maximum_never_shows():
    x = -1.0 - jnp.abs(image(1, 6, 6, 2))
    assert bool(jnp.all(jnp.isfinite(fconv_jax.spatial_max_pool(x, 2, padding=1))))
    assert bool(jnp.all(jnp.isfinite(fconv_jax.corner_max_pool(x, 2, padding=1))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: fconv_jax.spatial_max_pool(x, 9), r"side of 7 .* below the window \(=9\)"),
        (lambda x: fconv_jax.spatial_max_pool(x, 0), r"window \(=0\)"),
        (lambda x: fconv_jax.spatial_mean_pool(x, 2, strides=0), r"strides \(=0\)"),
        (lambda x: fconv_jax.spatial_mean_pool(x, 2, padding=-1), r"padding \(=-1\)"),
        (lambda x: fconv_jax.spatial_max_pool(x, 2, padding=2), r"padding \(=2\) must be at most half the window"),
        (lambda x: fconv_jax.spatial_max_pool(x, 2, widen=False), r"strides \(=2\) must divide"),
        (lambda x: fconv_jax.spatial_max_pool(x[0]), r"must be an image .* or a field"),
        (lambda x: fconv_jax.corner_max_pool(x, 8), r"7 x 7 .* below the window \(=8\)"),
        (lambda x: fconv_jax.corner_max_pool(x, 0), r"window \(=0\)"),
        (lambda x: fconv_jax.max_over_rotations(x), "must be a field"),
        (lambda x: fconv_jax.mean_over_rotations(x), "must be a field"),
        (lambda x: fconv_jax.disk_mask(0), r"size \(=0\)"),
        (lambda x: fconv_jax.disk_mask(8, 101), r"margin \(=101\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((1, 7, 7, 2)))


@pytest.mark.parametrize("kind", SYMMETRIC)
def test_pools_compose(kind):
    def loss(x):
        y = SYMMETRIC[kind](x, 3, strides=2)
        return jnp.sum(y.astype(jnp.float32) ** 2)

    x = image(3, 7, 7, 4, 2)
    value, gradient = jax.jit(jax.value_and_grad(jax.checkpoint(loss)))(x)
    assert relative(value, loss(x)) < ROUNDING
    # The direction of a turned gradient: the gradient of a symmetric pool turns with its input.
    assert relative(jax.grad(loss)(turned(x)), turned(gradient)) < 10 * ROUNDING
    each = jax.vmap(lambda one: SYMMETRIC[kind](one[None], 3, strides=2)[0])(x)
    assert relative(each, SYMMETRIC[kind](x, 3, strides=2)) < ROUNDING
    assert SYMMETRIC[kind](x.astype(jnp.bfloat16), 3).dtype == jnp.bfloat16


def test_field_dropout_drops_whole_fields_and_keeps_the_mean():
    dropout = fconv_jax.FieldDropout(0.25)
    x = jnp.ones((200, 3, 3, 4, 20))
    y = dropout(x, rngs=nnx.Rngs(0))
    kept = y[:, 0, 0, 0]
    np.testing.assert_array_equal(y, jnp.broadcast_to(kept[:, None, None, None], y.shape))
    assert set(np.unique(kept)) == {np.float32(0.0), np.float32(1 / 0.75)}
    assert abs(float(jnp.mean(kept)) - 1.0) < 0.03  # 4,000 draws: standard deviation 0.009
    key = jax.random.key(1)
    np.testing.assert_array_equal(dropout(turned(x), rngs=key), turned(dropout(x, rngs=key)))


def test_field_dropout_is_off_in_evaluation_and_needs_rngs_in_training():
    dropout = fconv_jax.FieldDropout(0.25)
    x = image(2, 3, 3, 4, 2)
    with pytest.raises(ValueError, match="needs rngs"):
        dropout(x)
    dropout.eval()
    np.testing.assert_array_equal(dropout(x), x)
    with pytest.raises(ValueError, match=r"\(3,\) keys for 2 images"):
        fconv_jax.FieldDropout(0.25)(x, rngs=jax.random.split(jax.random.key(0), 3))
