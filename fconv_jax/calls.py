"""What a network calls while it works: its stages, or its innermost modules and pools, in their order."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable

import jax
from flax import nnx
from jax.core import Tracer

from fconv_jax.observing import listening

FLAX_POOLS = ("avg_pool", "max_pool", "min_pool")
"""Functions of `flax.nnx` that are listened to as well, where a network calls them as `nnx.avg_pool`."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A stage at work: `y = function(x, *others)`.

    Attributes:
      stage: the callable that the network has; `options`: its keyword arguments, where it is a function.
      others: further arrays that it was given.
    """

    name: str
    stage: Callable
    function: Callable
    x: jax.Array
    y: jax.Array
    options: dict
    others: tuple[jax.Array, ...] = ()


def stage_calls(model: nnx.Module, x: jax.Array) -> list[Call]:
    """The calls of `model.stages`, each on the output of the one before."""
    calls = []
    for name, stage in getattr(model, "stages", ()):
        function = jax.jit(stage) if not isinstance(stage, nnx.Module) else stage
        y = function(x)
        options = stage.keywords if isinstance(stage, functools.partial) else {}
        calls.append(Call(name, stage, function, x, y, options))
        x = y
    return calls


def inner_calls(model: nnx.Module, x: jax.Array) -> list[Call]:
    """The outermost calls of innermost modules and of pools while the model works, and its output."""
    modules = list(nnx.iter_modules(model))
    parents = {id(m) for _, m in modules if any(isinstance(child, nnx.Module) for child in vars(m).values())}
    names = {
        id(module): ".".join(map(str, path)) or type(module).__name__
        for path, module in modules
        if callable(module) and id(module) not in parents
    }
    recorder = _Recorder(names)
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(recorder.pool))
        kinds = {type(module) for _, module in modules if id(module) in names}
        # An inherited method is replaced where it is.
        for owner in {next(base for base in kind.__mro__ if "__call__" in vars(base)) for kind in kinds}:
            _replace(stack, owner, "__call__", recorder.method(owner.__call__))
        for name in FLAX_POOLS:
            _replace(stack, nnx, name, recorder.flax_pool(getattr(nnx, name)))
        y = model(x)
    calls = recorder.calls
    if not calls or calls[-1].y is not y:
        calls.append(Call("output", model, lambda x: x, y, y, {"unseen": bool(names) and not calls}))
    return calls


def _replace(stack, holder, name, value):
    stack.callback(setattr, holder, name, vars(holder)[name])
    setattr(holder, name, value)


class _Recorder:
    """Makes the calls and keeps the outermost ones."""

    def __init__(self, names):
        self.names, self.calls = names, []
        self._busy = False

    def record(self, name, stage, function, x, options, others=()):
        if self._busy or not isinstance(x, jax.Array) or isinstance(x, Tracer):
            return function(x, *others)
        self._busy = True
        try:
            y = function(x, *others)
        finally:
            self._busy = False
        self.calls.append(Call(name, stage, function, x, y, options, others))
        return y

    def pool(self, function, args, options):
        """The listener of this library's pools."""
        return self._pool(function, inspect.signature(function), function.__wrapped__, args, options)

    def flax_pool(self, function):
        """Stands in for one of flax's pools."""
        signature = inspect.signature(function)
        return functools.wraps(function)(
            lambda *args, **options: self._pool(function, signature, function, args, options)
        )

    def _pool(self, function, signature, plain, args, options):
        (_, x), *rest = signature.bind(*args, **options).arguments.items()
        return self.record(function.__name__, function, functools.partial(plain, **dict(rest)), x, dict(rest))

    def method(self, original):
        """Stands in for a class's `__call__`."""
        _, first, *_ = [*inspect.signature(original).parameters, None]

        @functools.wraps(original)
        def call(module, *args, **options):
            if id(module) not in self.names or not (args or first in options):
                return original(module, *args, **options)
            x, args = (args[0], args[1:]) if args else (options.pop(first), ())
            leaves, structure = jax.tree.flatten((args, options))
            places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

            def function(x, *others):
                filled = dict(enumerate(leaves)) | dict(zip(places, others, strict=True))
                args, options = jax.tree.unflatten(structure, filled.values())
                return original(module, x, *args, **options)

            return self.record(self.names[id(module)], module, function, x, {}, tuple(leaves[i] for i in places))

        return call
