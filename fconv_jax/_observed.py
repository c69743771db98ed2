"""Functions that become one equation where `_traced.Program` traces a network, and what else it asks of stages."""

import contextvars
import functools
from collections.abc import Callable

from flax import nnx

listener: contextvars.ContextVar[Callable | None] = contextvars.ContextVar("listener", default=None)


def tell(*groups) -> None:
    """Tells the program that is being traced, if one is, of groups that perhaps no layer of it has."""
    hears = listener.get()
    known = {} if hears is None else hears.__self__.groups
    for group in groups:
        known[group.order] = tuple(dict.fromkeys((*known.get(group.order, ()), group)))


def observed(function: Callable, always: bool = True) -> Callable:
    """The function itself, which becomes one equation where a network is traced by `Program`.

    Without `always`: only where it is traced with `every`.
    """

    @functools.wraps(function)
    def called(*args, **options):
        hears = listener.get()
        if hears is None or not (always or hears.__self__.every):
            return function(*args, **options)
        return hears(function.__name__, function, function, args, options)

    return called


class NotArraysError(ValueError):
    """A stage returned something else than arrays."""


def holds_modules(value):
    """Whether an attribute is a module, or a tuple, list or dict with one."""
    if isinstance(value, (tuple, list, dict)):
        return any(map(holds_modules, value.values() if isinstance(value, dict) else value))
    return isinstance(value, nnx.Module)
