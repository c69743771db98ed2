"""A network, traced, as the description and the parameters of a plain one (`fconv_jax.plain`)."""

import dataclasses
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Literal

from fconv_jax._evaluated import activation, constant
from fconv_jax._lowered_layers import FUNCTIONS, LAYERS, NotPlainError, fold_norms, is_a
from fconv_jax._traced import Program, inner_program
from fconv_jax.convolve import convolution_algorithm
from fconv_jax.plain import BINARY, UNARY

_RENAMED = {"reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min"}
_PASSED = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision", "sharding_constraint")


@dataclasses.dataclass(frozen=True)
class _Value:
    """Value `index` of the plain network; `shape`, its axes in the traced one (a field has one more)."""

    index: int
    shape: tuple

    @property
    def order(self):
        """The size of its group axis, 1 without one."""
        return self.shape[-2] if len(self.shape) in (3, 5) else 1


class Lowering:
    """The steps of a model: `description`, {layer: arrays} and {constant: array}."""

    def __init__(self, model: nnx.Module, input_shape: tuple[int, int, int], any_size: bool):
        self.any_size, self.pixels = any_size, 0.0
        self.steps: list[Any] = []
        self.layers: dict[str, Any] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.arrays: dict[str, dict[str, np.ndarray]] = {}
        (batch,) = jax.export.symbolic_shape("b")
        images = jax.ShapeDtypeStruct((batch, *input_shape), jnp.float32)
        with convolution_algorithm("direct"):
            self.net = Program(model, images, every=True)
        if jax.tree.structure(self.net.output).num_nodes != 1 or len(self.net.jaxpr.jaxpr.outvars) != 1:
            raise NotPlainError("an output that is not one array has no plain form yet")
        (out,) = self._program(self.net.jaxpr, [_Value(0, (batch, *input_shape))])
        if not isinstance(out, _Value):
            raise NotPlainError("the network's output does not depend on the images")
        self.output = [int(size) for size in out.shape[-2:]] if len(out.shape) in (3, 5) else []
        self.input_shape = [None, None, input_shape[2]] if self.any_size else list(input_shape)
        fold_norms(self, out.index)

    def description(self) -> dict:
        """The description that `fconv_jax.plain.PlainNetwork` takes."""
        constants = {name: list(array.shape) for name, array in self.constants.items()}
        return {"input_shape": self.input_shape, "layers": self.layers, "constants": constants,
                "steps": self.steps, "output": self.output}  # fmt: skip

    def same(self, other: "Lowering") -> bool:
        """Whether two networks are the same, to the last bit."""
        both = [jax.tree.leaves((each.arrays, each.constants)) for each in (self, other)]
        return self.description() == other.description() and all(map(np.array_equal, *both))

    def _program(self, jaxpr, arguments):
        """The outputs of a program: `_Value`s, or arrays where they do not depend on the images."""
        consts, jaxpr = getattr(jaxpr, "consts", ()), getattr(jaxpr, "jaxpr", jaxpr)  # in `jax.checkpoint` it is open
        found = dict(zip(jaxpr.invars, arguments, strict=True))
        found |= dict(zip(jaxpr.constvars, consts, strict=True))  # random keys can be among them

        def read(atom):
            return np.asarray(atom.val) if isinstance(atom, Literal) else found[atom]

        for equation in jaxpr.eqns:
            outs = self._equation(equation, [read(atom) for atom in equation.invars])
            found |= dict(zip(equation.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation, ins):
        name, stage = equation.primitive.name, self.net.stages.get(equation.params.get("name", ""))
        values = [x for x in ins if isinstance(x, _Value)]
        out = tuple(equation.outvars[0].aval.shape)
        if name == "platform_index":
            return [None]
        if name == "cond" and ins[0] is None:  # a choice between backends: the default
            return self._program(equation.params["branches"][-1], ins[1:])
        if not values:
            return constant(equation, ins)
        if stage is not None and (lowered := self._stage(stage, ins, out)) is not None:
            return [lowered]
        inner = inner_program(equation) if name != "scan" else None
        if inner is not None:
            of_images = [isinstance(x, _Value) for x in ins]
            name = activation(equation.params.get("name", ""), inner, ins, of_images)
            return [self.step(name, values, out)] if name else self._inside(inner, ins, stage)
        if name in _PASSED:
            return ins
        lowered = self._raw(name, equation.params, ins, out)
        if lowered is None:
            raise NotPlainError(f"{name} of {[tuple(getattr(x, 'shape', ())) for x in ins]} has no plain form yet")
        return [lowered]

    def _inside(self, inner, ins, stage):
        """The outputs of a nested program.  Its errors name the module that has no plain form."""
        try:
            return self._program(inner, ins)
        except NotPlainError as error:
            if stage is None or not isinstance(stage.stage, nnx.Module):
                raise
            raise NotPlainError(f"{stage.name}, a {type(stage.stage).__name__}: {error}") from None

    def _raw(self, name, params, ins, out):
        """A primitive of jax as a step; `None` if no step does the same."""
        x = next(x for x in ins if isinstance(x, _Value))
        if name == "convert_element_type":  # a plain network computes in float32
            return x if jnp.issubdtype(params["new_dtype"], jnp.floating) else None
        if name in UNARY:
            return self.step(name, [x], out)
        if name == "integer_pow":
            return self.step("pow", [x], out, number=float(params["y"]))
        if name in BINARY:
            return self._binary(name, ins, out)
        if name in _RENAMED:
            return self._reduction(_RENAMED[name], x, tuple(params["axes"]), out)
        if name == "concatenate" and all(isinstance(y, _Value) for y in ins):
            if params["dimension"] == len(out) - 1:
                return self.step("concatenate", ins, out, order=int(x.order))
            return None
        if name in ("reshape", "squeeze", "expand_dims"):
            return self._reshape(x, out)
        if name == "broadcast_in_dim" and math.prod(out[1:]) == math.prod(x.shape[1:]):
            return self._reshape(x, out)
        if name == "slice" and math.prod(out[1:]) == math.prod(x.shape[1:]):
            return self._reshape(x, out)
        return None

    def _binary(self, name, ins, out):
        constant = next((i for i, x in enumerate(ins) if not isinstance(x, _Value)), None)
        if constant is None:
            same = all(x.shape == out or len(x.shape) == 4 == len(out) for x in ins)
            return self.step(name, ins, out) if same else None
        number, x = np.asarray(ins[constant]), ins[1 - constant]
        first = {"first": True} if constant == 0 and name in ("sub", "div", "pow") else {}
        if np.size(number) == 1:
            number = float(np.asarray(number, np.float64).reshape(()))
            if (name, number) in (("mul", 1.0), ("div", 1.0), ("add", 0.0), ("sub", 0.0)) and not first:
                return x
            if (name, number) == ("max", 0.0):
                return self.step("relu", [x], out)
            if name == "div" and not first and (mean := self._mean(x, number, out)):
                return mean
            return self.step(name, [x], out, number=number, **first)
        if x.shape != out or number.shape[0] != 1:
            return None
        array = np.broadcast_to(number, (*number.shape[:-2], *(out[-2:] if len(out) in (3, 5) else number.shape[-2:])))
        self.any_size &= len(out) not in (4, 5) or array.shape[1:3] == (1, 1)
        array = array.reshape(1, *self._flat(array.shape[1:]))
        label = f"constant{len(self.constants)}"
        self.constants[label] = array.astype(np.float32)
        return self.step(name, [label, x] if constant == 0 else [x, label], out)

    def _mean(self, x, number, out):
        """A sum over space, divided by the number of pixels, is a mean at every size; `None` for another value."""
        operation, inputs, options = self.steps[-1] if self.steps else ("", [], {})
        if operation != "over_space" or options["kind"] != "sum" or x.index != len(self.steps) or number != self.pixels:
            return None
        return self.step(operation, [_Value(inputs[0], ())], out, kind="mean")  # others may read the sum

    def _reduction(self, kind, x, axes, out):
        group = {5: 3, 3: 1}.get(len(x.shape))
        left = sorted(axis for axis in axes if axis != group)
        if left not in ([], [1, 2]) or (left and len(x.shape) not in (4, 5)) or not axes:
            return None
        if group in axes:
            shape = tuple(size for axis, size in enumerate(x.shape) if axis != group)
            x = self.step("over_group", [x], shape, order=int(x.order), kind=kind)
        if left:
            self.pixels = float(x.shape[1] * x.shape[2])
            x = self.step("over_space", [x], (x.shape[0], *x.shape[3:]), kind=kind)
        return x if x.shape == out else None

    def _reshape(self, x, out):
        if out[:1] != x.shape[:1] or len(out) not in (2, 3, 4, 5):
            return None
        flat, before = self._flat(out[1:]), self._flat(x.shape[1:])
        if flat == before:
            return _Value(x.index, out)
        self.any_size &= len(before) == 1 or (len(flat) == 3 and flat[:2] == before[:2])
        return self.step("reshape", [x], out, shape=[int(size) for size in flat])

    @staticmethod
    def _flat(sizes):
        """The axes after the batch, with group and channels merged; a field has two or four such axes."""
        return (*sizes[:-2], sizes[-2] * sizes[-1]) if len(sizes) in (2, 4) else tuple(sizes)

    def step(self, operation, ins, axes, /, **options):
        """Appends a step; `axes` is the shape of its value in the traced network."""
        self.steps.append([operation, [x if isinstance(x, str) else x.index for x in ins], options])
        return _Value(len(self.steps), tuple(axes))

    def _stage(self, stage, ins, out):
        """A layer or a pool as a step; `None` if the program inside it must be lowered instead."""
        x = next(x for x in ins if isinstance(x, _Value))
        if isinstance(stage.stage, nnx.Module):
            module = self._called(stage, ins)
            kind = next((kind for kind in LAYERS if module is not None and is_a(module, kind)), None)
            if kind is None:
                return None
            spec, arrays = LAYERS[kind](module, x)
            return self.layer(stage.name, spec, arrays, x, out)
        if [np.shape(x) if not isinstance(x, _Value) else x.shape for x in ins] != list(stage.shapes):
            return None  # under `jax.vmap`
        name = getattr(stage.stage, "__name__", "")
        return FUNCTIONS[name](self, stage.options, x, out) if name in FUNCTIONS else None

    @staticmethod
    def _called(stage, ins):
        """The module with its state at this call; `None` unless it evaluates just one array."""
        state, arguments = ins[: stage.first], ins[stage.first :]
        shapes = [tuple(x.shape) for x in ins]
        # One array, no mask; in `jax.vmap` over the batch that axis comes on top, over others the layer is another.
        alone = len(arguments) == 1 and stage.shapes[-1] in (shapes[-1], shapes[-1][1:])
        if not alone or shapes[:-1] != list(stage.shapes[:-1]) or any(isinstance(x, _Value) for x in state):
            return None
        module = stage.module(state)
        average = stage.options.get("use_running_average")
        average = getattr(module, "use_running_average", True) if average is None else average
        return module if average else None

    def layer(self, name, spec, arrays, x, out):
        """A stock layer: [class, arguments] and arrays."""
        name = name.replace(".", "_")
        while name in self.layers:
            name += "_again"
        self.layers[name] = spec
        self.arrays[name] = {key: np.asarray(array, np.float32) for key, array in arrays.items() if array is not None}
        return self.step("layer", [x], out, name=name)

    def pool(self, operation, options, x, out, **fixed):
        """A pool of this library with its arguments."""
        window = int(options["window"])
        strides = options.get("strides")
        padding = options.get("padding")
        chosen = {
            "window": window,
            "strides": window if strides is None else int(strides),
            "padding": (window - 1) // 2 if padding is None else int(padding),
            "widen": bool(options.get("widen", False)),
        }
        return self.step(operation, [x], out, **{**chosen, **fixed})


def lowered(model: nnx.Module, input_shape: tuple[int, int, int], any_size: bool) -> Lowering:
    """A network's steps, valid for images of any size only if tracing at other sizes gives the same steps.

    Two sizes are tried: a larger one, which a network of any size takes, and a smaller odd one, which it may refuse.
    """
    first = Lowering(model, input_shape, any_size)
    if not first.any_size:
        return first
    height, width, channel = input_shape
    larger = _same_at(first, model, (2 * height, 3 * width, channel))
    smaller = larger and _same_at(first, model, ((height // 2) | 1, (width // 2) | 1, channel))
    if not larger or smaller is False:
        first.input_shape = list(input_shape)
    return first


def _same_at(first, model, input_shape):
    """Whether the steps are those of the first at another size; `None` where the network does not take it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about strides that do not fit that size
            return first.same(Lowering(model, input_shape, any_size=True))
    except NotPlainError:
        return False
    except Exception:  # a network may raise anything at another size
        return None
