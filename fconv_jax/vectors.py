"""Fields to vectors and back.

Vectors are `[batch, height, width, 2, channel]`, components (along rows, along columns), as `jnp.gradient` of an image
over axes 1 and 2.  An element moves a vector's pixel and rotates (or mirrors) its components.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fconv_jax._observed import observed
from fconv_jax.group import Group, as_group


@functools.partial(observed, always=False)
def to_vectors(field: jax.Array, group: Group | int) -> jax.Array:
    """Returns the vector that a field's elements point to.

        v[b, i, j, :, c] = (2 / g) sum_e d(e) f[b, i, j, e, c],

    where d(e) is the direction (0, 1), to the right, moved by element e: rotated by theta (-sin theta, cos theta),
    after a mirror (sin theta, -cos theta).  It is the field's first Fourier coefficient over the group.

    Law: to_vectors(e f) = e to_vectors(f) at each pixel, for every element of the group, exactly.

    Args:
      field: `[batch, height, width, g, channel]`.
      group: the field's, of at least 3 rotations: with fewer the directions sum to one line or nothing.

    Returns:
      `[batch, height, width, 2, channel]`.

    Raises:
      ValueError: a field of another group, or fewer than 3 rotations.

    >>> import jax.numpy as jnp, fconv_jax
    >>> field = jnp.zeros((1, 1, 1, 4, 1)).at[..., 1, :].set(2.0)  # "up"
    >>> fconv_jax.to_vectors(field, 4).ravel().round(6).tolist()
    [-1.0, 0.0]
    """
    field, group = jnp.asarray(field), checked_group(group)
    _check(field, group.order, "field", f"{group.order} of {group}")
    weights = jnp.asarray(2.0 / group.order * directions(group), _floating(field))
    return jnp.einsum("...ec,ve->...vc", field.astype(weights.dtype), weights, precision=jax.lax.Precision.HIGHEST)


@functools.partial(observed, always=False)
def from_vectors(vectors: jax.Array, group: Group | int) -> jax.Array:
    """Returns the field of a vector's component along each element's direction: f[..., e, c] = d(e) . v[..., :, c].

    `to_vectors` of it is the vector again.  d(e): as in `to_vectors`.

    Law: from_vectors(e v) = e from_vectors(v) at each pixel, for every element of the group, exactly.

    Args:
      vectors: `[batch, height, width, 2, channel]`.
      group: the field's, of at least 3 rotations.

    Returns:
      `[batch, height, width, g, channel]`.

    Raises:
      ValueError: an array of another shape, or fewer than 3 rotations.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.from_vectors(jnp.ones((1, 5, 5, 2, 3)), 8).shape
    (1, 5, 5, 8, 3)
    """
    vectors, group = jnp.asarray(vectors), checked_group(group)
    _check(vectors, 2, "vectors", "2 components")
    weights = jnp.asarray(directions(group), _floating(vectors))
    return jnp.einsum("...vc,ve->...ec", vectors.astype(weights.dtype), weights, precision=jax.lax.Precision.HIGHEST)


def checked_group(group: Group | int) -> Group:
    """A group whose directions span the plane.

    Raises:
      ValueError: one of fewer than 3 rotations.
    """
    group = as_group(group)
    if group.num_rotations < 3:
        raise ValueError(f"group (={group}) must have at least 3 rotations: the directions of fewer span no plane")
    return group


def _check(x, size, name, what):
    if x.ndim < 2 or x.shape[-2] != size:
        raise ValueError(f"{name} of shape {x.shape} must be [batch, height, width, {size}, channel], with {what}")


def _floating(x):
    return x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.float32


def directions(group: Group) -> np.ndarray:
    """Returns `[2, g]`, each element's direction (row, column), float64."""
    angles = 2.0 * np.pi * np.arange(group.num_rotations) / group.num_rotations
    right = np.stack([-np.sin(angles), np.cos(angles)])
    return np.concatenate([right, -right], axis=1) if group.reflections else right
