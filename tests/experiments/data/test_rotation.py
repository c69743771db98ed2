"""Rotation against SciPy and the golden file; the frozen rule of the angles."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from experiments.data import rotate_images
from experiments.data.rotation import INTERPOLATIONS, copy_angles, rotate_each, rotated_copies, uniform_angles

GOLDEN = Path(__file__).parents[2] / "goldens" / "rotate.npz"

ATOL = 1e-5  # The golden values are float32 of the order of 1; ours differ by 1e-7.


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def test_rotation_equals_golden(golden):
    images = golden["images_u8"].astype(np.float32) / 255
    for k, angle in enumerate(golden["angles"]):
        rotated = rotate_images(images, angle)
        assert rotated.dtype == np.float32
        np.testing.assert_allclose(rotated, golden["rotated"][:, k], atol=ATOL, rtol=0)


def test_wrong_direction_is_noticed(golden):
    images = golden["images_u8"].astype(np.float32) / 255
    wrong = rotate_images(images, -45)
    assert np.abs(wrong - golden["rotated"][:, list(golden["angles"]).index(45)]).max() > 0.5


# Of triangles with whole sides: sources lie exactly on the image's border, and the last bit decides.
_ON_BORDERS = [math.degrees(math.atan2(*sides)) for sides in ((3, 4), (4, 3), (-12, 5), (8, -15), (20, 21))]


@pytest.mark.parametrize("size", [1, 2, 3, 9, 28, 29])
@pytest.mark.parametrize("angle", [0, 90, 180, -270, 45, 17.3, -123.456, 1e-3, 725.5, 1e-14, *_ON_BORDERS])
def test_rotation_equals_scipy_for_any_angle_and_size(size, angle):
    images = np.random.default_rng(size).random((3, size, size), np.float32)
    expected = [scipy.ndimage.rotate(image, angle, reshape=False, cval=0) for image in images]
    np.testing.assert_allclose(rotate_images(images, angle), expected, atol=ATOL, rtol=0)


def test_quarter_turns_are_exact_and_empty_input_works():
    images = np.random.default_rng(0).random((5, 28, 28), np.float32)
    np.testing.assert_allclose(rotate_images(images, 90), np.rot90(images, 1, axes=(1, 2)), atol=1e-7)
    assert rotate_images(images[:0], 30).shape == (0, 28, 28)


def test_many_images_are_rotated_in_blocks(monkeypatch):
    images = np.random.default_rng(0).random((10, 28, 28), np.float32)
    at_once = rotate_images(images, 33)
    monkeypatch.setattr("experiments.data.rotation._BLOCK", 3)
    np.testing.assert_array_equal(rotate_images(images, 33), at_once)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"\[n, size, size\], not \(2, 28, 27\)"):
        rotate_images(np.zeros((2, 28, 27), np.float32), 10)
    with pytest.raises(ValueError, match="finite number of degrees, not nan"):
        rotate_images(np.zeros((2, 28, 28), np.float32), float("nan"))


def test_copies_are_clipped_rounded_scipy(golden):
    images = golden["images_u8"]
    angles = np.random.default_rng(3).integers(-90, 90, (len(images), 4), dtype=np.int32)
    copies = rotated_copies(images, angles)
    np.testing.assert_array_equal(copies[:, 0], images)
    for i, image in enumerate(images):
        for copy in range(4):
            expected = scipy.ndimage.rotate(image / 255, angles[i, copy], reshape=False, cval=0)
            np.testing.assert_array_equal(copies[i, 1 + copy], np.rint(np.clip(expected, 0, 1) * 255))


def test_angles_follow_the_documented_rule_for_ever():
    """Frozen: if these change, every prepared data set changes and VERSION must be raised."""
    expected = [[-49, -27, -34, 39], [46, 31, 41, 46], [-33, 75, -3, -22]]
    np.testing.assert_array_equal(copy_angles(0, "mnist_5k", "train", 3), expected)


def test_angles_depend_on_seed_dataset_split_image_and_copy_only():
    angles = copy_angles(0, "mnist", "train", 1000)
    np.testing.assert_array_equal(copy_angles(0, "mnist", "train", 10), angles[:10])
    others = [(1, "mnist", "train"), (0, "mnist_5k", "train"), (0, "mnist", "test")]
    assert all((copy_angles(*other, 1000) != angles).mean() > 0.9 for other in others)
    assert len(np.unique(angles, axis=0)) > 990


def test_angles_are_uniform_over_minus_90_to_89():
    angles = copy_angles(7, "mnist", "train", 55_000)
    assert angles.dtype == np.int32
    counts = np.bincount(angles.ravel() + 90, minlength=180)
    assert len(counts) == 180
    expected = angles.size / 180
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 179 - 5 * np.sqrt(2 * 179) < chi_square < 179 + 5 * np.sqrt(2 * 179)


def test_uniform_angles_are_frozen_and_uniform():
    angles = uniform_angles(0, 100_000)
    np.testing.assert_allclose(angles[:3], [4.15683154307937, 86.9577107625786, 40.1133079853778], rtol=1e-12)
    np.testing.assert_array_equal(uniform_angles(0, 3), angles[:3])  # however many are asked for
    assert (uniform_angles(1, 3) != angles[:3]).all()
    counts, _ = np.histogram(angles, 36, (0, 360))
    assert counts.sum() == 100_000
    assert np.abs(counts / 100_000 * 36 - 1).max() < 0.08  # four standard deviations


def test_each_image_is_rotated_by_its_own_angle(golden):
    images = golden["images_u8"][:3]
    angles = [0.0, 90.0, 33.3]
    for name, order in INTERPOLATIONS.items():
        rotated = rotate_each(images, np.array(angles), order)
        np.testing.assert_array_equal(rotated[:2], [images[0], np.rot90(images[1])], err_msg=name)
    cubic, bilinear = (rotate_each(images, np.array(angles), INTERPOLATIONS[name])[2] for name in ("cubic", "bilinear"))
    expected = rotate_images(images[2:].astype(np.float32) / 255, 33.3)[0]
    assert np.abs(cubic - np.rint(255 * np.clip(expected, 0, 1))).max() <= 1
    assert 1 < np.abs(cubic.astype(int) - bilinear.astype(int)).max() < 100


def test_rotated_images_are_scipys_rounded_to_whole_levels(golden):
    images, angles = golden["images_u8"][:3], np.array([33.3, 201.7, 340.0])
    for order in INTERPOLATIONS.values():
        expected = [
            np.rint(np.clip(scipy.ndimage.rotate(image.astype(float), angle, reshape=False, order=order), 0, 255))
            for image, angle in zip(images, angles, strict=True)
        ]
        np.testing.assert_array_equal(rotate_each(images, angles, order), expected)
