"""Filters against the reference's numbers and against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fconv_jax import Group, fourier_basis, group_filter, lifting_filter, projecting_filter
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


@pytest.mark.parametrize("group", [Group(1), Group(3), Group(8), Group(4, True)], ids=str)
def test_a_pointwise_filter(group):
    """F[a, n, o, m] = c[o^-1 a, n, m], entry by entry; for rotations o^-1 a = (a - o) mod t."""
    coefficients = numbers(group.order, 2, 3, 1, seed=1)
    actual = np.asarray(group_filter(coefficients, fourier_basis(1, group).values, group))[0, 0]
    assert actual.shape == (group.order, 2, group.order, 3)
    for a in range(group.order):
        for o in range(group.order):
            before = group.product[group.inverse[o], a] if group.reflections else (a - o) % group.order
            np.testing.assert_array_equal(actual[a, :, o], coefficients[before, ..., 0])


@pytest.mark.parametrize("t", [4, 8])
def test_golden_pointwise_filter(t):
    golden = Golden(f"conv1x1_reg_t{t}")
    expected = oracle.kernel(golden.filter, "reg", t)[0, 0]
    # Not equal bit for bit: the reference sums zeros beside each entry.
    actual = group_filter(golden.coefficients, fourier_basis(1, t).values)[0, 0]
    assert_close(actual, expected, FILTER_TOLERANCE)


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
        (group_filter, [(8, 1, 2, 9), (3, 3, 4, 9)], "have 8 elements on their first axis, the basis has 4"),
    ],
)
def test_wrong_shapes(function, shapes, message):
    with pytest.raises(ValueError, match=message):
        function(*(np.zeros(shape, np.float32) for shape in shapes))


@pytest.mark.parametrize(
    ("expand", "shape"),
    [(lifting_filter, (2, 3, 5)), (group_filter, (4, 2, 3, 5)), (projecting_filter, (2, 3, 5))],
)
def test_filters_are_expanded_in_full_precision(expand, shape):
    """A GPU's products of float32 have 10 bits by default."""
    program = str(jax.make_jaxpr(expand)(jnp.zeros(shape), jnp.zeros((3, 3, 4, 5))))
    assert program.count("dot_general") == program.count("Precision.HIGHEST, Precision.HIGHEST") == 1
