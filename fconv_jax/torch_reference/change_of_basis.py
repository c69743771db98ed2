"""From the functions of a stored basis to those of ours."""

import numpy as np

# Relative distance that a stored function may have from our span: about 1e-7 in float32, above 1e-2 with
# another mask or number of frequencies.
_SPAN_TOLERANCE = 1e-5
# Smallest singular value of the stored functions at length 1: 1 for the reference's own, 0 where they repeat.
_SMALLEST_INDEPENDENCE = 1e-3


def change_of_basis(theirs, ours, name, reader):
    """M `[r, r]` with theirs = ours M, in float64; notes a problem unless both span the same space."""
    rank = ours.shape[-1]
    theirs, ours = theirs.reshape(-1, rank), ours.reshape(-1, rank).astype(np.float64)
    lengths = np.linalg.norm(theirs, axis=0)
    if not np.all(lengths):
        reader.problems.append(f"{name} holds functions that are zero everywhere")
        return np.zeros((rank, rank))
    # Smoothing makes some functions much shorter than others: an orthonormal basis of our span first.
    q, r = np.linalg.qr(ours)
    inside = q.T @ theirs
    outside = np.linalg.norm(theirs - q @ inside, axis=0) / lengths
    if np.max(outside) > _SPAN_TOLERANCE:
        reader.problems.append(
            f"{name} spans other filters than this layer's basis (relative distance {np.max(outside):.2g}): "
            "another mask, number of frequencies or kind of basis"
        )
    elif np.linalg.svd(inside / lengths, compute_uv=False)[-1] < _SMALLEST_INDEPENDENCE:
        reader.problems.append(f"{name} spans fewer filters than this layer's basis: its functions are dependent")
    return np.linalg.solve(r, inside)
