"""Every pool against its definition in NumPy: values, defaults, gradients, limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fconv_jax as fc
from fconv_jax.torch_reference import corner_blur_pool, corner_max_pool
from tests.fconv_jax.arrays import assert_close, noise

ROUNDING = 1e-6  # sums of a few dozen float32 numbers in another order
# (height, width), window, strides, padding: windows that fit, that grow along one axis and along both.
CASES = [
    ((6, 8), 2, None, 0),
    ((7, 8), 2, None, 0),
    ((7, 9), 3, 2, 1),
    ((8, 7), 3, 2, 1),
    ((9, 12), 3, 3, 0),
    ((8, 10), 4, 3, 2),
    ((5, 6), 5, 1, 0),
    ((6, 6), 2, 2, 1),
    ((5, 5), 1, 2, 0),
    ((4, 7), 4, 4, 0),
]


def gaussian(width):
    weights = np.exp(-((np.arange(width) - (width - 1) / 2) ** 2) / (2 * (max(width - 1, 1) / 6) ** 2))
    return weights / weights.sum()


def windows_of(x, window, strides, padding, outside, widen=True):
    """`[batch, row, column, channel, k'_h, k'_w]`: the windows as the module's first lines state them."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(np.asarray(x), pads, constant_values=outside)
    widths = [window + (size - window) % strides * widen for size in padded.shape[1:3]]
    return np.lib.stride_tricks.sliding_window_view(padded, widths, axis=(1, 2))[:, ::strides, ::strides]


def blurred(windows):
    return np.einsum("...uv,u,v->...", windows, *map(gaussian, windows.shape[-2:]))


DEFINITIONS = {
    "max": (fc.spatial_max_pool, -np.inf, lambda windows: windows.max((-1, -2))),
    "mean": (fc.spatial_mean_pool, 0.0, lambda windows: windows.mean((-1, -2))),
    "blur": (fc.blur_pool, 0.0, blurred),
}


@pytest.mark.parametrize("kind", DEFINITIONS)
@pytest.mark.parametrize(("sizes", "window", "strides", "padding"), CASES)
def test_a_symmetric_pool_is_its_definition(kind, sizes, window, strides, padding):
    pool, outside, combine = DEFINITIONS[kind]
    pooled = jax.jit(lambda x, field: [pool(y, window, strides=strides, padding=padding) for y in (x, field)])
    x = noise(2, *sizes, 3) - 2.0  # below zero, so that padding of a maximum would show
    expected = combine(windows_of(x, window, strides or window, padding, outside))
    of_image, of_field = pooled(x, np.stack([x, 2 * x], axis=3))
    assert_close(of_image, expected, ROUNDING)
    assert_close(of_field[..., 1, :], 2 * expected, ROUNDING)
    fits = all((size + 2 * padding - window) % (strides or window) == 0 for size in sizes)
    if fits:
        assert_close(pool(x, window, strides=strides, padding=padding, widen=False), expected, ROUNDING)
    else:
        with pytest.raises(ValueError, match="must divide"):
            pool(x, window, strides=strides, padding=padding, widen=False)


@pytest.mark.parametrize("size", [8, 9, 11])
def test_defaults(size):
    """Windows of 2, as far apart; a blur of windows of 5, 2 apart, padded by half a window."""
    x = noise(1, size, size, 2)
    np.testing.assert_array_equal(fc.spatial_max_pool(x), fc.spatial_max_pool(x, 2, strides=2, padding=0, widen=True))
    assert_close(fc.spatial_mean_pool(x), fc.spatial_mean_pool(x, 2, strides=2, padding=0, widen=True), ROUNDING)
    assert_close(fc.blur_pool(x), blurred(windows_of(x, 5, 2, 2, 0.0)), ROUNDING)
    assert_close(fc.blur_pool(x, 4), blurred(windows_of(x, 4, 2, 1, 0.0)), ROUNDING)
    np.testing.assert_array_equal(corner_max_pool(x), corner_max_pool(x, 2, padding=0))
    assert_close(corner_blur_pool(x, 4), blurred(windows_of(x, 4, 4, 1, 0.0, widen=False)), ROUNDING)


@pytest.mark.parametrize(
    ("sizes", "window", "padding"), [((6, 8), 2, 0), ((7, 9), 2, 1), ((8, 7), 3, 1), ((5, 9), 4, 2)]
)
def test_corner_pools_are_their_definition(sizes, window, padding):
    x = noise(2, *sizes, 3) - 2.0
    expected = windows_of(x, window, window, padding, -np.inf, widen=False).max((-1, -2))
    np.testing.assert_array_equal(corner_max_pool(x, window, padding=padding), expected)
    field = jnp.stack([x, x], axis=3)
    np.testing.assert_array_equal(corner_max_pool(field, window, padding=padding)[..., 1, :], expected)
    for strides in (1, 2, 3):
        expected = blurred(windows_of(x, window, strides, padding, 0.0, widen=False))
        assert_close(corner_blur_pool(x, window, strides=strides, padding=padding), expected, ROUNDING)


@pytest.mark.parametrize("window", [2, 3, 11, 12])
@pytest.mark.parametrize("pool", [fc.spatial_max_pool, corner_max_pool])
def test_the_gradient_of_a_maximum_goes_to_the_first_of_equals(pool, window):
    """Windows of 12 have more places than int8 can count."""
    x = np.random.default_rng(window).integers(0, window, (2, 2 * window, window, 3)).astype(np.float32)
    weights = np.asarray(noise(2, 2, 1, 3))
    expected = np.zeros_like(x)
    for image, row, channel in itertools.product(range(2), range(2), range(3)):
        tile = x[image, row * window : (row + 1) * window, :, channel]
        i, j = divmod(int(np.argmax(tile)), window)
        expected[image, row * window + i, j, channel] = weights[image, row, 0, channel]
    got = jax.jit(jax.grad(lambda x: jnp.sum(pool(x, window) * weights)))(jnp.asarray(x))
    np.testing.assert_array_equal(got, expected)
    tangent = jax.jit(lambda x, t: jax.jvp(lambda x: pool(x, window), (x,), (t,))[1])(x, expected)
    assert_close(tangent, weights, ROUNDING)


def test_limits_belong_to_what_is_allowed():
    x = noise(1, 4, 6, 1)
    assert fc.spatial_max_pool(x, 4).shape == (1, 1, 1, 1)  # a window as large as the image, widened to 6
    assert fc.spatial_max_pool(x, 6, padding=1).shape == (1, 1, 1, 1)
    assert fc.spatial_max_pool(x, 1, strides=1).shape == (1, 4, 6, 1)
    np.testing.assert_array_equal(fc.spatial_max_pool(x, 1, strides=1), x)
    assert_close(fc.blur_pool(x, 1, strides=1), x, ROUNDING)
    for pool in (fc.spatial_max_pool, corner_max_pool, fc.spatial_mean_pool):
        for image in (x, jnp.swapaxes(x, 1, 2)):
            with pytest.raises(ValueError, match=r"below the window \(=5\)"):
                pool(image, 5)
    with pytest.raises(ValueError, match="at most half"):
        fc.spatial_max_pool(x, 3, padding=2)
    assert fc.spatial_mean_pool(x, 3, strides=1, padding=2).shape == (1, 6, 8, 1)  # zeros count, so a mean may
    with pytest.raises(ValueError, match=r"size \+ 2 padding - window \(= 4 \+ 2 - 3\).*use a window of 4"):
        fc.spatial_max_pool(x, 3, strides=2, padding=1, widen=False)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("margin", [0, 2, 50.0, 100])
def test_a_disk_mask_is_its_definition(size, margin):
    centre = (size - 1) / 2
    limit = (centre - margin * centre / 100) ** 2
    rows, columns = np.mgrid[:size, :size] - centre
    expected = np.minimum(1, np.exp((limit - rows**2 - columns**2) / 4))
    mask = fc.disk_mask(size, margin)
    np.testing.assert_allclose(mask, expected, rtol=1e-6)
    assert mask.dtype == np.float32
    assert not mask.flags.writeable
    np.testing.assert_array_equal(fc.disk_mask(size), fc.disk_mask(size, 2.0))


@pytest.mark.parametrize(("size", "margin", "message"), [
    (0, 2, r"size \(=0\)"), (-3, 2, r"size \(=-3\)"), (8, -0.5, r"margin \(=-0.5\)"), (8, 100.5, r"margin \(=100.5\)"),
])  # fmt: skip
def test_disks_that_cannot_be(size, margin, message):
    with pytest.raises(ValueError, match=message):
        fc.disk_mask(size, margin)


def test_pools_over_rotations_are_their_definition():
    x = np.asarray(noise(2, 3, 4, 8, 5))
    np.testing.assert_array_equal(fc.max_over_group(jnp.asarray(x)), x.max(3))
    assert_close(fc.mean_over_group(jnp.asarray(x)), x.mean(3), ROUNDING)
