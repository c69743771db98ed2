"""From coefficients and a basis to convolution kernels.

Each function takes the basis values `[k, k, g, r]` as an argument, so that any basis can be
used.  g is the group's order, r the number of basis functions; n counts input features
and m output features.  Kernels are cross-correlation kernels, row and column first.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fconv_jax.group import Group, as_group

_EXACT = jax.lax.Precision.HIGHEST  # a GPU's default product of float32 has 10 bits


@jax.jit
def lifting_filter(coefficients: jax.Array, basis: jax.Array) -> jax.Array:
    """Filters from images to fields: F[i, j, n, o, m] = sum_r basis[i, j, o, r] c[n, m, r].

    Args:
      coefficients: c `[in, out, r]`.
      basis: `[k, k, g, r]`.

    Returns:
      `[k, k, in, g, out]`.
    """
    _check_rank(coefficients, basis, 3)
    return jnp.einsum("ijor,nmr->ijnom", basis, coefficients, precision=_EXACT)


def group_filter(coefficients: jax.Array, basis: jax.Array, group: Group | int | None = None) -> jax.Array:
    """Filters from fields to fields: F[i, j, a, n, o, m] = sum_r basis[i, j, o, r] c[o^-1 a, n, m, r].

    Args:
      coefficients: c `[g, in, out, r]`, one set for each relative element.
      basis: `[k, k, g, r]`.
      group: of the basis; `None` means g rotations, where o^-1 a is (a - o) mod g.

    Returns:
      `[k, k, g_in, in, g_out, out]`.

    Raises:
      ValueError: a group of another order, or arrays that do not fit.
    """
    _check_rank(coefficients, basis, 4)
    group = as_group(basis.shape[2] if group is None else group)
    if not coefficients.shape[0] == basis.shape[2] == group.order:
        raise ValueError(
            f"coefficients have {coefficients.shape[0]} elements on their first axis, the basis has {basis.shape[2]}, "
            f"the group {group} {group.order}"
        )
    return _group_filter(coefficients, basis, group=group)


@functools.partial(jax.jit, static_argnames="group")
def _group_filter(coefficients, basis, *, group):
    # All pairs of o and s in one product, then each o beside its s = o^-1 a: half the time of choosing s before it.
    k, (t, n, m, r) = basis.shape[0], coefficients.shape
    pairs = jnp.matmul(basis.reshape(-1, r), coefficients.transpose(3, 0, 1, 2).reshape(r, -1), precision=_EXACT)
    chosen = np.arange(t) * t + group.relative  # [a, o], each pair once
    filters = pairs.reshape(k, k, t * t, n, m).at[:, :, chosen].get(unique_indices=True, mode="promise_in_bounds")
    return filters.transpose(0, 1, 2, 4, 3, 5)


@jax.jit
def projecting_filter(coefficients: jax.Array, basis: jax.Array) -> jax.Array:
    """Filters from fields to images: F[i, j, o, n, m] = sum_r basis[i, j, o, r] c[n, m, r].

    Args:
      coefficients: c `[in, out, r]`.
      basis: `[k, k, g, r]`.

    Returns:
      `[k, k, g_in, in, out]`.
    """
    _check_rank(coefficients, basis, 3)
    return jnp.einsum("ijor,nmr->ijonm", basis, coefficients, precision=_EXACT)


def _check_rank(coefficients, basis, num_axes):
    if coefficients.ndim != num_axes or basis.ndim != 4:
        raise ValueError(
            f"coefficients of shape {coefficients.shape} must have {num_axes} axes, a basis {basis.shape} four"
        )
    if coefficients.shape[-1] != basis.shape[-1]:
        raise ValueError(
            f"coefficients have {coefficients.shape[-1]} numbers a filter, the basis has {basis.shape[-1]} functions"
        )
