import json

import jax
import numpy as np
import pytest

from fconv_jax import fourier_basis, group_filter, lifting_filter, pointwise_filter, projecting_filter, rotation_shift

FILTERS = {"lift": lifting_filter, "reg": group_filter, "out": projecting_filter}
# A filter is one sum over at most 25 functions in float32: the golden README's figure for filters.
FILTER_TOLERANCE = 1e-6

CASES = [
    f"{kind}_k{k}_t{t}{rest}"
    for kind, rests in (("lift", ("", "_nobias_nosmooth")), ("reg", ("", "_nobias_nosmooth")), ("out", ("",)))
    for k in (3, 5)
    for t in (4, 8)
    for rest in rests
]


def random_coefficients(kind, t, rank, in_features=2, out_features=3):
    """In the reference's layout (out, in, a, rank)."""
    shape = (out_features, in_features, t if kind == "reg" else 1, rank)
    return np.random.RandomState(0).normal(size=shape).astype(np.float32)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=FILTER_TOLERANCE * np.abs(expected).max())


def test_every_golden_case_is_listed(goldens):
    cases = json.loads(str(goldens("layers")["meta_json"]))["cases"]
    assert set(CASES) == {name for name in cases if name.split("_")[0] in FILTERS}


@pytest.mark.parametrize("case", CASES)
def test_golden_filter(goldens, oracle, case):
    golden, kind = goldens("layers"), case.split("_")[0]
    basis = golden[f"{case}.basis"]
    actual = FILTERS[kind](oracle.coefficients(golden[f"{case}.weights"], kind), basis)
    assert_close(actual, oracle.kernel(golden[f"{case}.filter"], kind, basis.shape[2]))


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(("k", "t"), [(2, 1), (2, 3), (3, 2), (4, 8), (5, 12), (6, 5)])
def test_oracle(oracle, kind, k, t):
    basis = fourier_basis(k, t).values
    weights = random_coefficients(kind, t, basis.shape[-1])
    expected = oracle.kernel(oracle.expand(kind, weights, basis.astype(np.float64)), kind, t)
    assert_close(FILTERS[kind](oracle.coefficients(weights, kind), basis), expected)


@pytest.mark.parametrize("t", [1, 3, 4, 8])
def test_pointwise_filter(t):
    """F[a, n, o, m] = c[(a - o) mod t, n, m], entry by entry."""
    coefficients = np.random.RandomState(1).normal(size=(t, 2, 3)).astype(np.float32)
    actual = np.asarray(pointwise_filter(coefficients))
    assert actual.shape == (t, 2, t, 3)
    for a in range(t):
        for o in range(t):
            np.testing.assert_array_equal(actual[a, :, o], coefficients[(a - o) % t])


@pytest.mark.parametrize("case", ["conv1x1_reg_t4", "conv1x1_reg_t8"])
def test_golden_pointwise_filter(goldens, oracle, case):
    golden = goldens("layers")
    t = golden[f"{case}.weights"].shape[2]
    coefficients = oracle.coefficients(golden[f"{case}.weights"], "reg")[..., 0]
    expected = oracle.kernel(golden[f"{case}.filter"], "reg", t)[0, 0]
    assert_close(pointwise_filter(coefficients), expected)  # the reference sums zeros beside each entry


def test_rotation_shift():
    np.testing.assert_array_equal(rotation_shift(3), [[0, 2, 1], [1, 0, 2], [2, 1, 0]])
    np.testing.assert_array_equal(rotation_shift(1), [[0]])


@pytest.mark.parametrize("kind", FILTERS)
def test_jit_vmap_and_grad(kind):
    basis = fourier_basis(3, 4).values
    axes = (4,) if kind == "reg" else ()
    coefficients = np.random.RandomState(2).normal(size=(2, *axes, 2, 3, basis.shape[-1])).astype(np.float32)
    one = FILTERS[kind]
    together = jax.jit(jax.vmap(one, (0, None)))(coefficients, basis)
    for i in range(2):
        assert_close(together[i], np.asarray(one(coefficients[i], basis)))
    # The filter is linear in its coefficients: <grad, c> = f(c).
    value, gradient = jax.value_and_grad(lambda c: one(c, basis).sum())(coefficients[0])
    np.testing.assert_allclose(np.sum(gradient * coefficients[0]), value, rtol=1e-4)


@pytest.mark.parametrize(
    ("function", "coefficients", "basis", "message"),
    [
        (lifting_filter, (1, 2, 9), (3, 3, 4), "must have 3 axes, a basis .* four"),
        (lifting_filter, (4, 1, 2, 9), (3, 3, 4, 9), r"\(4, 1, 2, 9\) must have 3 axes"),
        (lifting_filter, (1, 2, 8), (3, 3, 4, 9), "have 8 numbers a filter, the basis has 9 functions"),
        (projecting_filter, (4, 1, 2, 9), (3, 3, 4, 9), r"\(4, 1, 2, 9\) must have 3 axes"),
        (projecting_filter, (1, 2, 8), (3, 3, 4, 9), "have 8 numbers a filter, the basis has 9 functions"),
        (group_filter, (1, 2, 9), (3, 3, 4, 9), r"\(1, 2, 9\) must have 4 axes"),
        (group_filter, (4, 1, 2, 8), (3, 3, 4, 9), "have 8 numbers a filter, the basis has 9 functions"),
        (group_filter, (8, 1, 2, 9), (3, 3, 4, 9), "have 8 rotations on their first axis, the basis has 4"),
    ],
)
def test_wrong_shapes(function, coefficients, basis, message):
    with pytest.raises(ValueError, match=message):
        function(np.zeros(coefficients, np.float32), np.zeros(basis, np.float32))


def test_wrong_pointwise_shape():
    with pytest.raises(ValueError, match=r"\(2, 3\) must have three axes"):
        pointwise_filter(np.zeros((2, 3), np.float32))
