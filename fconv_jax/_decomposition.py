"""Orthonormal functions from the candidates of a Fourier basis, the same ones whatever the decomposition.

Singular vectors are unique only up to sign and up to a rotation among equal singular values, so the basis is made
*canonical* here: a checkpoint means the same filter on every machine and with every decomposition.
"""

import numpy as np

# Singular values of the Gram matrix up to this are noise (or functions that vanish on the grid).
_SMALLEST_SINGULAR_VALUE = 1e-4
_LARGE_GRAM = 2 * 11**2  # a side up to which one Gram matrix is decomposed, in well under a second
# Singular values closer than this relative distance are one block.  Over k = 2..9, t = 1..16 and
# p = 2..k, values that are equal by symmetry agree to 2e-11, and a decomposition tells functions
# 1e-7 apart from each other to 1e-8.  A few values differ by less than that by chance; sharing a
# block changes their weighted Gram matrix by less than 1e-7 (measured over all these sizes).
_BLOCK_TOLERANCE = 1e-7
# Seed of the fixed vectors that are projected onto a block; part of what a checkpoint means.
_CANONICAL_SEED = 20220304


def decompose(candidates: np.ndarray, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kept columns of A U / sqrt(S) `[n, r]` of candidates A `[n, 2 p^2]`, A^T A = U S U^T, and all of S.

    S falls.  What is kept spans the same functions on every machine; `canonical` makes them the same.
    """
    return _decompose(candidates) if 2 * p * p <= _LARGE_GRAM else _decompose_distinct(candidates, p)


def _decompose(candidates):
    """The kept columns of A U / sqrt(S) `[n, r]` and all of S, falling."""
    vectors, singular_values, _ = np.linalg.svd(candidates.T @ candidates)
    rank = int(np.sum(singular_values > _SMALLEST_SINGULAR_VALUE))
    return candidates @ vectors[:, :rank] / np.sqrt(singular_values[:rank]), singular_values


def _decompose_distinct(candidates, p):
    """As `_decompose`, through two Gram matrices of about p^2 / 2 rows in place of one of 2 p^2.

    Cosines and sines are orthogonal (even and odd on the kernel), and the frequencies (a, b) and (-a, -b) give the same
    function up to its sign: one of both, times sqrt(2), leaves A A^T as it is.
    """
    a, b = np.divmod(np.arange(p * p), p)
    index = np.arange(p)
    negative = np.where(index == p / 2, -1, -index % p)  # p / 2 stands alone
    partner = np.where((negative[a] < 0) | (negative[b] < 0), a * p + b, negative[a] * p + negative[b])
    kept = np.flatnonzero(partner >= a * p + b)
    scale = np.where(partner[kept] == kept, 1.0, np.sqrt(2.0))
    parts = [_decompose(part[:, kept] * scale) for part in np.split(candidates, 2, axis=1)]
    values = np.concatenate([singular_values[: functions.shape[1]] for functions, singular_values in parts])
    order = np.argsort(-values, kind="stable")
    functions = np.concatenate([functions for functions, _ in parts], axis=1)[:, order]
    return functions, np.concatenate([values[order], np.zeros(2 * p * p - len(values))])


def canonical(functions: np.ndarray, singular_values: np.ndarray) -> np.ndarray:
    """Returns functions `[n, r]` with each block's columns replaced by ones that depend on the block's span alone."""
    fixed = np.random.RandomState(_CANONICAL_SEED).uniform(-1.0, 1.0, functions.shape)  # a frozen stream
    ends = np.flatnonzero(-np.diff(singular_values) > _BLOCK_TOLERANCE * singular_values[:-1]) + 1
    blocks = np.split(np.arange(len(singular_values)), ends)
    return np.concatenate([_canonical_block(functions[:, b], fixed[:, b]) for b in blocks], axis=1)


def _canonical_block(functions, fixed):
    # QR with a positive diagonal of the fixed vectors' coordinates in the block: Q follows the
    # block's columns, so the product does not depend on which orthonormal columns came in.
    q, r = np.linalg.qr(functions.T @ fixed)
    return functions @ (q * np.where(np.diag(r) < 0.0, -1.0, 1.0))
