"""What arguments may be: one check and one message for each kind."""

import contextlib
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def whole(name: str, value, least: int | None = 1, rule: str = "a whole number") -> int:
    """Returns a size as an `int`: any whole number, NumPy's too, but no bool; `least` is `None` for no bound."""
    number = None
    if not _is(value, bool) and not isinstance(value, Tracer):
        with contextlib.suppress(TypeError, jax.errors.InconclusiveDimensionOperation):
            number = operator.index(value)
    if number is None or (least is not None and number < least):
        raise ValueError(f"{name} (={value!r}) must be {rule}{'' if least is None else f' of at least {least}'}")
    return number


def same(name: str, value, rule: str = "a whole number", depth: int = 1):
    """Returns what stands for both directions: the value, or that of a pair of equal ones (at `depth` 2 of pairs).

    A filter that rotates is square: what differs between rows and columns is refused.
    """

    def one(part, depth):
        if not isinstance(part, tuple | list) and getattr(part, "ndim", 0) == 0:
            return part if part is value else whole(name, part, None)
        parts = [one(each, depth - 1) for each in part] if depth else []
        if len(parts) != 2 or parts[0] != parts[1]:
            text = f"{name} (={value!r}) must be {rule} or a pair of equal ones"
            raise ValueError(f"{text}: a kernel that rotates is square")
        return parts[0]

    return one(value, depth)


def finite(name: str, value, unit: str = "number") -> float:
    """Returns one finite real number as a `float`; no array of them, no text, no bool and nothing traced."""
    number = math.nan
    if not _is(value, bool, str, bytes) and not isinstance(value, Tracer) and np.ndim(value) == 0:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} (={value}) must be a finite {unit}, one, and known when traced")
    return number


def flag(name: str, value) -> bool:
    """Returns `True` or `False`, NumPy's too, as a `bool`."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} (={value!r}) must be True or False")
    return bool(value)


def below(size, bound) -> bool:
    """Whether `size` < `bound`; symbols of `jax.export` that do not tell are taken for large enough."""
    try:
        return bool(size < bound)
    except jax.errors.InconclusiveDimensionOperation:
        return False


def real_pixels(x: jax.Array) -> jax.Array:
    """Returns `x`, NumPy's too, as an array of jax whose numbers have an order: bools, integers or floats."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating) or not jnp.issubdtype(x.dtype, np.generic):
        raise ValueError(f"pixels of type {x.dtype} must be real numbers")
    return x


def _is(value, *kinds):
    return isinstance(value, kinds) or getattr(value, "dtype", None) in kinds
