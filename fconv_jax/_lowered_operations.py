"""Primitives of jax as steps of a plain network.

Each function is given the lowering, the equation's parameters, its inputs (`Value`s, or arrays where they do not depend
on the images) and the shape of its output.  `None`: no step does the same.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from fconv_jax.plain import BINARY, COMPARE, UNARY


@dataclasses.dataclass(frozen=True)
class Value:
    """Value `index` of the plain network; `shape`, its axes in the traced one (a field has one more)."""

    index: int
    shape: tuple

    @property
    def order(self):
        """The size of its group axis, 1 without one."""
        return self.shape[-2] if len(self.shape) in (3, 5) else 1


def step_of(lowering, name: str, params: dict, ins: list, out: tuple) -> Value | None:
    """The value of a primitive `name`, at least one of whose inputs is a `Value`."""
    x = next(x for x in ins if isinstance(x, Value))
    if name == "convert_element_type":  # a plain network computes in float32
        return x if jnp.issubdtype(params["new_dtype"], jnp.floating) else None
    if name in UNARY:
        return lowering.step(name, [x], out)
    if name in BINARY or name in COMPARE:
        return _binary(lowering, name, ins, out)
    return _OTHERS[name](lowering, params, ins, out) if name in _OTHERS else None


def _flat(sizes):
    """The axes after the batch, with group and channels merged; a field has two or four such axes."""
    return (*sizes[:-2], sizes[-2] * sizes[-1]) if len(sizes) in (2, 4) else tuple(sizes)


def _constant(lowering, array, out):
    """A new constant of the network, for a value of axes `out`; `None` for one that differs between images."""
    if np.ndim(array) and array.shape[0] != 1:
        return None
    array = np.reshape(array, (1,) * (len(out) - np.ndim(array)) + np.shape(array))
    if np.size(array) and (array == array.flat[0]).all():
        array = array[(slice(1),) * len(out)]
    array = np.broadcast_to(array, (*array.shape[:-2], *(out[-2:] if len(out) in (3, 5) else array.shape[-2:])))
    lowering.any_size &= len(out) not in (4, 5) or array.shape[1:3] == (1, 1)
    label = f"constant{len(lowering.constants)}"
    lowering.constants[label] = array.reshape(1, *_flat(array.shape[1:])).astype(np.float32)
    return label


def _over_elements(lowering, x, out):
    """`x` itself; or, where a field `out` has all its group elements and `x` one, a copy for each."""
    if len(out) in (3, 5) and len(x.shape) == len(out) and x.order == 1 != out[-2]:
        axes = (*x.shape[:-2], out[-2], x.shape[-1])
        return lowering.step("concatenate", [x] * int(out[-2]), axes, order=1)
    return x


def _binary(lowering, name, ins, out):
    constant = next((i for i, x in enumerate(ins) if not isinstance(x, Value)), None)
    if constant is None:
        ins = [_over_elements(lowering, x, out) for x in ins]
        return lowering.step(name, ins, out) if all(_broadcasts(x.shape, out) for x in ins) else None
    number, x = np.asarray(ins[constant]), ins[1 - constant]
    first = {"first": True} if constant == 0 and name not in ("add", "mul", "max", "min", "eq", "ne") else {}
    if np.size(number) == 1:
        number = float(np.asarray(number, np.float64).reshape(()))
        if name == "div" and not first and (mean := _mean(lowering, x, number, out)):
            return mean
        if (name, number) in (("mul", 1.0), ("div", 1.0), ("add", 0.0), ("sub", 0.0)) and not first:
            return x
        if (name, number) == ("max", 0.0):
            return lowering.step("relu", [x], out)
        return lowering.step(name, [x], out, number=number, **first)
    label = _constant(lowering, number, out) if x.shape == out else None
    return None if label is None else lowering.step(name, [label, x] if constant == 0 else [x, label], out)


def _broadcasts(shape, out):
    """Whether the arrays of a plain network broadcast as those of the traced one: they merge a field's last axes."""
    return shape == out or (len(shape) == len(out) and shape[-2:] == out[-2:]) or len(shape) == 4 == len(out)


def _where(lowering, params, ins, out):
    """`select_n` of a condition and the values where it is false and true."""
    if not isinstance(ins[0], Value):  # as in `jnp.var`, where it is whether there is more than one pixel
        cases = np.unique(np.asarray(ins[0]))
        chosen = ins[1 + int(cases[0])] if len(cases) == 1 and 0 <= cases[0] < len(ins) - 1 else None
        return chosen if isinstance(chosen, Value) and chosen.shape == out else None
    if len(ins) != 3:
        return None
    found = [x if isinstance(x, Value) else _constant(lowering, np.asarray(x), out) for x in ins]
    found = [_over_elements(lowering, x, out) if isinstance(x, Value) else x for x in found]
    fits = all(x is not None and (isinstance(x, str) or _broadcasts(x.shape, out)) for x in found)
    return lowering.step("where", found, out) if fits else None


def _mean(lowering, x, number, out):
    """A sum over space (and the group), divided by its number of terms, is a mean at every size; else `None`.

    Others may read the sum, which stays where it is.
    """
    operation, inputs, options = lowering.steps[x.index - 1] if x.index else ("", [], {})
    source, axes, axes_out, terms = lowering.sums.get(
        inputs[0] if operation == "reshape" else x.index, (None, (), (), 0)
    )
    if source is None or number != terms:
        return None
    mean = _reduced(lowering, "mean", source, axes, axes_out)
    if mean is not None and operation == "reshape":
        return lowering.step("reshape", [mean], out, **options)
    return mean and Value(mean.index, out)


def _reduction(kind):
    return lambda lowering, params, ins, out: _reduced(lowering, kind, ins[0], tuple(params["axes"]), out)


def _reduced(lowering, kind, source, axes, out):
    x, group = source, {5: 3, 3: 1}.get(len(source.shape))
    left = sorted(axis for axis in axes if axis != group)
    if left not in ([], [1, 2]) or (left and len(x.shape) not in (4, 5)) or not axes:
        return None
    if group in axes:
        shape = tuple(size for axis, size in enumerate(x.shape) if axis != group)
        x = lowering.step("over_group", [x], shape, order=int(x.order), kind=kind)
    if left:
        x = lowering.step("over_space", [x], (x.shape[0], *x.shape[3:]), kind=kind)
    if left and kind == "sum":
        lowering.sums[x.index] = source, axes, out, float(math.prod(source.shape[axis] for axis in axes))
    return x if x.shape == out else None


def _concatenate(lowering, params, ins, out):
    if not all(isinstance(y, Value) for y in ins) or params["dimension"] != len(out) - 1:
        return None
    return lowering.step("concatenate", ins, out, order=int(ins[0].order))


def _reshape(lowering, params, ins, out):
    x = ins[0]
    if math.prod(out[1:]) != math.prod(x.shape[1:]) or out[:1] != x.shape[:1] or len(out) not in (2, 3, 4, 5):
        return None
    flat, before = _flat(out[1:]), _flat(x.shape[1:])
    if flat == before:
        return Value(x.index, out)
    lowering.any_size &= len(before) == 1 or (len(flat) == 3 and flat[:2] == before[:2])
    return lowering.step("reshape", [x], out, shape=[int(size) for size in flat])


def _windows(operation):
    """`nnx.max_pool` and `nnx.avg_pool` of square windows, alike on all sides, without dilation."""

    def lower(lowering, params, ins, out):
        sizes, strides, padding = (params[n] for n in ("window_dimensions", "window_strides", "padding"))
        plain = all(d == 1 for n in ("base_dilation", "window_dilation") for d in params[n])
        rest = [*sizes[:1], *sizes[3:], *strides[:1], *strides[3:]]
        sides = {side for both in padding[1:3] for side in both}
        if not plain or len(sizes) not in (4, 5) or any(size != 1 for size in rest) or len(sides) != 1:
            return None
        if sizes[1] != sizes[2] or strides[1] != strides[2] or any(map(any, (*padding[:1], *padding[3:]))):
            return None
        options = {"window": int(sizes[1]), "strides": int(strides[1]), "padding": int(*sides), "widen": False}
        x = lowering.step(operation, ins, out, **options)
        return lowering.step("mul", [x], out, number=float(sizes[1] ** 2)) if operation == "mean_pool" else x

    return lower


def _erfc(lowering, params, ins, out):
    return lowering.step("sub", [lowering.step("erf", ins, out)], out, number=1.0, first=True)


_OTHERS = {
    "erfc": _erfc,
    "integer_pow": lambda lowering, params, ins, out: lowering.step("pow", ins, out, number=float(params["y"])),
    "select_n": _where,
    "reduce_sum": _reduction("sum"),
    "reduce_max": _reduction("max"),
    "reduce_min": _reduction("min"),
    "concatenate": _concatenate,
    "reduce_window_max": _windows("max_pool"),
    "reduce_window_sum": _windows("mean_pool"),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "slice"), _reshape),
}
