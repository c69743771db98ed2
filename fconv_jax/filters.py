"""From coefficients and a basis to convolution kernels.

Each function takes the basis values `[k, k, t, r]` as an argument, so that any basis can be
used.  t is the number of rotations, r the number of basis functions; n counts input features
and m output features.  Kernels are cross-correlation kernels, row and column first.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fconv_jax._checks import whole


def rotation_shift(num_rotations: int) -> np.ndarray:
    """Returns the index table `[t_in, t_out]` with entry (a, o) = (a - o) mod t.

    A group filter turned by o sees the input rotations shifted cyclically by o.
    """
    num_rotations = whole("num_rotations", num_rotations)
    rotations = np.arange(num_rotations)
    return (rotations[:, None] - rotations) % num_rotations


@jax.jit
def lifting_filter(coefficients: jax.Array, basis: jax.Array) -> jax.Array:
    """Filters from images to fields: F[i, j, n, o, m] = sum_r basis[i, j, o, r] c[n, m, r].

    Args:
      coefficients: c `[in, out, r]`.
      basis: `[k, k, t, r]`.

    Returns:
      `[k, k, in, t, out]`.
    """
    _check_rank(coefficients, basis, 3)
    return jnp.einsum("ijor,nmr->ijnom", basis, coefficients)


@jax.jit
def group_filter(coefficients: jax.Array, basis: jax.Array) -> jax.Array:
    """Filters from fields to fields: F[i, j, a, n, o, m] = sum_r basis[i, j, o, r] c[(a-o) mod t, n, m, r].

    Args:
      coefficients: c `[t, in, out, r]`, one set for each relative rotation.
      basis: `[k, k, t, r]`.

    Returns:
      `[k, k, t_in, in, t_out, out]`.
    """
    _check_rank(coefficients, basis, 4)
    if coefficients.shape[0] != basis.shape[2]:
        raise ValueError(
            f"coefficients have {coefficients.shape[0]} rotations on their first axis, the basis has {basis.shape[2]}"
        )
    # A product with zeros and ones: exact, and it compiles and differentiates quicker than an indexed array.
    rotations = np.arange(basis.shape[2])
    chosen = (rotation_shift(basis.shape[2])[..., None] == rotations).astype(coefficients.dtype)
    shifted = jnp.einsum("aos,snmr->aonmr", chosen, coefficients, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("ijor,aonmr->ijanom", basis, shifted)


@jax.jit
def projecting_filter(coefficients: jax.Array, basis: jax.Array) -> jax.Array:
    """Filters from fields to images: F[i, j, o, n, m] = sum_r basis[i, j, o, r] c[n, m, r].

    Args:
      coefficients: c `[in, out, r]`.
      basis: `[k, k, t, r]`.

    Returns:
      `[k, k, t_in, in, out]`.
    """
    _check_rank(coefficients, basis, 3)
    return jnp.einsum("ijor,nmr->ijonm", basis, coefficients)


@jax.jit
def pointwise_filter(coefficients: jax.Array) -> jax.Array:
    """1 x 1 filters from fields to fields: F[a, n, o, m] = c[(a - o) mod t, n, m].

    Args:
      coefficients: c `[t, in, out]`.

    Returns:
      `[t_in, in, t_out, out]`.
    """
    if coefficients.ndim != 3:
        raise ValueError(f"coefficients of shape {coefficients.shape} must have three axes [t, in, out]")
    return coefficients[rotation_shift(coefficients.shape[0])].transpose(0, 2, 1, 3)


def _check_rank(coefficients, basis, num_axes):
    if coefficients.ndim != num_axes or basis.ndim != 4:
        raise ValueError(
            f"coefficients of shape {coefficients.shape} must have {num_axes} axes, a basis {basis.shape} four"
        )
    if coefficients.shape[-1] != basis.shape[-1]:
        raise ValueError(
            f"coefficients have {coefficients.shape[-1]} numbers a filter, the basis has {basis.shape[-1]} functions"
        )
