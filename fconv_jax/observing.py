"""Lets an audit see the pools that a network calls: they are functions, so nothing else knows of them."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

_listener = contextvars.ContextVar("listener", default=None)


def observed(function: Callable) -> Callable:
    """The function itself, which tells the listener, if there is one, of each call."""

    @functools.wraps(function)
    def called(x, *args, **options):
        listener = _listener.get()
        if listener is None:
            return function(x, *args, **options)
        return listener(called, x, args, options)

    return called


@contextlib.contextmanager
def listening(listener: Callable) -> Iterator[None]:
    """Within it, `listener(function, x, args, options)` makes the calls of observed functions."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
