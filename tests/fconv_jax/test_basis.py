"""Bases against the reference's numbers and against loops, and canonical whatever the decomposition."""

import functools
import subprocess
import sys
import time

import numpy as np
import pytest

import fconv_jax.basis
from fconv_jax import Fourier, Group, bicubic_basis, fourier_basis
from tests import goldens
from tests.fconv_jax import oracle

# Tolerances of the reference's numbers, which were computed in float64 (golden README).
SINGULAR_RTOL = 1e-9
WEIGHT_RTOL = 1e-8
# Matrices of the basis: the reference's are stored in float32, and so are our values; entries are below 1.
MATRIX_ATOL = 1e-6
# "Canonical" for another decomposition: the figure; entries of the basis are below 1.
CANONICAL_ATOL = 1e-6
# Values that symmetry makes equal agree to 2e-11 in float64; no others of the sizes below come this close.
EQUAL_RTOL = 1e-9

MASKS = {"root": "adaptive", "minist": "gaussian"}
GOLDEN_SIZES = ["k3_t4_p3", "k3_t8_p3", "k5_t4_p5", "k5_t8_p4", "k5_t8_p5", "k7_t8_p5"]
GOLDEN_CASES = [f"{size}.{variant}" for size in GOLDEN_SIZES for variant in MASKS]

# Every k and t once or more, p cycling through the smallest, a middle one and k; the gaussian mask where it differs.
SPREAD = [(k, t, [2, (k + 2) // 2, k][(k + t) % 3], "adaptive") for k in range(2, 10) for t in range(1, 17)]
SPREAD += [(k, t, p, "gaussian") for k, t, p in [(2, 1, 2), (2, 8, 2), (3, 6, 2), (3, 12, 3), (4, 4, 3), (4, 15, 4)]]
SPREAD += [(k, 4, k, "gaussian") for k in range(5, 10)]
SPREAD += [(2, 4, 2, "fading"), (3, 8, 2, "fading"), (4, 6, 3, "fading"), (5, 8, 3, "fading"), (7, 16, 5, "fading")]
# The same for reflections: t = 1 to 16, all masks, few and all frequencies.
REFLECTED = [
    (k, Group(t, True), [2, (k + 2) // 2, k][(k + t) % 3], "adaptive") for k in (2, 3, 5, 6) for t in (1, 4, 7, 8)
]
REFLECTED += [(3, Group(8, True), 2, "fading"), (4, Group(12, True), 4, "gaussian"), (5, Group(16, True), 3, "fading")]


def columns(basis):
    return basis.values.reshape(-1, basis.rank).astype(np.float64)


def golden_bases(case):
    """The stored arrays' prefix, and our smoothed and raw bases, built anew."""
    size, variant = case.split(".")
    stored = f"{size}.root" if isinstance(goldens.meta("basis")["cases"][case], str) else case  # a name: the same
    k, t, p = (int(part[1:]) for part in size.split("_"))
    return stored, *(fourier_basis.__wrapped__(k, t, p, smooth=s, mask=MASKS[variant]) for s in (True, False))


def check_golden_matrices(golden, case, smooth, raw):
    """Projector and weighted Gram matrix, of which the file has the upper triangles."""
    smooth, raw = columns(smooth), columns(raw)
    triangle = np.triu_indices(raw.shape[0])
    for ours, name in ((raw, "projector"), (smooth, "weighted_gram")):
        np.testing.assert_allclose((ours @ ours.T)[triangle], golden[f"{case}.{name}_triu"], rtol=0, atol=MATRIX_ATOL)


def test_every_golden_case_is_listed():
    assert set(goldens.meta("basis")["cases"]) == set(GOLDEN_CASES)


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_basis(case):
    golden, (k, t, p) = goldens.load("basis"), (int(part[1:]) for part in case.split(".")[0].split("_"))
    case, smooth, raw = golden_bases(case)
    rank = int(golden[f"{case}.rank"])
    assert smooth.rank == raw.rank == rank
    assert (smooth.values.shape, smooth.values.dtype) == ((k, k, t, rank), np.float32)
    assert smooth.singular_values.shape == (2 * p * p,)
    expected = golden[f"{case}.singular_values64"]
    np.testing.assert_allclose(smooth.singular_values[:rank], expected[:rank], rtol=SINGULAR_RTOL)
    assert np.all(smooth.singular_values[rank:] < 1e-4)
    assert np.all(np.diff(smooth.singular_values) <= 0)
    weights = np.sort(smooth.weights)[::-1]
    np.testing.assert_allclose(weights, golden[f"{case}.weight_sorted64"], rtol=WEIGHT_RTOL, atol=0)
    np.testing.assert_array_equal(raw.weights, smooth.weights)
    check_golden_matrices(golden, case, smooth, raw)


@pytest.mark.parametrize("k", range(2, 10))
def test_oracle(k):
    for _, t, p, mask in (sizes for sizes in SPREAD if sizes[0] == k):
        functions, singular = oracle.functions(k, t, p, mask)
        weighted = functions * oracle.smoothing_weights(functions, k, t)
        smooth, raw = (fourier_basis(k, t, p, smooth=flag, mask=mask) for flag in (True, False))
        close = functools.partial(np.testing.assert_allclose, err_msg=f"k={k} t={t} p={p} {mask}")
        assert smooth.rank == functions.shape[1], f"k={k} t={t} p={p} {mask}"
        close(smooth.singular_values[: smooth.rank], singular[: smooth.rank], rtol=SINGULAR_RTOL)
        close(columns(raw) @ columns(raw).T, functions @ functions.T, rtol=0, atol=MATRIX_ATOL)
        close(columns(smooth) @ columns(smooth).T, weighted @ weighted.T, rtol=0, atol=MATRIX_ATOL)
        close(columns(smooth), columns(raw) * smooth.weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("k", "t"), [(3, 4), (4, 8), (5, 8), (7, 12)])
def test_a_function_rotated_by_90_degrees_is_itself_a_quarter_of_the_rotations_later(k, t):
    """F at rotation o + t/4 is rot90 of F at o; in the other direction it is not."""
    values = fourier_basis(k, t).values
    rotated = np.rot90(values, 1, (0, 1))
    np.testing.assert_allclose(rotated, np.roll(values, -t // 4, axis=2), rtol=0, atol=MATRIX_ATOL)
    assert np.abs(rotated - np.roll(values, t // 4, axis=2)).max() > 0.1


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


def mixed_at_random(candidates, decompose=fconv_jax._decomposition._decompose):
    """Any orthogonal mixture inside equal singular values, and any sign, is as good a decomposition."""
    functions, values = decompose(candidates)
    functions, kept = functions.copy(), values[: functions.shape[1]]
    random = np.random.RandomState(1)
    ends = np.flatnonzero(-np.diff(kept) > EQUAL_RTOL * kept[:-1]) + 1
    for block in np.split(np.arange(len(kept)), ends):
        mixture, _ = np.linalg.qr(random.normal(size=(len(block), len(block))))
        functions[:, block] = functions[:, block] @ mixture
    return functions, values


@pytest.mark.parametrize("decompose", [by_eigenvalues, by_singular_values_of_the_candidates, mixed_at_random])
def test_the_basis_does_not_depend_on_the_decomposition(monkeypatch, decompose):
    """Nor do the numbers of the reference hold for one decomposition only."""
    expected = [fourier_basis(k, t, p, mask=mask) for k, t, p, mask in SPREAD + REFLECTED]
    monkeypatch.setattr(fconv_jax._decomposition, "_decompose", decompose)
    for (k, t, p, mask), basis in zip(SPREAD + REFLECTED, expected, strict=True):
        other = fourier_basis.__wrapped__(k, t, p, mask=mask)
        message = f"k={k} t={t} p={p} {mask}"
        np.testing.assert_allclose(other.values, basis.values, rtol=0, atol=CANONICAL_ATOL, err_msg=message)
    for case in GOLDEN_CASES:
        check_golden_matrices(goldens.load("basis"), *golden_bases(case))


def test_without_canonical_blocks_the_basis_does_depend_on_the_decomposition(monkeypatch):
    """Negative control of the test above."""
    expected = {group: fourier_basis(5, group) for group in (8, Group(8, True))}
    monkeypatch.setattr(fconv_jax._decomposition, "canonical", lambda functions, values: functions)
    monkeypatch.setattr(fconv_jax._decomposition, "_decompose", mixed_at_random)
    for group, basis in expected.items():
        assert np.abs(fourier_basis.__wrapped__(5, group).values - basis.values).max() > 0.1


def test_a_function_of_reflections_is_its_mirror_image_at_the_mirrored_element():
    """F at s g is F at g with its columns reversed; with its rows reversed it is not."""
    group = Group(8, reflections=True)
    for values in (fourier_basis(5, group).values, bicubic_basis(5, group).values):
        moved = values[:, :, group.product[group.num_rotations]]
        np.testing.assert_allclose(values[:, ::-1], moved, rtol=0, atol=MATRIX_ATOL)
        assert np.abs(values[::-1] - moved).max() > 0.1


@pytest.mark.parametrize(("group", "is_whole"), [(4, True), (Group(4, True), True), (Group(2, True), False)], ids=str)
def test_the_adaptive_mask_is_whole_with_four_rotations_mirrored_or_not(group, is_whole):
    """Then, and only then, a constant is among the functions of few frequencies."""
    functions = columns(fourier_basis(5, group, 3, smooth=False))
    assert np.allclose(functions @ functions.sum(0), 1.0, atol=1e-5) == is_whole


DIGEST = """
import hashlib
from fconv_jax import Fourier, bicubic_basis, fourier_basis
digest = hashlib.sha256()
for size in [(3, 8), (5, 8), (4, 6), (7, 12, 5), (9, 16)]:
    digest.update(fourier_basis.__wrapped__(*size).values.tobytes())
digest.update(bicubic_basis.__wrapped__(5, 8).values.tobytes())
result = digest.hexdigest()
"""


def test_two_processes_build_the_same_bytes():
    """A fresh process against this one, which has built other bases before."""
    command = [sys.executable, "-c", DIGEST + "print(result)"]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    names = {}
    exec(DIGEST, names)
    assert child.stdout.strip() == names["result"]


@pytest.mark.parametrize("build", [fourier_basis, bicubic_basis])
def test_cached_and_read_only(build):
    basis = build(5, 8)
    assert build(5, 8) is basis
    for array in (basis.values, basis.singular_values, basis.weights):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_thirty_bases_of_one_size_take_under_a_second():
    """Wall time of the fastest of three, since a test machine may be busy; one build serves all thirty."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        fourier_basis.__wrapped__(7, 8, 5)
        bases = {id(Fourier(5, mask="adaptive").sampled(7, 8)) for _ in range(30)}
        seconds.append(time.perf_counter() - start)
        assert len(bases) == 1
    assert min(seconds) < 1.0


@pytest.mark.parametrize(("k", "t"), [(3, 1), (3, 8), (5, 4), (5, 8), (7, 12)])
def test_bicubic_basis(k, t):
    basis, expected = bicubic_basis(k, t), oracle.bicubic(k, t)
    assert basis.rank == k * k
    # Entries are at most 1; the only difference is rounding to float32.
    np.testing.assert_allclose(basis.values, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(basis.weights, np.ones(k * k))
    matrix = expected.reshape(-1, k * k)
    singular = np.linalg.eigvalsh(matrix.T @ matrix)[::-1]
    np.testing.assert_allclose(basis.singular_values, singular, rtol=0, atol=1e-9 * singular[0])


@pytest.mark.parametrize("group", [4, Group(4, True)], ids=str)
def test_bicubic_basis_at_rotation_zero_is_one_pixel_each(group):
    values = bicubic_basis(5, group).values[:, :, 0].reshape(25, 25)
    np.testing.assert_allclose(values, np.eye(25), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (fourier_basis, (0, 8), r"kernel_size \(=0\) must be a whole number of at least 1"),
        (fourier_basis, (-3, 8), r"kernel_size \(=-3\) must be a whole number of at least 1"),
        (fourier_basis, (5.0, 8), r"kernel_size \(=5.0\) must be a whole number"),
        (fourier_basis, (True, 8), r"kernel_size \(=True\) must be a whole number"),
        (fourier_basis, ("5", 8), r"kernel_size \(='5'\) must be a whole number"),
        (fourier_basis, (5, 0), r"group \(=0\) must be a Group or a number of rotations of at least 1"),
        (fourier_basis, (5, -4), r"group \(=-4\) must be a Group or a number"),
        (fourier_basis, (5, 8.0), r"group \(=8.0\) must be a Group or a number"),
        (fourier_basis, (5, True), r"group \(=True\) must be a Group or a number"),
        (fourier_basis, (5, [8]), r"group \(=\[8\]\) must be a Group or a number"),
        (fourier_basis, (np.array([5]), 8), r"kernel_size \(=array\(\[5\]\)\) must be a whole number"),
        (bicubic_basis, ([5], 8), r"kernel_size \(=\[5\]\) must be a whole number"),
        (fourier_basis, (5, None), r"group \(=None\) must be a Group or a number"),
        (fourier_basis, (5, 8, 1), r"num_frequencies \(=1\) must be between 2 and kernel_size \(=5\)"),
        (fourier_basis, (5, 8, 6), r"num_frequencies \(=6\) must be between 2 and kernel_size \(=5\)"),
        (fourier_basis, (5, 8, 4.0), r"num_frequencies \(=4.0\) must be a whole number"),
        (
            functools.partial(fourier_basis, mask="round"),
            (5, 8),
            r"'round'\) must be one of adaptive, gaussian, fading",
        ),
        (bicubic_basis, (4, 8), r"kernel_size \(=4\) must be odd"),
        (fourier_basis, (1, 8, 1), r"num_frequencies \(=1\) must be between 2 and kernel_size \(=1\)"),
        (Fourier, ("some",), r"num_frequencies \(='some'\) must be 'few', 'all' or a whole number"),
        (
            Fourier,
            (np.array([1, 2]),),
            r"num_frequencies \(=array\(\[1, 2\]\)\) must be 'few', 'all' or a whole number",
        ),
        (functools.partial(Fourier, mask="round"), (), r"'round'\) must be one of adaptive, gaussian, fading"),
        (functools.partial(fourier_basis, smooth="no"), (5, 8), r"smooth \(='no'\) must be True or False"),
        (functools.partial(Fourier, smooth="no"), (), r"smooth \(='no'\) must be True or False"),
    ],
)
def test_impossible_bases(build, arguments, message):
    fourier_basis(5, 8), fourier_basis(5, 1), fourier_basis(5, 8, 4)  # equal keys, but whole numbers, are in the cache
    with pytest.raises(ValueError, match=message):
        build(*arguments)


def test_numpy_integers_are_whole_numbers():
    np.testing.assert_array_equal(fourier_basis(np.int64(3), np.int32(4)).values, fourier_basis(3, 4).values)


@pytest.mark.parametrize(
    ("k", "t", "p", "mask"), [(5, 8, 5, "adaptive"), (7, 8, 4, "fading"), (8, 8, 8, "fading"), (10, 6, 6, "gaussian")]
)
def test_distinct_functions_alone_give_the_same_basis(k, t, p, mask, monkeypatch):
    """What large kernels do: even and odd functions apart, each frequency once."""
    options = {"smooth": True, "mask": mask}
    whole = fconv_jax.basis.fourier_basis.__wrapped__(k, t, p, **options)
    monkeypatch.setattr(fconv_jax._decomposition, "_LARGE_GRAM", 0)
    distinct = fconv_jax.basis.fourier_basis.__wrapped__(k, t, p, **options)
    assert distinct.rank == whole.rank
    np.testing.assert_allclose(distinct.values, whole.values, rtol=0, atol=2e-8)
    np.testing.assert_allclose(distinct.weights, whole.weights, rtol=1e-9)
    kept = slice(whole.rank)
    np.testing.assert_allclose(distinct.singular_values[kept], whole.singular_values[kept], rtol=1e-9)
    assert distinct.singular_values.shape == whole.singular_values.shape


@pytest.mark.slow
def test_a_large_basis_takes_seconds():
    started = time.process_time()
    assert fconv_jax.basis.fourier_basis.__wrapped__(21, 8).rank == 441
    assert time.process_time() - started < 10
