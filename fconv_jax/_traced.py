"""A network as a program in which each layer and pool is one equation, in `nnx.jit`, `remat` and `scan` too.

The program works on images and on changed copies of them side by side, its lanes.
"""

import copy
import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import ClosedJaxpr, Literal

from fconv_jax._observed import NotArraysError, holds_modules, listener
from fconv_jax.group import groups_in

_serial = itertools.count()
CALLS = ["jit", "pjit", "closed_call", "remat", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call", "scan"]
POOLS = {"reduce_window_sum": "avg_pool", "reduce_window_max": "max_pool", "reduce_window_min": "min_pool"}
"""Equations that are stages: flax's pools."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """An equation: `function` of arrays; `first` of them are the state of `stage`, the others its arguments."""

    name: str
    stage: Any
    function: Callable
    first: int = 0
    shapes: tuple = ()
    options: dict = dataclasses.field(default_factory=dict)
    module: Callable | None = None  # the module as it was called, of the arrays of its state


@dataclasses.dataclass(frozen=True)
class Cause:
    """An equation; the shapes of an array that it was given and of a constant that it mixed with it."""

    equation: Any
    source: Sequence[int]
    constant: Sequence[int] = ()

    @classmethod
    def of(cls, equation, source: "Value", ins: "list[Value]") -> "Cause":
        """Of what an equation was given."""
        mixes = equation.primitive.name in ("add", "sub", "mul", "div", "max", "min", "concatenate")
        constants = [value.shape for value in ins if mixes and not value.depends and len(value.shape) > 2]
        return cls(equation, source.shape, (*constants, ())[0])


@dataclasses.dataclass(eq=False)
class Value:
    """An array of a program: one for each lane, or one for all, if it does not depend on the images."""

    lanes: tuple
    depends: bool = False
    cause: Any = None  # what made it differ from lane to lane as it should not

    def lane(self, i: int) -> jax.Array:
        """The array of lane i."""
        return self.lanes[i if self.depends else 0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each array."""
        return tuple(jnp.shape(self.lanes[0]))


class Walk:
    """A program at work, one equation after another; a subclass says what a stage does and which values are lost."""

    def __init__(self, net: "Program"):
        self.net, self.suffix = net, ""

    def stage(self, stage: Stage, ins: list[Value], inner: Any) -> list[Value]:
        """The results of a stage, whose equation is the program `inner` or, if that is `None`, `stage.stage`."""
        raise NotImplementedError

    def lost(self, value: Value) -> bool:
        """Whether a value has lost what a network should keep."""
        raise NotImplementedError

    def program(self, jaxpr, ins: list[Value]) -> list[Value]:
        """The results of a program."""
        consts, jaxpr = getattr(jaxpr, "consts", ()), getattr(jaxpr, "jaxpr", jaxpr)
        env = dict(zip(jaxpr.invars, ins, strict=True))
        env |= {var: Value((value,)) for var, value in zip(jaxpr.constvars, consts, strict=True)}

        def read(var):
            return Value((var.val,)) if isinstance(var, Literal) else env[var]

        uses = [[var for var in eqn.invars if not isinstance(var, Literal)] for eqn in jaxpr.eqns]
        last = {var: i for i, used in enumerate(uses) for var in used}
        for i, eqn in enumerate(jaxpr.eqns):
            env.update(zip(eqn.outvars, self._equation(eqn, [read(var) for var in eqn.invars]), strict=True))
            for var in {var for var in uses[i] if last[var] == i and var not in jaxpr.outvars}:
                del env[var]  # or all of a network's arrays would stay
        return [read(var) for var in jaxpr.outvars]

    def _equation(self, eqn, ins):
        inner, first = inner_program(eqn), next((value for value in ins if value.depends), None)
        function = functools.partial(bind, eqn)
        if first is None:
            return each(function, ins)
        stage = self.net.stages.get(eqn.params.get("name"))
        if stage and tuple(value.shape for value in ins) == stage.shapes:
            return self.stage(stage, ins, inner)
        if eqn.primitive.name in POOLS and len(first.shape) in (4, 5):
            return self.stage(Stage(POOLS[eqn.primitive.name], eqn, function), ins, None)
        if inner and self._has_stages(inner):
            return self._inside(eqn, inner, ins)
        outs, causes = each(function, ins), [value.cause for value in ins if value.cause]
        lost = [out for out in outs if self.lost(out)]
        if lost and inner and not causes:
            return self._inside(eqn, inner, ins)  # and which of its equations is it?
        for out in lost:
            out.cause = causes[0] if causes else Cause.of(eqn, first, ins)
        return outs

    def _has_stages(self, jaxpr):
        return any(
            eqn.params.get("name") in self.net.stages
            or eqn.primitive.name in POOLS
            or (inner_program(eqn) and self._has_stages(inner_program(eqn)))
            for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns
        )

    def _inside(self, eqn, inner, ins):
        """The results of an equation that is a program itself, or one in a loop."""
        if eqn.primitive.name != "scan":
            return self.program(inner, ins)
        num_consts, num_carry, length = (eqn.params[key] for key in ("num_consts", "num_carry", "length"))
        consts, carry, xs = ins[:num_consts], ins[num_consts:][:num_carry], ins[num_consts + num_carry :]
        steps, ys, suffix = range(length), {}, self.suffix
        for i in reversed(steps) if eqn.params["reverse"] else steps:
            self.suffix = f"{suffix}[{i}]"
            at_i = [each(lambda x, i=i: x[i], [x])[0] for x in xs]
            outs = self.program(inner, [*consts, *carry, *at_i])
            carry, ys[i] = outs[:num_carry], outs[num_carry:]
        self.suffix = suffix
        return [*carry, *(each(lambda *y: jnp.stack(y), [*y])[0] for y in zip(*(ys[i] for i in steps), strict=True))]


def each(function: Callable, ins: list[Value]) -> list[Value]:
    """A function's results, in each lane."""
    count = next((len(value.lanes) for value in ins if value.depends), 0)
    results = [jax.tree.leaves(function(*(value.lane(i) for value in ins))) for i in range(count or 1)]
    return [Value(lanes, count > 0) for lanes in zip(*results, strict=True)]


def inner_program(eqn):
    """The program that an equation is, if it does no more than that."""
    return (eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")) if eqn.primitive.name in CALLS else None


def bind(eqn, *arrays):
    """An equation's results for these arrays."""
    options = eqn.primitive.get_bind_params(eqn.params)
    functions, options = options if isinstance(options, tuple) else ((), options)
    return eqn.primitive.bind(*functions, *arrays, **options)


class Program:
    """`model(images)` as `jaxpr`; `stages` are the equations that are stages, by their names in it.

    With `every`, also functions that are not stages of an audit (`upsample`, vectors), and the model's own call
    decides, not its `stages`.
    """

    def __init__(self, model: nnx.Module, images: jax.Array | jax.ShapeDtypeStruct, every: bool = False):
        self.every, self.stages = every, cast("dict[str, Stage]", {})
        self.groups, self.images = groups_in(model), images
        graphdef, state = self.model = nnx.split(model)

        def run(images):
            net = nnx.merge(graphdef, state, copy=True)
            _name_layers(net)
            stages = None if every else named(getattr(net, "stages", None))
            if stages is None:
                return net(images)
            for name, stage in stages:
                images = self._stage(name, stage, *_caller(stage, images), {})
            return images

        from jax.experimental.xla_metadata import set_xla_metadata  # importing the library does not need it

        token = listener.set(self._stage)
        try:
            with set_xla_metadata(program=str(next(_serial))):  # no function comes from the cache, unheard
                self.jaxpr, self.output = jax.make_jaxpr(run, return_shape=True)(images)
        finally:
            listener.reset(token)

    def updated(self, change: Callable) -> "Program":
        """The program of the model with `change(array, is_statistic)` for parameters and statistics, compiled once."""
        graphdef, state = self.model
        held = {id(leaf) for leaf in jax.tree.leaves(state)}
        kinds = (nnx.BatchStat, nnx.Param)
        stats, params = ({id(leaf) for leaf in jax.tree.leaves(nnx.filter_state(state, kind))} for kind in kinds)

        def changed(leaf):
            return change(leaf, id(leaf) in stats) if id(leaf) in params or id(leaf) in stats else leaf

        if not all(id(const) in held for const in self.jaxpr.consts):  # one was made of the state while it was traced
            return Program(nnx.merge(graphdef, jax.tree.map(changed, state)), self.images, self.every)
        other = copy.copy(self)
        other.jaxpr = ClosedJaxpr(self.jaxpr.jaxpr, [changed(const) for const in self.jaxpr.consts])
        return other

    def _stage(self, name, stage, function, args, options):
        """`function(*args, **options)`, as one equation; a module is the first argument."""
        bound = inspect.signature(function).bind(*args, **options)
        bound.apply_defaults()
        names, values, graphdef = list(bound.arguments), list(bound.arguments.values()), None
        if isinstance(stage, nnx.Module):
            graphdef, values[0] = nnx.split(stage)
        leaves, tree = jax.tree.flatten(values)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray))]
        arrays, rest = [leaves[i] for i in places], [None if i in places else leaf for i, leaf in enumerate(leaves)]
        first = 0 if graphdef is None else len(jax.tree.leaves(values[0]))
        if len(arrays) == first:
            return function(*args, **options)

        def run(*arrays):
            values = jax.tree.unflatten(tree, (dict(enumerate(rest)) | dict(zip(places, arrays, strict=True))).values())
            if graphdef is not None:
                values[0] = nnx.merge(graphdef, values[0])
            filled = inspect.BoundArguments(bound.signature, dict(zip(names, values, strict=True)))  # pyright: ignore
            y = function(*filled.args, **filled.kwargs)
            leaves = jax.tree.leaves(y, is_leaf=lambda leaf: leaf is None)
            if not all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves):
                raise NotArraysError(f"{name} returns a {type(y).__name__}, but an audit needs arrays")
            return y

        run.__name__ = f"stage_{next(_serial)}"
        shapes, given = tuple(x.shape for x in arrays), dict(zip(names, values, strict=True))
        options, module = given, None
        if graphdef is not None:
            state = jax.tree.structure(values[0])
            options = dict(zip(names[1:], values[1:], strict=True))
            module = lambda arrays: nnx.merge(graphdef, jax.tree.unflatten(state, arrays))  # noqa: E731
        self.stages[run.__name__] = Stage(name, stage, run, first, shapes, options, module)
        try:
            return jax.jit(run)(*arrays)
        except NotArraysError:
            if self.every:  # it is no stage: what is in it may be some
                return function(*bound.args, **bound.kwargs)
            raise


def named(stages: Any) -> Any:
    """A network's pairs (name, callable); `None` if its attribute `stages` is something else."""
    if not isinstance(stages, list | tuple) or not all(
        isinstance(each, list | tuple) and len(each) == 2 for each in stages
    ):
        return None
    return stages if all(isinstance(name, str) and callable(stage) for name, stage in stages) else None


def _caller(stage, images):
    if isinstance(stage, nnx.Module):
        return (lambda stage, x: stage(x)), (stage, images)
    return jax.jit(lambda x: stage(x)), (images,)


def _name_layers(net):
    """Gives each innermost module a class with a call that is heard, and its name."""
    modules, serial = list(nnx.iter_modules(net)), next(_serial)
    parents = {id(m) for _, m in modules if any(map(holds_modules, vars(m).values()))}
    for path, module in modules:
        if callable(module) and id(module) not in parents:
            module.__class__ = _heard(type(module))
            # With a serial number no cache of `nnx.jit` takes this audit's layer for that of another.
            module._audited = (".".join(map(str, path)) or type(module).__name__, serial)  # pyright: ignore


@functools.cache
def _heard(kind):
    plain = kind.__call__

    @functools.wraps(plain)
    def call(self, *args, **options):
        hears = listener.get()
        if hears is None:
            return plain(self, *args, **options)
        return hears(self._audited[0], self, plain, (self, *args), options)

    return type(kind)(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__})
