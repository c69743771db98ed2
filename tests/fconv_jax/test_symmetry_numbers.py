"""The measure of equivariance by hand: its number, its bar and what it says."""

import contextlib
import functools

import jax.numpy as jnp
import numpy as np
import pytest

import fconv_jax as fc
from tests.fconv_jax.arrays import noise


def test_the_error_is_the_norm_of_the_difference_over_the_norm():
    """Columns doubled from the left: f(R x) and R f(x) by hand."""
    x = np.asarray(noise(1, 4, 4, 1))
    weights = np.arange(1.0, 5.0, dtype=np.float32).reshape(1, 1, 4, 1)
    rotated = np.rot90(x, 1, axes=(1, 2))
    expected, actual = np.rot90(x * weights, 1, axes=(1, 2)), rotated * weights
    by_hand = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    got = fc.equivariance_error(lambda x: x * weights, jnp.asarray(x))
    np.testing.assert_allclose(got, by_hand, rtol=1e-6)
    np.testing.assert_allclose(fc.equivariance_error(lambda x: x * weights, jnp.asarray(x), 90), by_hand, rtol=1e-6)
    assert float(fc.equivariance_error(lambda x: x * weights, jnp.asarray(x), 0)) == 0.0
    assert float(fc.equivariance_error(lambda x: x * weights, jnp.asarray(x), 180)) != pytest.approx(by_hand, rel=1e-3)


def test_a_margin_measures_inside_the_disk_only():
    """A function that changes the corners alone, before and after."""
    x = noise(1, 9, 9, 1)
    corner = np.zeros((1, 9, 9, 1), np.float32)
    corner[0, 0, 0, 0] = 1.0
    error = [float(fc.equivariance_error(lambda x: x + corner, x, margin=margin)) for margin in (None, 0, 50)]
    assert error[0] > error[1] > error[2]
    assert error[2] < 1e-3 < error[0]


def test_the_default_bar_is_rounding():
    """Relative errors just below and just above 1e-5: sqrt(2) h / |f(x)| of one pixel that is h brighter."""
    x = jnp.ones((1, 4, 4, 1), jnp.float32)
    for share, passes in [(0.95, True), (1.05, False)]:
        bump = np.zeros((1, 4, 4, 1), np.float32)
        bump[0, 0, 0, 0] = share * 1e-5 * 4 / np.sqrt(2)
        function = functools.partial(jnp.add, bump)
        np.testing.assert_allclose(fc.equivariance_error(function, x), share * 1e-5, rtol=0.01)
        with contextlib.nullcontext() if passes else pytest.raises(AssertionError):
            fc.assert_equivariant(function, x)


def test_an_error_equal_to_the_tolerance_passes_and_one_above_says_both():
    x = noise(1, 7, 7, 2)
    error = float(fc.equivariance_error(fc.torch_reference.corner_max_pool, x, 180))
    fc.assert_equivariant(fc.torch_reference.corner_max_pool, x, 180, tolerance=error)
    with pytest.raises(AssertionError) as caught:
        fc.assert_equivariant(fc.torch_reference.corner_max_pool, x, 180, tolerance=error / 2)
    assert str(caught.value) == f"relative equivariance error {error:.3g} at 180 degrees is above {error / 2:g}"
    with pytest.raises(AssertionError, match="at 90 degrees is above 1e-05"):
        fc.assert_equivariant(fc.torch_reference.corner_max_pool, x)
    with pytest.raises(AssertionError, match="error nan"):
        fc.assert_equivariant(lambda x: x * jnp.nan, x)


def test_an_assertion_hands_its_margin_on():
    x = noise(1, 9, 9, 1)
    corner = np.zeros((1, 9, 9, 1), np.float32)
    corner[0, 0, 0, 0] = 1.0
    fc.assert_equivariant(lambda x: x + corner, x, margin=50, tolerance=1e-3)
    with pytest.raises(AssertionError):
        fc.assert_equivariant(lambda x: x + corner, x, tolerance=1e-3)


def test_unequal_outputs_are_named_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(1, 2, 6, 1\) for the rotated input, \(1, 6, 2, 1\) when rotated"):
        fc.equivariance_error(lambda x: x[:, :2], jnp.zeros((1, 6, 6, 1)))


def test_the_default_bar_is_that_of_the_coarser_type_of_input_and_output():
    """An error of sqrt(2) 2^-7 / 4 = 0.003: below two steps of bfloat16, far above the bar of float32."""

    def brighter(x, dtype):
        return x.astype(dtype).at[0, 0, 0, 0].add(2.0**-7)

    x = jnp.ones((1, 4, 4, 1), jnp.float32)
    fc.assert_equivariant(lambda x: brighter(x, jnp.bfloat16), x)
    fc.assert_equivariant(lambda x: brighter(x, jnp.float32), x.astype(jnp.bfloat16))
    with pytest.raises(AssertionError, match="is above 1e-05"):
        fc.assert_equivariant(lambda x: brighter(x, jnp.float32), x)
