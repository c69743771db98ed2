"""Lets an audit see the pools that a network calls: they are functions, so nothing else knows of them."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

_listener: contextvars.ContextVar[Callable | None] = contextvars.ContextVar("listener", default=None)


def observed(function: Callable) -> Callable:
    """The function itself, which tells the listener, if there is one, of each call."""

    @functools.wraps(function)
    def called(*args, **options):
        listener = _listener.get()
        return function(*args, **options) if listener is None else listener(called, args, options)

    return called


@contextlib.contextmanager
def listening(listener: Callable) -> Iterator[None]:
    """Within it, `listener(function, args, options)` makes the calls of observed functions."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
