import functools
import hashlib
import json
import subprocess
import sys
import time

import numpy as np
import pytest

import fconv_jax
import fconv_jax.basis
from fconv_jax import bicubic_basis, fourier_basis

# Tolerances of the reference's numbers, which were computed in float64 (golden README).
SINGULAR_RTOL = 1e-9
WEIGHT_RTOL = 1e-8
# Matrices of the basis: the reference's are stored in float32, and so are our values; entries are below 1.
MATRIX_ATOL = 1e-6
# "Canonical" for another decomposition: the figure; entries of the basis are below 1.
CANONICAL_ATOL = 1e-6
# Values that symmetry makes equal agree to 2e-11 in float64; no others of the sizes below come this close.
EQUAL_RTOL = 1e-9

GOLDEN_MASKS = {"root": "adaptive", "minist": "gaussian"}
GOLDEN_CASES = [
    ("k3_t4_p3", "root"),
    ("k3_t4_p3", "minist"),
    ("k3_t8_p3", "root"),
    ("k3_t8_p3", "minist"),
    ("k5_t4_p5", "root"),
    ("k5_t4_p5", "minist"),
    ("k5_t8_p4", "root"),
    ("k5_t8_p4", "minist"),
    ("k5_t8_p5", "root"),
    ("k5_t8_p5", "minist"),
    ("k7_t8_p5", "root"),
    ("k7_t8_p5", "minist"),
]

# Every k and t once or more, p cycling through the smallest, a middle one and k; the gaussian mask where it differs.
SPREAD = [(k, t, [2, (k + 2) // 2, k][(k + t) % 3], "adaptive") for k in range(2, 10) for t in range(1, 17)]
SPREAD += [(k, t, p, "gaussian") for k, t, p in [(2, 1, 2), (2, 8, 2), (3, 6, 2), (3, 12, 3), (4, 4, 3), (4, 15, 4)]]
SPREAD += [(k, 4, k, "gaussian") for k in range(5, 10)]
SPREAD += [(2, 4, 2, "fading"), (3, 8, 2, "fading"), (4, 6, 3, "fading"), (5, 8, 3, "fading"), (7, 16, 5, "fading")]


def golden_sizes(size):
    return [int(part[1:]) for part in size.split("_")]


def columns(basis):
    return basis.values.reshape(-1, basis.rank).astype(np.float64)


def check_golden_matrices(golden, case, raw, smooth):
    """Projector and weighted Gram matrix, and that both use the golden file's upper triangles."""
    triangle = np.triu_indices(raw.shape[0])
    np.testing.assert_allclose((raw @ raw.T)[triangle], golden[f"{case}.projector_triu"], rtol=0, atol=MATRIX_ATOL)
    gram = (smooth @ smooth.T)[triangle]
    np.testing.assert_allclose(gram, golden[f"{case}.weighted_gram_triu"], rtol=0, atol=MATRIX_ATOL)


def golden_case(golden, size, variant):
    identical = isinstance(json.loads(str(golden["meta_json"]))["cases"][f"{size}.{variant}"], str)
    return f"{size}.root" if identical else f"{size}.{variant}"


def test_every_golden_case_is_listed(goldens):
    assert set(json.loads(str(goldens("basis")["meta_json"]))["cases"]) == {f"{s}.{v}" for s, v in GOLDEN_CASES}


@pytest.mark.parametrize(("size", "variant"), GOLDEN_CASES)
def test_golden_basis(goldens, size, variant):
    golden = goldens("basis")
    case = golden_case(golden, size, variant)
    k, t, p = golden_sizes(size)
    smooth = fourier_basis(k, t, p, mask=GOLDEN_MASKS[variant])
    raw = fourier_basis(k, t, p, smooth=False, mask=GOLDEN_MASKS[variant])

    rank = int(golden[f"{case}.rank"])
    assert smooth.rank == raw.rank == rank
    assert smooth.values.shape == (k, k, t, rank) and smooth.values.dtype == np.float32
    expected = golden[f"{case}.singular_values64"]
    assert smooth.singular_values.shape == (2 * p * p,)
    np.testing.assert_allclose(smooth.singular_values[:rank], expected[:rank], rtol=SINGULAR_RTOL)
    assert np.all(smooth.singular_values[rank:] < 1e-4) and np.all(np.diff(smooth.singular_values) <= 0)
    np.testing.assert_allclose(
        np.sort(smooth.weights)[::-1], golden[f"{case}.weight_sorted64"], rtol=WEIGHT_RTOL, atol=0
    )
    np.testing.assert_array_equal(raw.weights, smooth.weights)
    check_golden_matrices(golden, case, columns(raw), columns(smooth))


@functools.cache
def oracle_matrices(oracle, k, t, p, mask):
    functions, singular = oracle.functions(k, t, p, mask)
    weighted = functions * oracle.smoothing_weights(functions, k, t)
    return singular, functions.shape[1], functions @ functions.T, weighted @ weighted.T


@pytest.mark.parametrize("k", range(2, 10))
def test_oracle(oracle, k):
    for _, t, p, mask in (sizes for sizes in SPREAD if sizes[0] == k):
        singular, rank, projector, gram = oracle_matrices(oracle, k, t, p, mask)
        smooth = fourier_basis(k, t, p, mask=mask)
        raw = columns(fourier_basis(k, t, p, smooth=False, mask=mask))
        message = f"k={k} t={t} p={p} {mask}"
        assert smooth.rank == rank, message
        np.testing.assert_allclose(smooth.singular_values[:rank], singular[:rank], rtol=SINGULAR_RTOL, err_msg=message)
        np.testing.assert_allclose(raw @ raw.T, projector, rtol=0, atol=MATRIX_ATOL, err_msg=message)
        smoothed = columns(smooth)
        np.testing.assert_allclose(smoothed @ smoothed.T, gram, rtol=0, atol=MATRIX_ATOL, err_msg=message)
        np.testing.assert_allclose(smoothed, raw * smooth.weights, rtol=1e-5, atol=1e-7, err_msg=message)


def test_a_quarter_turn_of_a_function_is_the_same_function_a_quarter_later():
    """F at rotation o + t/4 is rot90 of F at o; turned the other way it is not."""
    for k, t in ((3, 4), (4, 8), (5, 8), (7, 12)):
        values = fourier_basis(k, t).values
        turned = np.rot90(values, 1, (0, 1))
        np.testing.assert_allclose(turned, np.roll(values, -t // 4, axis=2), rtol=0, atol=MATRIX_ATOL)
        assert np.abs(turned - np.roll(values, t // 4, axis=2)).max() > 0.1


def by_eigenvalues(candidates):
    values, vectors = np.linalg.eigh(candidates.T @ candidates)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    rank = int(np.sum(values > 1e-4))
    return candidates @ vectors[:, :rank] / np.sqrt(values[:rank]), values


def by_singular_values_of_the_candidates(candidates):
    left, roots, _ = np.linalg.svd(candidates, full_matrices=False)
    values = np.zeros(candidates.shape[1])
    values[: len(roots)] = roots**2
    return left[:, : int(np.sum(values > 1e-4))], values


def mixed_at_random(candidates, decompose=fconv_jax.basis._decompose):
    """Any orthogonal mixture inside equal singular values, and any sign, is as good a decomposition."""
    functions, values = decompose(candidates)
    functions, kept = functions.copy(), values[: functions.shape[1]]
    random = np.random.RandomState(1)
    ends = np.flatnonzero(-np.diff(kept) > EQUAL_RTOL * kept[:-1]) + 1
    for block in np.split(np.arange(len(kept)), ends):
        mixture, _ = np.linalg.qr(random.normal(size=(len(block), len(block))))
        functions[:, block] = functions[:, block] @ mixture
    return functions, values


DECOMPOSITIONS = [by_eigenvalues, by_singular_values_of_the_candidates, mixed_at_random]


@pytest.mark.parametrize("decompose", DECOMPOSITIONS)
def test_the_basis_does_not_depend_on_the_decomposition(monkeypatch, decompose):
    expected = [fourier_basis(k, t, p, mask=mask) for k, t, p, mask in SPREAD]
    monkeypatch.setattr(fconv_jax.basis, "_decompose", decompose)
    for sizes, basis in zip(SPREAD, expected, strict=True):
        k, t, p, mask = sizes
        other = fourier_basis.__wrapped__(k, t, p, mask=mask)
        np.testing.assert_allclose(other.values, basis.values, rtol=0, atol=CANONICAL_ATOL, err_msg=f"{sizes}")


def test_without_canonical_blocks_the_basis_does_depend_on_the_decomposition(monkeypatch):
    """Negative control of the test above."""
    expected = fourier_basis(5, 8)
    monkeypatch.setattr(fconv_jax.basis, "_canonical", lambda functions, values: functions)
    monkeypatch.setattr(fconv_jax.basis, "_decompose", mixed_at_random)
    assert np.abs(fourier_basis.__wrapped__(5, 8).values - expected.values).max() > 0.1


@pytest.mark.parametrize("decompose", DECOMPOSITIONS)
def test_golden_matrices_hold_for_every_decomposition(monkeypatch, goldens, decompose):
    golden = goldens("basis")
    monkeypatch.setattr(fconv_jax.basis, "_decompose", decompose)
    for size, variant in GOLDEN_CASES:
        k, t, p = golden_sizes(size)
        options = {"mask": GOLDEN_MASKS[variant]}
        raw = fourier_basis.__wrapped__(k, t, p, smooth=False, **options)
        smooth = fourier_basis.__wrapped__(k, t, p, **options)
        check_golden_matrices(golden, golden_case(golden, size, variant), columns(raw), columns(smooth))


DIGEST = """
import hashlib, fconv_jax
sizes = [(3, 8), (5, 8), (4, 6), (7, 12, 5), (9, 16)]
digest = hashlib.sha256()
for size in sizes:
    digest.update(fconv_jax.fourier_basis(*size).values.tobytes())
digest.update(fconv_jax.bicubic_basis(5, 8).values.tobytes())
print(digest.hexdigest())
"""


def test_two_processes_build_the_same_bytes():
    """A fresh process against this one, which has built other bases before."""
    child = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    digest = hashlib.sha256()
    for size in [(3, 8), (5, 8), (4, 6), (7, 12, 5), (9, 16)]:
        digest.update(fourier_basis.__wrapped__(*size).values.tobytes())
    digest.update(bicubic_basis.__wrapped__(5, 8).values.tobytes())
    assert child.stdout.strip() == digest.hexdigest()


def test_cached_and_read_only():
    for build, sizes in ((fourier_basis, (5, 8)), (bicubic_basis, (5, 8))):
        basis = build(*sizes)
        assert build(*sizes) is basis
        for array in (basis.values, basis.singular_values, basis.weights):
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0.0


def test_thirty_bases_of_one_size_take_under_a_second():
    """Wall time of the fastest of three, since a test machine may be busy; one build serves all thirty."""
    seconds = []
    for _ in range(3):
        fourier_basis.cache_clear()
        start = time.perf_counter()
        bases = {id(fconv_jax.basis.layer_basis("fourier", 7, 8, 5, True, "adaptive")) for _ in range(30)}
        seconds.append(time.perf_counter() - start)
        assert len(bases) == 1
    assert min(seconds) < 1.0


@pytest.mark.parametrize(("k", "t"), [(3, 1), (3, 8), (5, 4), (5, 8), (7, 12)])
def test_bicubic_basis(oracle, k, t):
    basis = bicubic_basis(k, t)
    assert basis.rank == k * k
    # Entries are at most 1; the only difference is rounding to float32.
    np.testing.assert_allclose(basis.values, oracle.bicubic(k, t), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(basis.weights, np.ones(k * k))
    matrix = oracle.bicubic(k, t).reshape(-1, k * k)
    expected = np.linalg.eigvalsh(matrix.T @ matrix)[::-1]
    np.testing.assert_allclose(basis.singular_values, expected, rtol=0, atol=1e-9 * expected[0])


def test_bicubic_basis_at_rotation_zero_is_one_pixel_each():
    values = bicubic_basis(5, 4).values[:, :, 0].reshape(25, 25)
    np.testing.assert_allclose(values, np.eye(25), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 8), r"kernel_size \(=1\) must be at least 2"),
        ((0, 8), r"kernel_size \(=0\) must be at least 2"),
        ((-3, 8), r"kernel_size \(=-3\) must be at least 2"),
        ((5.0, 8), r"kernel_size \(=5.0\) must be a whole number"),
        ((True, 8), r"kernel_size \(=True\) must be a whole number"),
        (("5", 8), r"kernel_size \(='5'\) must be a whole number"),
        ((5, 0), r"num_rotations \(=0\) must be at least 1"),
        ((5, -4), r"num_rotations \(=-4\) must be at least 1"),
        ((5, 8.0), r"num_rotations \(=8.0\) must be a whole number"),
        ((5, True), r"num_rotations \(=True\) must be a whole number"),
        ((5, None), r"num_rotations \(=None\) must be a whole number"),
        ((5, 8, 1), r"num_frequencies \(=1\) must be between 2 and kernel_size \(=5\)"),
        ((5, 8, 6), r"num_frequencies \(=6\) must be between 2 and kernel_size \(=5\)"),
        ((5, 8, 4.0), r"num_frequencies \(=4.0\) must be a whole number"),
    ],
)
def test_impossible_sizes(arguments, message):
    fourier_basis(5, 8), fourier_basis(5, 1), fourier_basis(5, 8, 4)  # equal keys, but whole numbers, are in the cache
    with pytest.raises(ValueError, match=message):
        fourier_basis(*arguments)


def test_unknown_mask_and_basis():
    with pytest.raises(ValueError, match=r"mask \(='round'\) must be one of adaptive, gaussian, fading"):
        fourier_basis(5, 8, mask="round")
    with pytest.raises(ValueError, match=r"basis \(='wavelet'\) must be 'fourier' or 'bicubic'"):
        fconv_jax.basis.layer_basis("wavelet", 5, 8, None, True, "adaptive")


def test_impossible_bicubic_bases():
    with pytest.raises(ValueError, match=r"kernel_size \(=4\) must be odd"):
        bicubic_basis(4, 8)
    with pytest.raises(ValueError, match=r"kernel_size \(=1\) must be at least 2"):
        bicubic_basis(1, 8)
    with pytest.raises(ValueError, match=r"num_frequencies \(=3\) must be None for the bicubic basis"):
        fconv_jax.basis.layer_basis("bicubic", 5, 8, 3, True, "adaptive")


def test_numpy_integers_are_whole_numbers():
    np.testing.assert_array_equal(fourier_basis(np.int64(3), np.int32(4)).values, fourier_basis(3, 4).values)
