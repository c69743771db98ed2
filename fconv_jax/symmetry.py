"""How well a function keeps rotations and mirrors: equivariant is f(R x) = R f(x), invariant f(R x) = f(x)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fconv_jax._checks import finite
from fconv_jax._precision import relative_error, widened
from fconv_jax._precision import tolerance as tolerance_of
from fconv_jax.group import Group, as_group, groups_in
from fconv_jax.transforms import (
    inside_disk,
    mirror_field,
    mirror_image,
    mirror_vectors,
    rotate_field,
    rotate_image,
    rotate_vectors,
)

__all__ = [
    "KINDS",
    "TOLERANCE",
    "are_vectors",
    "assert_equivariant",
    "difference",
    "equivariance_error",
    "kinds_of",
    "moved",
]

TOLERANCE = 1e-5
"""A relative error above this is more than rounding in float32; for half precision the limit is 2 steps of the type."""

KINDS = ("scalar", "field", "vector")


def equivariance_error(
    function: Callable,
    x: jax.Array,
    angle: float = 90,
    *,
    mirror: bool = False,
    group: Group | int | None = None,
    margin: float | None = None,
    kind: Any = None,
) -> jax.Array:
    """Returns |f(R x) - R f(x)| / |R f(x)|, R the rotation by `angle`, | | the Euclidean norm over everything.

    What R does follows from the number of axes, of the input as of the output: an image (4) is rotated, a field (5)
    is rotated and moved along the group, `[batch, t, channel]` (3) is moved, and `[batch, ...]` with two axes or one
    is left alone (there equivariant means invariant).  `kind` tells the kind of the output where its axes do not.

    Args:
      function: f, from an image or a field to an array, or to a tuple or dict of arrays; deterministic.  A module is
        copied first, so that its running averages stay as they are.
      x: `[batch, height, width, channel]` or `[batch, height, width, t, channel]`.
      angle: degrees.  Multiples of 90 rotate pixels exactly.  Other angles interpolate, which adds an error of its own,
        and lose the corners (see `margin`); whole numbers then become float32.
      mirror: whether R mirrors (columns reversed) before it rotates; `angle=0, mirror=True` mirrors alone.
      group: of the fields; needed for one with reflections, unless `function` is an `nnx.Module` whose layers say it,
        and where those are of two groups of as many elements (C8 and D4).
      margin: measure inside a disk: input and output (if it has pixels) are multiplied by `disk_mask(size, margin)`.
      kind: of the output: `"scalar"`, an image (or `[batch, height, width]`); `"field"`; `"vector"`, vectors of two
        components, `[batch, height, width, 2, channel]` (or `[batch, 2, channel]`), which rotate with the pixels;
        `None`, by the number of axes; two on the group axis of a module without a group of two elements are components
        of vectors.  Of several arrays a tuple or dict of these, or one for all.

    Returns:
      a scalar, computed in float32 at least: 0 for exact equivariance, about 1.4 for unrelated outputs of equal norm;
      0 if both norms are 0; of several arrays the largest.

    Raises:
      ValueError: shapes that cannot be rotated or compared, a disk for an image that is not square, or kinds that are
        unknown or do not match the output; a field that `mirror` finds without reflections, or of another group.

    >>> import jax.numpy as jnp, fconv_jax
    >>> x = jnp.arange(49.0).reshape(1, 7, 7, 1)
    >>> float(fconv_jax.equivariance_error(fconv_jax.spatial_max_pool, x))
    0.0
    >>> float(fconv_jax.equivariance_error(lambda x: x[:, :6, :6], x)) > 0.01
    True
    >>> slope = lambda x: jnp.stack(jnp.gradient(x, axis=(1, 2)), axis=3)
    >>> float(fconv_jax.equivariance_error(slope, x, kind="vector"))
    0.0
    """
    return _error_and_types(function, x, angle, mirror, group, margin, kind)[0]


def assert_equivariant(
    function: Callable,
    x: jax.Array,
    angle: float = 90,
    *,
    mirror: bool = False,
    group: Group | int | None = None,
    margin: float | None = None,
    kind: Any = None,
    tolerance: float | None = None,
) -> None:
    """Raises an `AssertionError` with the measured error unless `equivariance_error` is at most `tolerance`.

    Args: those of `equivariance_error`, and `tolerance`: `None` suits quarter turns, 1e-5 in float32, and 2 steps
      of the type of the input or the output where that is coarser (0.002 in float16, 0.016 in bfloat16).

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.assert_equivariant(fconv_jax.spatial_mean_pool, jnp.ones((1, 5, 5, 8, 2)))
    """
    error, dtypes, guesses = _error_and_types(function, x, angle, mirror, group, margin, kind)
    error = float(error)
    tolerance = tolerance_of(*dtypes, least=TOLERANCE) if tolerance is None else tolerance
    if not error <= tolerance:
        where = f"{'a mirror and ' if mirror else ''}{angle:g} degrees"
        hint = f" (a field was taken for one of {' and '.join(guesses)}: give group= if not)" if guesses else ""
        raise AssertionError(f"relative equivariance error {error:.3g} at {where} is above {tolerance:g}{hint}")


# One program for each shape: its dozens of small ones, one after another, took most of the time of a measurement.
@functools.partial(jax.jit, static_argnames=("angle", "kind", "group", "mirror"))
def moved(
    x: jax.Array, angle: float, kind: str | None = None, group: Group | None = None, mirror: bool = False
) -> jax.Array:
    """Rotates what `kind`, or else the number of axes, says it is (see `equivariance_error`); `group`: a field's."""
    if x.ndim < 3:
        return x
    axes = {"scalar": (3, 4), "field": (3, 5), "vector": (3, 5), None: (3, 4, 5)}[kind]
    if x.ndim not in axes:
        raise ValueError(f"an array of shape {x.shape} is not {f'a {kind}' if kind else 'an image or a field'}")
    if kind == "vector":
        return rotate_vectors(mirror_vectors(x) if mirror else x, angle)
    if kind == "scalar" and x.ndim == 3:
        return moved(x[..., None], angle, mirror=mirror)[..., 0]
    if x.ndim == 4:
        return rotate_image(mirror_image(x) if mirror else x, angle)
    return rotate_field(mirror_field(x, group or x.shape[-2]) if mirror else x, angle, group)


@functools.partial(jax.jit, static_argnames=("angle", "kind", "group", "mirror", "margin"))
def difference(
    actual: jax.Array,
    before: jax.Array,
    angle: float,
    kind: str | None = None,
    group: Group | None = None,
    mirror: bool = False,
    margin: float | None = None,
) -> jax.Array:
    """Returns |actual - R before| / |R before|, R as in `moved`, in float32 at least, inside a disk if asked for."""
    if kind == "scalar" and actual.ndim == before.ndim == 3:
        actual, before = actual[..., None], before[..., None]
    expected = inside_disk(moved(widened(before), angle, kind, group, mirror), margin)
    if actual.shape != expected.shape:
        raise ValueError(
            f"the function's output is {actual.shape} for the rotated input, {expected.shape} when rotated"
        )
    return relative_error(inside_disk(widened(actual), margin), expected)


def kinds_of(y: Any, kind: Any) -> list[str | None]:
    """Returns the kind of each array of an output; a None in it is no array."""
    try:
        kinds = jax.tree.leaves(jax.tree.broadcast(kind, y, is_leaf=_is_none), is_leaf=_is_none)
        leaves = jax.tree.leaves(y, is_leaf=_is_none)
        kinds = [each for each, leaf in zip(kinds, leaves, strict=True) if leaf is not None]
    except ValueError:
        raise ValueError(f"kind (={kind!r}) must match the output: {jax.tree.structure(y)}") from None
    for each in kinds:
        if each is not None and each not in KINDS:
            raise ValueError(f"kind (={each!r}) must be one of {', '.join(KINDS)}, or None")
    return kinds


def are_vectors(y: jax.Array, groups: dict, kind: str | None) -> bool:
    """Whether an array of a network with layers of `groups` (by their orders) is vectors: no group has two elements."""
    return kind is None and y.ndim == 5 and y.shape[3] == 2 and 2 not in groups


def _is_none(kind):
    return kind is None


def _error_and_types(function, x, angle, mirror, group, margin, kind):
    """The error, the types of input and outputs, and the groups that were guessed from a field's axes.

    Outputs are compared, and rotated, in float32 at least.
    """
    if isinstance(function, nnx.Module):
        function = nnx.clone(function)  # a batch norm in training would take these images into its means
    guesses = {}
    margin = None if margin is None else finite("margin", margin)
    angle, x = finite("angle", angle, "number of degrees"), inside_disk(jnp.asarray(x), margin)
    if angle % 90 and not jnp.issubdtype(x.dtype, jnp.inexact):
        x = widened(x)  # rounding rotated pixels to whole numbers is not the function's error
    groups = groups_in(function)

    def group_of(y, kind=None):
        if group is not None:
            return as_group(group)
        found = groups.get(y.shape[-2] if y.ndim > 1 else 0, ())
        if len(found) > 1 and kind in (None, "field") and y.ndim in (3, 5):
            raise ValueError(f"a field of {y.shape[-2]} elements may be of {' or '.join(map(str, found))}: give group=")
        if not found and kind in (None, "field") and y.ndim in (3, 5):
            guesses[f"C{y.shape[-2]}"] = True
        return found[0] if found else None

    before, after = function(x), jax.tree.leaves(function(moved(x, angle, None, group_of(x), mirror)))
    kinds, before = kinds_of(before, kind), [jnp.asarray(y) for y in jax.tree.leaves(before)]
    if group is None and groups:
        kinds = ["vector" if are_vectors(y, groups, each) else each for y, each in zip(before, kinds, strict=True)]
    if not before:
        raise ValueError("the function returns no array")
    errors = [
        difference(actual, y, angle, each, group_of(y, each), mirror, margin)
        for y, actual, each in zip(before, after, kinds, strict=True)
    ]
    return functools.reduce(jnp.maximum, errors), (x.dtype, *(y.dtype for y in before)), list(guesses)
