"""Filters against the reference's numbers and against loops."""

import jax
import numpy as np
import pytest

from fconv_jax import fourier_basis, group_filter, lifting_filter, pointwise_filter, projecting_filter, rotation_shift
from tests import goldens
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import assert_close
from tests.fconv_jax.layer_cases import CASES, FILTERS, Golden

# A filter is one sum over at most 25 functions in float32: the golden README's figure for filters.
FILTER_TOLERANCE = 1e-6


def numbers(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def test_every_golden_case_is_listed():
    assert set(CASES) == {name for name in goldens.meta("layers")["cases"] if name.split("_")[0] in FILTERS}


@pytest.mark.parametrize("case", CASES)
def test_golden_filter(case):
    golden = Golden(case)
    actual = FILTERS[golden.kind](golden.coefficients, golden.basis)
    assert_close(actual, oracle.kernel(golden.filter, golden.kind, golden.t), FILTER_TOLERANCE)


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(("k", "t"), [(2, 1), (2, 3), (3, 2), (4, 8), (5, 12), (6, 5)])
def test_oracle(kind, k, t):
    basis = fourier_basis(k, t).values
    weights = numbers(3, 2, t if kind == "reg" else 1, basis.shape[-1])  # the reference's: out, in, a, r
    expected = oracle.kernel(oracle.expand(kind, weights, basis.astype(np.float64)), kind, t)
    assert_close(FILTERS[kind](oracle.coefficients(weights, kind), basis), expected, FILTER_TOLERANCE)


@pytest.mark.parametrize("t", [1, 3, 4, 8])
def test_pointwise_filter(t):
    """F[a, n, o, m] = c[(a - o) mod t, n, m], entry by entry."""
    coefficients = numbers(t, 2, 3, seed=1)
    actual = np.asarray(pointwise_filter(coefficients))
    assert actual.shape == (t, 2, t, 3)
    for a in range(t):
        for o in range(t):
            np.testing.assert_array_equal(actual[a, :, o], coefficients[(a - o) % t])


@pytest.mark.parametrize("t", [4, 8])
def test_golden_pointwise_filter(t):
    golden = Golden(f"conv1x1_reg_t{t}")
    expected = oracle.kernel(golden.filter, "reg", t)[0, 0]
    # Not equal bit for bit: the reference sums zeros beside each entry.
    assert_close(pointwise_filter(golden.coefficients[..., 0]), expected, FILTER_TOLERANCE)


def test_rotation_shift():
    np.testing.assert_array_equal(rotation_shift(3), [[0, 2, 1], [1, 0, 2], [2, 1, 0]])
    np.testing.assert_array_equal(rotation_shift(1), [[0]])


@pytest.mark.parametrize("kind", FILTERS)
def test_jit_vmap_and_grad(kind):
    basis, one = fourier_basis(3, 4).values, FILTERS[kind]
    coefficients = numbers(2, *((4,) if kind == "reg" else ()), 2, 3, basis.shape[-1], seed=2)
    together = jax.jit(jax.vmap(one, (0, None)))(coefficients, basis)
    for i in range(2):
        assert_close(together[i], one(coefficients[i], basis), FILTER_TOLERANCE)
    # The filter is linear in its coefficients: <grad, c> = f(c).
    value, gradient = jax.value_and_grad(lambda c: one(c, basis).sum())(coefficients[0])
    np.testing.assert_allclose(np.sum(gradient * coefficients[0]), value, rtol=1e-4)


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (lifting_filter, [(1, 2, 9), (3, 3, 4)], "must have 3 axes, a basis .* four"),
        (lifting_filter, [(4, 1, 2, 9), (3, 3, 4, 9)], r"\(4, 1, 2, 9\) must have 3 axes"),
        (lifting_filter, [(1, 2, 8), (3, 3, 4, 9)], "have 8 numbers a filter, the basis has 9 functions"),
        (projecting_filter, [(4, 1, 2, 9), (3, 3, 4, 9)], r"\(4, 1, 2, 9\) must have 3 axes"),
        (projecting_filter, [(1, 2, 8), (3, 3, 4, 9)], "have 8 numbers a filter, the basis has 9 functions"),
        (group_filter, [(1, 2, 9), (3, 3, 4, 9)], r"\(1, 2, 9\) must have 4 axes"),
        (group_filter, [(4, 1, 2, 8), (3, 3, 4, 9)], "have 8 numbers a filter, the basis has 9 functions"),
        (group_filter, [(8, 1, 2, 9), (3, 3, 4, 9)], "have 8 rotations on their first axis, the basis has 4"),
        (pointwise_filter, [(2, 3)], r"\(2, 3\) must have three axes"),
    ],
)
def test_wrong_shapes(function, shapes, message):
    with pytest.raises(ValueError, match=message):
        function(*(np.zeros(shape, np.float32) for shape in shapes))
