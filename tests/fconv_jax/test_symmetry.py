"""Turning images and fields, and the measure of equivariance, each with a negative control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax

ROUNDING = 1e-5


def image(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def blob(size=29):
    """A smooth picture that fades before it reaches the disk's border."""
    grid = np.linspace(-1, 1, size)
    x, y = np.meshgrid(grid, grid)
    picture = np.exp(-8 * (x**2 + y**2)) * (1 + x + 2 * x * y)
    return jnp.asarray(picture[None, ..., None], jnp.float32)


def layer(kind=fconv_jax.LiftingFConv, *sizes, **options):
    return kind(*(sizes or (1, 2, 5)), rngs=nnx.Rngs(0), **options)


def test_rotate_image_equals_scipy_on_the_stored_turns(goldens):
    arrays = goldens("rotate")
    images = (arrays["images_u8"].astype(np.float32) / 255)[..., None]
    for index, angle in enumerate(arrays["angles"]):
        turned = fconv_jax.rotate_image(images, float(angle))[..., 0]
        np.testing.assert_allclose(turned, arrays["rotated"][:, index], rtol=0, atol=1e-5)


def test_quarter_turns_are_exact_at_any_multiple():
    x = image(2, 5, 7, 3)
    for turns in range(-5, 6):
        np.testing.assert_array_equal(fconv_jax.rotate_image(x, 90 * turns), jnp.rot90(x, turns, axes=(1, 2)))


def test_a_turn_and_its_opposite_restore_a_smooth_image():
    x = blob()
    there_and_back = fconv_jax.rotate_image(fconv_jax.rotate_image(x, 37.5), -37.5)
    assert float(jnp.max(jnp.abs(there_and_back - x))) < 1e-3
    assert float(jnp.max(jnp.abs(fconv_jax.rotate_image(x, 37.5) - x))) > 0.1


def test_an_image_that_is_not_square_keeps_its_size_and_turns_by_close_angles_alike():
    x = image(1, 9, 12, 2)
    turned = fconv_jax.rotate_image(x, 30.0)
    assert turned.shape == x.shape
    np.testing.assert_allclose(fconv_jax.rotate_image(x, 30.0 + 1e-6), turned, rtol=0, atol=1e-5)
    assert fconv_jax.rotate_image(x, 90).shape == (1, 12, 9, 2)


def test_rotate_image_composes():
    def loss(x):
        return jnp.sum(fconv_jax.rotate_image(x, 20.0) ** 2)

    x = image(2, 8, 8, 1)
    gradient = jax.jit(jax.grad(jax.checkpoint(loss)))(x)
    step = jnp.asarray(image(2, 8, 8, 1, seed=1))
    measured = (loss(x + 0.01 * step) - loss(x - 0.01 * step)) / 0.02
    assert abs(float(jnp.sum(gradient * step) - measured)) < 1e-2 * abs(float(measured)) + 1e-2
    each = jax.vmap(lambda one: fconv_jax.rotate_image(one[None], 20.0)[0])(x)
    np.testing.assert_allclose(each, fconv_jax.rotate_image(x, 20.0), rtol=0, atol=1e-6)
    assert fconv_jax.rotate_image(x.astype(jnp.bfloat16), 20.0).dtype == jnp.bfloat16


def test_rotate_features_turns_pixels_and_moves_rotations():
    x = image(2, 6, 6, 8, 3)
    expected = jnp.roll(jnp.rot90(x, 1, axes=(1, 2)), 2, axis=3)
    np.testing.assert_array_equal(fconv_jax.rotate_features(x, 90), expected)
    np.testing.assert_array_equal(fconv_jax.rotate_features(x[:, 0, 0], 45), jnp.roll(x[:, 0, 0], 1, axis=1))
    turned = x
    for _ in range(4):
        turned = fconv_jax.rotate_features(turned, 90)
    np.testing.assert_array_equal(turned, x)


def test_rotate_features_by_a_free_angle_of_the_group():
    x = blob()[..., None, :] * jnp.arange(12.0)[:, None]
    turned = fconv_jax.rotate_features(x, 30)
    np.testing.assert_allclose(turned[..., 1, :], fconv_jax.rotate_image(x[..., 0, :], 30), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fconv_jax.rotate_image(jnp.zeros((2, 5, 5)), 90), r"\(2, 5, 5\) must be \[batch"),
        (lambda: fconv_jax.rotate_image(jnp.zeros((1, 5, 5, 1)), float("nan")), r"angle \(=nan\)"),
        (lambda: fconv_jax.rotate_image(jnp.zeros((1, 1, 5, 1)), 10), "at least 2 pixels"),
        (lambda: jax.jit(fconv_jax.rotate_image)(jnp.zeros((1, 5, 5, 1)), 10.0), "known when traced"),
        (
            lambda: fconv_jax.rotate_features(jnp.zeros((1, 5, 5, 8, 1)), 30),
            r"angle \(=30\) must be a multiple of .* 45",
        ),
        (
            lambda: fconv_jax.rotate_features(jnp.zeros((1, 5, 5, 6, 1)), 90),
            r"angle \(=90\) must be a multiple of .* 60",
        ),
        (lambda: fconv_jax.rotate_features(jnp.zeros((1, 5, 5, 1)), 90), "must be"),
        (lambda: fconv_jax.equivariance_error(jnp.tanh, jnp.zeros((1, 4, 5, 1)), margin=2), "square images"),
        (lambda: fconv_jax.equivariance_error(lambda x: x[:, :2], jnp.zeros((1, 4, 4, 1))), "for the turned input"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_layers_are_exact_at_quarter_turns_and_plain_ones_are_not():
    x = image(2, 9, 9, 1)
    fconv_jax.assert_equivariant(layer(), x, tolerance=ROUNDING)
    fconv_jax.assert_equivariant(layer(fconv_jax.GroupFConv, 3, 2, 3), image(2, 7, 7, 8, 3), 270, tolerance=ROUNDING)
    projecting = layer(fconv_jax.ProjectingFConv, 3, 2, 3)
    fconv_jax.assert_equivariant(projecting, image(2, 7, 7, 8, 3), 180, tolerance=ROUNDING)
    plain = nnx.Conv(1, 2, (5, 5), rngs=nnx.Rngs(0))
    with pytest.raises(AssertionError, match="relative equivariance error"):
        fconv_jax.assert_equivariant(plain, x)


def test_invariant_outputs_are_compared_as_they_are():
    lifting = layer()

    def invariant(x):
        return jnp.mean(fconv_jax.max_over_rotations(lifting(x)), axis=(1, 2))

    x = image(2, 9, 9, 1)
    assert fconv_jax.equivariance_error(invariant, x) < ROUNDING
    assert fconv_jax.equivariance_error(lambda x: jnp.mean(lifting(x), axis=(1, 2)), x) < ROUNDING  # [batch, t, c]
    assert fconv_jax.equivariance_error(lambda x: lifting(x).reshape(2, -1), x) > 0.1  # flattened: not invariant


def test_free_angles_inside_a_disk_are_approximate():
    x = blob()
    band_limited = layer(fconv_jax.LiftingFConv, 1, 8, 7, num_frequencies=3, padding="SAME", init="paper")
    all_frequencies = layer(fconv_jax.LiftingFConv, 1, 8, 7, padding="SAME", init="paper")
    plain = nnx.Conv(1, 8, (7, 7), rngs=nnx.Rngs(0))
    assert 1e-5 < fconv_jax.equivariance_error(band_limited, x, 45, margin=2) < 0.05
    assert 0.1 < fconv_jax.equivariance_error(all_frequencies, x, 45, margin=2) < 0.5
    assert fconv_jax.equivariance_error(plain, x, 45, margin=2) > 0.5


def test_the_error_of_nothing_is_zero_and_it_can_be_compiled():
    assert fconv_jax.equivariance_error(jnp.zeros_like, image(1, 4, 4, 1)) == 0.0
    compiled = jax.jit(lambda x: fconv_jax.equivariance_error(fconv_jax.corner_max_pool, x))
    x = image(1, 7, 7, 2)
    expected = fconv_jax.equivariance_error(fconv_jax.corner_max_pool, x)
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-5)
