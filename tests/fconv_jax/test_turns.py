"""Rotations of images and fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import fconv_jax as fc
from tests import goldens
from tests.fconv_jax.arrays import noise, rotate


def blob(size=29):
    """A smooth image that fades before it reaches the disk's border."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2)
    values = np.exp(-8 * (x**2 + y**2)) * (1 + x + 2 * x * y)
    return jnp.asarray(values[None, ..., None], jnp.float32)


def test_rotate_image_equals_scipy_on_the_stored_rotations():
    arrays = goldens.load("rotate")
    images = (arrays["images_u8"].astype(np.float32) / 255)[..., None]
    for index, angle in enumerate(arrays["angles"]):
        rotated = fc.rotate_image(images, float(angle))[..., 0]
        np.testing.assert_allclose(rotated, arrays["rotated"][:, index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (3, 9), (9, 3), (9, 5)])
def test_points_on_the_border_are_inside(shape):
    """The sine of 30 degrees is 1/2 but for its last digit, which decides in scipy whether some pixels are zero."""
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)[None, ..., None]
    for angle in (30, 150, 210, 330):
        found = fc.rotate_image(image, angle)
        in_two = fc.rotate_image(fc.rotate_image(image, 180), angle - 180)
        np.testing.assert_allclose(found, in_two, rtol=0, atol=1e-5)
        expected = ndimage.rotate(image[0, ..., 0], angle, reshape=False)
        there = expected != 0
        np.testing.assert_allclose(found[0, ..., 0][there], expected[there], rtol=0, atol=1e-5)
        ones = [float(fc.rotate_image(jnp.ones_like(image), each).sum()) for each in (30, angle)]
        assert abs(ones[0] - ones[1]) < 1e-4


def test_multiples_of_90_degrees_are_exact():
    x = noise(2, 5, 7, 3)
    for quarters in range(-5, 6):
        np.testing.assert_array_equal(fc.rotate_image(x, 90 * quarters), jnp.rot90(x, quarters, axes=(1, 2)))


def test_a_rotation_and_its_opposite_restore_a_smooth_image():
    x = blob()
    there = fc.rotate_image(x, 37.5)
    assert float(jnp.max(jnp.abs(fc.rotate_image(there, -37.5) - x))) < 1e-3
    assert float(jnp.max(jnp.abs(there - x))) > 0.1


def test_an_oblong_image_keeps_its_size_and_close_angles_are_alike():
    x = noise(1, 9, 12, 2)
    rotated = fc.rotate_image(x, 30.0)
    assert rotated.shape == x.shape
    np.testing.assert_allclose(fc.rotate_image(x, 30.0 + 1e-6), rotated, rtol=0, atol=1e-5)
    assert fc.rotate_image(x, 90).shape == (1, 12, 9, 2)


def test_rotate_image_composes():
    def loss(x):
        return jnp.sum(fc.rotate_image(x, 20.0) ** 2)

    x, step = noise(2, 8, 8, 1), noise(2, 8, 8, 1, seed=1)
    gradient = jax.jit(jax.grad(jax.checkpoint(loss)))(x)
    measured = (loss(x + 0.01 * step) - loss(x - 0.01 * step)) / 0.02
    assert abs(float(jnp.sum(gradient * step) - measured)) < 1e-2 * abs(float(measured)) + 1e-2
    each = jax.vmap(lambda one: fc.rotate_image(one[None], 20.0)[0])(x)
    np.testing.assert_allclose(each, fc.rotate_image(x, 20.0), rtol=0, atol=1e-6)
    assert fc.rotate_image(x.astype(jnp.bfloat16), 20.0).dtype == jnp.bfloat16


def test_rotate_features_rotates_pixels_and_moves_rotations():
    x = noise(2, 6, 6, 8, 3)
    np.testing.assert_array_equal(fc.rotate_field(x, 90), rotate(x))
    np.testing.assert_array_equal(fc.rotate_field(x[:, 0, 0], 45), jnp.roll(x[:, 0, 0], 1, axis=1))
    rotated = x
    for _ in range(4):
        rotated = fc.rotate_field(rotated, 90)
    np.testing.assert_array_equal(rotated, x)


def test_rotate_features_by_a_free_angle_of_the_group():
    x = blob()[..., None, :] * jnp.arange(12.0)[:, None]
    rotated = fc.rotate_field(x, 30)
    np.testing.assert_allclose(rotated[..., 1, :], fc.rotate_image(x[..., 0, :], 30), rtol=0, atol=1e-6)


def test_rotate_vectors_rotates_the_gradient_of_a_rotated_image():
    """Exact at quarter turns, and of a smooth image near 0 at other angles; without the components it is not."""

    def gradient(x):
        return jnp.stack(jnp.gradient(x, axis=(1, 2)), axis=3)

    x = noise(2, 7, 9, 3)
    for angle in (90, 180, 270, -90):
        np.testing.assert_array_equal(fc.rotate_vectors(gradient(x), angle), gradient(fc.rotate_image(x, angle)))
    x = blob()
    expected = gradient(fc.rotate_image(x, 30))
    assert float(jnp.abs(fc.rotate_vectors(gradient(x), 30) - expected).max()) < 0.01
    plain = jnp.stack([fc.rotate_image(part, 30) for part in jnp.gradient(x, axis=(1, 2))], axis=3)
    assert float(jnp.abs(plain - expected).max()) > 0.03
    one = jnp.array([[[1.0], [0.0]]])
    np.testing.assert_allclose(fc.rotate_vectors(one, 30)[0, :, 0], [np.cos(np.pi / 6), 0.5], rtol=1e-6)


def test_an_angle_that_is_taken_for_a_quarter_turn_is_one():
    field = noise(1, 4, 4, 4, 2)
    np.testing.assert_array_equal(fc.rotate_field(field, 90.0000001, 4), fc.rotate_field(field, 90, 4))


@pytest.mark.parametrize("move", [lambda x: fc.rotate_vectors(x, 180), fc.mirror_vectors])
def test_the_negative_of_the_least_number_does_not_wrap(move):
    found = move(jnp.full((1, 2, 1), -128, "int8"))
    assert int(found[0, 1, 0]) == 127
    assert found.dtype == jnp.int8


@pytest.mark.parametrize("move", [lambda x: fc.rotate_vectors(x, 90), fc.mirror_vectors])
def test_vectors_of_unsigned_numbers_do_not_wrap(move):
    vectors = jnp.arange(18, dtype="uint8").reshape(1, 3, 3, 2, 1)
    np.testing.assert_array_equal(move(vectors), jnp.maximum(move(vectors.astype("float32")), 0))


@pytest.mark.parametrize(
    ("function", "shape", "angle", "message"),
    [
        (fc.rotate_image, (2, 5, 5), 90, r"\(2, 5, 5\) must be \[batch"),
        (fc.rotate_image, (1, 5, 5, 1), float("nan"), r"angle \(=nan\)"),
        (fc.rotate_image, (1, 1, 5, 1), 10, "at least 2 pixels"),
        (jax.jit(fc.rotate_image), (1, 5, 5, 1), 10.0, "known when traced"),
        (fc.rotate_field, (1, 5, 5, 8, 1), 30, r"angle \(=30\) must be a multiple of .* 45"),
        (fc.rotate_field, (1, 5, 5, 6, 1), 90, r"angle \(=90\) must be a multiple of .* 60"),
        (fc.rotate_field, (1, 5, 5, 1), 90, "must be"),
        (fc.rotate_vectors, (1, 5, 5, 3, 1), 90, r"\(1, 5, 5, 3, 1\) must be"),
    ],
)
def test_bad_input_is_named(function, shape, angle, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.zeros(shape), angle)
