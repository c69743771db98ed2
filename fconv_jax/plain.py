"""Networks of stock Flax layers, as `fconv_jax.export.to_plain` makes them.

This file imports jax and flax alone, nothing of this package: copied beside a description and the parameters, it is all
that a program needs to use or train such a network.
"""

import functools
import json
import math

import jax
import jax.numpy as jnp
from flax import nnx


class PlainNetwork(nnx.Module):
    """Stock layers (`nnx.Conv`, `nnx.Linear`, norms) and element-wise operations, in the order of a description.

    A field's group and channel axes are one axis, channels: element e's channel c is e C + c.

    Args:
      description: JSON: `input_shape` (height, width, channel; `null` for any), `layers` {name: [class of flax.nnx,
        arguments]}, `constants` {name: shape}, `steps` [[operation, inputs, options], ...] and `output` (the axes
        after the spatial ones, unless there is just one).  Step i makes value i + 1; value 0 is the images.

    Parameters: those of `layers`; they are zeros until they are set (`nnx.update`).

    Returns (call): what the network that it was made of returns, in evaluation.
    """

    def __init__(self, description: str):
        self.description = description
        contents = json.loads(description)
        self.input_shape = tuple(contents["input_shape"])
        self.layers = nnx.Dict({name: _layer(*spec) for name, spec in contents["layers"].items()})
        constants = contents["constants"].items()
        self.constants = nnx.Dict({name: nnx.Variable(jnp.zeros(shape, jnp.float32)) for name, shape in constants})

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the output for images `[batch, height, width, channel]`."""
        contents = _read(self.description)
        expected = contents["input_shape"]
        if images.ndim != 4 or any(
            want not in (None, have) for want, have in zip(expected, images.shape[1:], strict=True)
        ):
            sizes = ", ".join("any" if size is None else str(size) for size in expected)
            raise ValueError(f"images of shape {images.shape} must be [batch, {sizes}]")
        values = [jnp.asarray(images, jnp.float32)]
        for operation, inputs, options in contents["steps"]:
            arrays = [self.constants[i][...] if isinstance(i, str) else values[i] for i in inputs]
            values.append(self.layers[options["name"]](*arrays) if operation == "layer" else
                          OPERATIONS[operation](*arrays, **options))  # fmt: skip
        y = values[-1]
        return y.reshape(*y.shape[:-1], *contents["output"]) if contents["output"] else y


@functools.lru_cache(maxsize=64)
def _read(description):
    return json.loads(description)


def _layer(kind, arguments):
    more = {"use_running_average": True} if kind == "BatchNorm" else {}
    more |= {"kernel_init": nnx.initializers.zeros} if kind in ("Conv", "Linear") else {}
    arguments = {name: _tuples(value) for name, value in arguments.items()}
    return getattr(nnx, kind)(**arguments, **more, rngs=nnx.Rngs(0))


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _windows(x, window, strides, padding, widen):
    """The windows' sides.  `widen` adds the rows and columns that the stride would leave out."""
    return [window + ((size + 2 * padding - window) % strides if widen else 0) for size in x.shape[1:3]]


def _pooled(x, start, reduce, windows, strides, padding):
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(x, start, reduce, (1, *windows, 1), (1, strides, strides, 1), sides)


def _max_pool(x, *, window, strides, padding, widen):
    return _pooled(x, -jnp.inf, jax.lax.max, _windows(x, window, strides, padding, widen), strides, padding)


def _mean_pool(x, *, window, strides, padding, widen):
    windows = _windows(x, window, strides, padding, widen)
    return _pooled(x, 0.0, jax.lax.add, windows, strides, padding) / math.prod(windows)


def blur_weights(window: int) -> list[float]:
    """The Gaussian of a blur pool, normalised to sum 1: sigma = (window - 1) / 6."""
    weights = [math.exp(-((u - (window - 1) / 2) ** 2) * 18.0 / max(window - 1, 1) ** 2) for u in range(window)]
    return [weight / sum(weights) for weight in weights]


def _blur_pool(x, *, window, strides, padding, widen):
    windows = _windows(x, window, strides, padding, widen)
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for axis, width in zip((1, 2), windows, strict=True):
        end = (x.shape[axis] - width) // strides * strides + 1
        slices = [jax.lax.slice_in_dim(x, u, u + end, strides, axis) for u in range(width)]
        parts = [weight * part for weight, part in zip(blur_weights(width), slices, strict=True)]
        x = functools.reduce(jnp.add, parts)
    return x


def split(x: jax.Array, order: int) -> jax.Array:
    """`[..., order * c]` as `[..., order, c]`."""
    return x.reshape(*x.shape[:-1], order, x.shape[-1] // order)


def _over_group(x, *, order, kind):
    return REDUCTIONS[kind](split(x, order), axis=-2)


def _over_space(x, *, kind):
    return REDUCTIONS[kind](x, axis=(1, 2))


def _concatenate(*arrays, order):
    """Joins fields along the channels of each group element."""
    y = jnp.concatenate([split(x, order) for x in arrays], axis=-1)
    return y.reshape(*y.shape[:-2], math.prod(y.shape[-2:]))


def _reshape(x, *, shape):
    return x.reshape(x.shape[0], *shape)


def _upsample(x, *, factor):
    """Bilinear, half-pixel centres: each new pixel is a mean of two neighbours, the outer ones repeated."""
    for axis in (1, 2):
        size, phases = x.shape[axis], []
        for phase in range(factor):
            offset = (phase + 0.5) / factor - 0.5
            weight = round(abs(offset), 12)
            index = jnp.clip(jnp.arange(size) + (1 if offset > 0 else -1), 0, size - 1)
            phases.append((1.0 - weight) * x + weight * jnp.take(x, index, axis=axis) if weight else x)
        x = jnp.stack(phases, axis=axis + 1)
        x = x.reshape(*x.shape[:axis], size * factor, *x.shape[axis + 2 :])
    return x


def _with_number(function):
    def called(*arrays, number=None, first=False):
        """`first`: the number stands before the array."""
        if number is None:
            return function(*arrays)
        return function(number, *arrays) if first else function(*arrays, number)

    return called


def _compare(function):
    """1 where it is true, 0 where it is not."""
    return lambda x, y: function(x, y).astype(jnp.float32)


def _where(condition, otherwise, x):
    return jnp.where(condition != 0, x, otherwise)


REDUCTIONS = {"sum": jnp.sum, "mean": jnp.mean, "max": jnp.max, "min": jnp.min}
BINARY = {"add": jnp.add, "sub": jnp.subtract, "mul": jnp.multiply, "div": jnp.divide, "pow": jnp.power,
          "max": jnp.maximum, "min": jnp.minimum}  # fmt: skip
COMPARE = {name: _compare(function) for name, function in {
    "gt": jnp.greater, "ge": jnp.greater_equal, "lt": jnp.less, "le": jnp.less_equal, "eq": jnp.equal,
    "ne": jnp.not_equal,
}.items()}  # fmt: skip
UNARY = {"relu": nnx.relu, "elu": nnx.elu, "tanh": jnp.tanh, "logistic": nnx.sigmoid, "exp": jnp.exp, "log": jnp.log,
         "sqrt": jnp.sqrt, "rsqrt": jax.lax.rsqrt, "neg": jnp.negative, "abs": jnp.abs, "erf": jax.lax.erf,
         "square": jnp.square, "sin": jnp.sin, "cos": jnp.cos, "expm1": jnp.expm1, "log1p": jnp.log1p}  # fmt: skip
OPERATIONS = {
    **UNARY,
    **{name: _with_number(function) for name, function in (BINARY | COMPARE).items()},
    "where": _where,
    "max_pool": _max_pool,
    "mean_pool": _mean_pool,
    "blur_pool": _blur_pool,
    "over_group": _over_group,
    "over_space": _over_space,
    "concatenate": _concatenate,
    "reshape": _reshape,
    "upsample": _upsample,
}
"""The operations of a step, besides `"layer"`."""


def parameters_from(arrays: dict, network: PlainNetwork) -> PlainNetwork:
    """Sets the parameters of a network from {Flax path joined by ".": array}, as a safetensors file holds them.

    Raises:
      ValueError: the first array that is missing, or of another shape, or that the network does not have.
    """
    paths, shapes = {}, {}
    for path, leaf in nnx.to_flat_state(nnx.state(network)):
        name = ".".join(map(str, path))
        paths[name], shapes[name] = path, leaf.shape
    found = {name: jnp.shape(array) for name, array in arrays.items()}
    for name in [*shapes, *found]:
        if found.get(name) != shapes.get(name):
            raise ValueError(f"{name} has the shape {found.get(name)}, the network's has {shapes.get(name)}")
    state = {path: jnp.asarray(arrays[name]) for name, path in paths.items()}
    nnx.update(network, nnx.traversals.unflatten_mapping(state))
    return network
