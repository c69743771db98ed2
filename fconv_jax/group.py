"""Groups of rotations, with and without reflections, as tables of their elements.

Element e = s t + o of a group with t rotations: mirror first if s = 1 (columns reversed), then rotate by 2 pi o / t,
the way of `jnp.rot90`.  Bases, filters, layers, pools and transforms all use these tables.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax._checks import flag, whole
from fconv_jax._observed import observed, tell


@dataclasses.dataclass(frozen=True)
class Group:
    """C_t, the t rotations by multiples of 2 pi / t; with reflections D_t, these and their mirror images.

        (s, o) (s', o') = (s + s' mod 2, o + (-1)^s o' mod t),     e = s t + o.

    An element g acts on a field f by moving its pixels and (g f)[h] = f[g^-1 h]: a rotation by 2 pi / t moves element
    o to o + 1 in each half.  Groups are hashable and compare by value.  Where a function takes a group, an int t means
    `Group(t)`.

    Args:
      num_rotations: t, at least 1.
      reflections: whether mirror images belong to it.

    Raises:
      ValueError: a number of rotations below 1, or reflections that are not a bool.

    >>> import fconv_jax
    >>> group = fconv_jax.Group(4, reflections=True)
    >>> group.order, group.product[1, 4].item(), group.inverse[5].item()  # a mirror image, rotated
    (8, 5, 5)
    """

    num_rotations: int
    reflections: bool = False

    def __post_init__(self):
        object.__setattr__(self, "num_rotations", whole("num_rotations", self.num_rotations))
        object.__setattr__(self, "reflections", flag("reflections", self.reflections))

    def __str__(self) -> str:
        return f"{'D' if self.reflections else 'C'}{self.num_rotations}"

    @property
    def order(self) -> int:
        """The number of elements, t or 2 t."""
        return self.num_rotations * (2 if self.reflections else 1)

    @property
    def product(self) -> np.ndarray:
        """`[order, order]`, entry (e, f) the index of e f (f first); read-only."""
        return _tables(self)[0]

    @property
    def inverse(self) -> np.ndarray:
        """`[order]`, the index of each element's inverse; read-only."""
        return _tables(self)[1]

    @property
    def relative(self) -> np.ndarray:
        """`[order, order]`, entry (a, o) the index of o^-1 a; read-only."""
        return _tables(self)[2]

    @property
    def keeps_grid(self) -> bool:
        """Whether quarter turns belong to it: these, and its mirrors, move pixels onto pixels."""
        return self.num_rotations % 4 == 0

    def cosets(self, subgroup: "Group | int") -> np.ndarray:
        """Returns `[subgroup.order, index]`, the elements h g_i of each coset, representatives g_i ascending.

        Raises:
          ValueError: not a subgroup.
        """
        return _cosets(self, as_group(subgroup, "subgroup"))


def as_group(group: Group | int, name: str = "group") -> Group:
    """Returns a group; an int t means `Group(t)`."""
    return group if isinstance(group, Group) else Group(whole(name, group, rule="a Group or a number of rotations"))


def group_of(module: Any) -> Group | None:
    """Returns the group of an F-Conv layer; `None` of what has none."""
    group = getattr(module, "group", None)
    return group if isinstance(group, Group) else None


def groups_in(function: Any) -> dict[int, tuple[Group, ...]]:
    """Returns {order: groups} of the layers in a module (C8 and D4 both have 8 elements); empty for other functions."""
    modules = nnx.iter_modules(function) if isinstance(function, nnx.Module) else ()
    groups = sorted({group for _, module in modules if (group := group_of(module))}, key=str)
    return {order: tuple(group for group in groups if group.order == order) for order in {g.order for g in groups}}


@functools.partial(observed, always=False)
def restrict(field: jax.Array, group: Group | int, subgroup: Group | int) -> jax.Array:
    """Reads a field of a group as one of a subgroup: out[..., h, i c + j] = f[..., h g_i, j].

    No number is lost: each of the `index` cosets of the subgroup becomes features of its own (`field[..., ::2, :]`
    would drop half of them).

    Law: restrict(h f) = h restrict(f) for each h of the subgroup, exactly.

    Args:
      field: `[..., group.order, c]`.
      group: the field's.
      subgroup: C_t of C_T or D_T, or D_t of D_T, where t divides T.

    Returns:
      `[..., subgroup.order, c index]`, index = group.order / subgroup.order.

    Raises:
      ValueError: not a subgroup, or a field of another group.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.restrict(jnp.ones((1, 5, 5, 8, 3)), 8, 4).shape
    (1, 5, 5, 4, 6)
    """
    group = as_group(group)
    cosets = group.cosets(subgroup)
    tell(group, as_group(subgroup))
    if field.ndim < 2 or field.shape[-2] != group.order:
        raise ValueError(f"field of shape {field.shape} must be [..., {group.order}, channel] for {group}")
    # One slice for each element: an indexed array would need its sharding said on explicit meshes.
    rows = [jnp.concatenate([field[..., e, :] for e in row], axis=-1) for row in cosets.tolist()]
    return jnp.stack(rows, axis=-2)


@functools.cache
def _tables(group):
    t, elements = group.num_rotations, np.arange(group.order)
    s, o = np.divmod(elements, t)
    sign = np.where(s == 1, -1, 1)
    product = (s[:, None] ^ s) * t + (o[:, None] + sign[:, None] * o) % t
    inverse = np.argmax(product == 0, axis=1)
    relative = product[inverse].T
    for table in (product, inverse, relative):
        table.setflags(write=False)
    return product, inverse, relative


@functools.cache
def _cosets(group, subgroup):
    t = subgroup.num_rotations
    if group.num_rotations % t or (subgroup.reflections and not group.reflections):
        raise ValueError(
            f"{subgroup} is not a subgroup of {group}: its rotations must divide, its reflections be in it"
        )
    step = group.num_rotations // t
    s, o = np.divmod(np.arange(subgroup.order), t)
    inside = s * group.num_rotations + o * step  # the subgroup's elements in the group
    remaining, rows = set(range(group.order)), []
    while remaining:
        rows.append(group.product[inside, min(remaining)])
        remaining -= set(rows[-1].tolist())
    table = np.stack(rows, axis=1)
    table.setflags(write=False)
    return table
