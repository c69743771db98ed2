"""A network, traced, as the description and the parameters of a plain one (`fconv_jax.plain`)."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.core import Literal

from fconv_jax._evaluated import activation, constant
from fconv_jax._lowered_layers import FUNCTIONS, LAYERS, NotPlainError, fold_norms, is_a
from fconv_jax._lowered_operations import Value, step_of
from fconv_jax._traced import Program, inner_program
from fconv_jax.convolve import convolution_algorithm

_PASSED = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "reduce_precision", "sharding_constraint")


class Lowering:
    """The steps of a model: `description`, {layer: arrays} and {constant: array}."""

    def __init__(self, model: nnx.Module, input_shape: tuple[int, int, int], any_size: bool):
        self.any_size = any_size
        self.steps: list[Any] = []
        self.sums: dict[int, tuple] = {}  # over space: what is summed, the axes, the sum's shape, its number of terms
        self.layers: dict[str, Any] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.arrays: dict[str, dict[str, np.ndarray]] = {}
        (batch,) = jax.export.symbolic_shape("b")
        images = jax.ShapeDtypeStruct((batch, *input_shape), jnp.float32)
        with convolution_algorithm("direct"):
            self.net = Program(model, images, every=True)
        if jax.tree.structure(self.net.output).num_nodes != 1 or len(self.net.jaxpr.jaxpr.outvars) != 1:
            raise NotPlainError("an output that is not one array has no plain form yet")
        if not jnp.issubdtype(self.net.jaxpr.out_avals[0].dtype, jnp.floating):
            raise NotPlainError(f"an output of type {self.net.jaxpr.out_avals[0].dtype} has no plain form")
        (out,) = self._program(self.net.jaxpr, [Value(0, (batch, *input_shape))])
        if not isinstance(out, Value):
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
        """The outputs of a program: `Value`s, or arrays where they do not depend on the images."""
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
        values = [x for x in ins if isinstance(x, Value)]
        out = tuple(equation.outvars[0].aval.shape)
        if values and 0 in out[1:]:
            raise ValueError(f"input_shape is too small: {stage.name if stage else name} leaves no pixels")
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
            of_images = [isinstance(x, Value) for x in ins]
            name = activation(equation.params.get("name", ""), inner, ins, of_images)
            return [self.step(name, values, out)] if name else self._inside(inner, ins, stage)
        if name in _PASSED:
            return ins
        kind = equation.outvars[0].aval.dtype
        # Whole numbers would neither wrap nor be rounded down in float32.
        if not any(jnp.issubdtype(kind, fits) for fits in (jnp.floating, jnp.bool_)):
            raise NotPlainError(f"{name} of type {kind} has no plain form yet")
        lowered = step_of(self, name, equation.params, ins, out)
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

    def step(self, operation, ins, axes, /, **options):
        """Appends a step; `axes` is the shape of its value in the traced network."""
        self.steps.append([operation, [x if isinstance(x, str) else x.index for x in ins], options])
        return Value(len(self.steps), tuple(axes))

    def _stage(self, stage, ins, out):
        """A layer or a pool as a step; `None` if the program inside it must be lowered instead."""
        x = next(x for x in ins if isinstance(x, Value))
        if isinstance(stage.stage, nnx.Module):
            module = self._called(stage, ins)
            kind = next((kind for kind in LAYERS if module is not None and is_a(module, kind)), None)
            if kind is None:
                return None
            spec, arrays = LAYERS[kind](module, x)
            return self.layer(stage.name, spec, arrays, x, out)
        if [np.shape(x) if not isinstance(x, Value) else x.shape for x in ins] != list(stage.shapes):
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
        if not alone or shapes[:-1] != list(stage.shapes[:-1]) or any(isinstance(x, Value) for x in state):
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

    Three sizes are tried: a larger one, which a network of any size takes; a smaller odd one and a square of five times
    the side, which it may refuse.
    """
    first = Lowering(model, input_shape, any_size)
    if not first.any_size:
        return first
    height, width, channel = input_shape
    larger = _same_at(first, model, (2 * height, 3 * width, channel))
    side = 5 * max(height, width) + 1
    others = [((height // 2) | 1, (width // 2) | 1, channel), (side, side, channel)]
    if not larger or any(_same_at(first, model, other) is False for other in others):
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
