"""Layers and functions of this library, and stock layers, as steps of a plain network.

`x` is what a layer is given: `x.shape` its axes, `x.order` the size of its group axis (1 without one).
"""

import inspect
import itertools
import math

import jax
import numpy as np
from flax import nnx

from fconv_jax.convolve import conv_general_dilated, padding_width
from fconv_jax.group import as_group
from fconv_jax.layers import _FConv
from fconv_jax.vectors import directions

MAX_CONSTANT = 2**24
"""Numbers of an array that is made for a plain network."""


class NotPlainError(ValueError):
    """A network has an operation that stock layers cannot express."""


def affine_of(norm: dict, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns a batch norm in evaluation as (factor, shift)."""
    scale = norm.get("scale", 1.0) / np.sqrt(norm["var"].astype(np.float64) + epsilon)
    return scale, norm.get("bias", 0.0) - norm["mean"].astype(np.float64) * scale


def _tiled(array, order):
    return None if array is None else np.tile(np.asarray(array), order)


def _read(variable):
    return None if variable is None else np.asarray(variable[...], np.float32)


def _conv_arguments(kernel, **options):
    k, _, parts_in, out = kernel.shape
    parts = options.get("feature_group_count", 1)
    sizes = {"in_features": parts_in * parts, "out_features": out, "kernel_size": [k, kernel.shape[1]]}
    return ["Conv", {**sizes, **options}]


def _fconv(layer, x):
    if len(x.shape) != (5 if layer._from_field else 4):
        raise NotPlainError(f"{type(layer).__name__} over {x.shape}, not with one batch axis, has no plain form yet")
    kernel = np.asarray(layer.filter(), np.float32)
    inputs = kernel.shape[2:4] if layer._from_field else (1, kernel.shape[2])
    outputs = kernel.shape[-2:] if layer._to_field else (1, kernel.shape[-1])
    kernel = kernel.reshape(*kernel.shape[:2], *inputs, *outputs)
    parts = layer.feature_group_count
    if parts > 1:  # beside a group axis a part's channels are not adjacent: one dense kernel, zero between parts
        n, m = inputs[1], outputs[1] // parts
        whole = np.zeros((*kernel.shape[:3], n * parts, *kernel.shape[4:]), np.float32)
        for i in range(parts):
            whole[..., i * n : (i + 1) * n, :, i * m : (i + 1) * m] = kernel[..., i * m : (i + 1) * m]
        kernel, inputs = whole, (inputs[0], n * parts)
    kernel = kernel.reshape(*kernel.shape[:2], math.prod(inputs), math.prod(outputs))
    # With a stride, nnx.Conv's "SAME" pads the two sides of an even image differently.
    width = padding_width(layer.padding, layer._reach())
    padding = layer.padding if layer.padding in ("CIRCULAR", "REFLECT") else [[width] * 2] * 2
    spec = _conv_arguments(
        kernel, strides=[layer.strides] * 2, padding=padding, kernel_dilation=[layer.kernel_dilation] * 2,
        use_bias=layer.bias is not None,
    )  # fmt: skip
    return spec, {"kernel": kernel, "bias": _tiled(_read(layer.bias), outputs[0])}


def _conv(layer, x):
    if len(x.shape) != 4 or len(layer.kernel_size) != 2:
        raise NotPlainError(f"nnx.Conv over {x.shape} has no plain form yet")
    if layer.mask is not None or pair(layer.input_dilation) != (1, 1):
        raise NotPlainError("nnx.Conv with a mask or input_dilation has no plain form yet")
    padding = layer.padding.upper() if isinstance(layer.padding, str) else [list(p) for p in _pairs(layer.padding)]
    if padding == "SAME_LOWER" or (isinstance(padding, list) and min(map(min, padding)) < 0):
        raise NotPlainError(f"nnx.Conv with padding {layer.padding} has no plain form yet")
    spec = _conv_arguments(
        layer.kernel[...], strides=list(pair(layer.strides)), padding=padding, use_bias=layer.bias is not None,
        kernel_dilation=list(pair(layer.kernel_dilation)), feature_group_count=layer.feature_group_count,
    )  # fmt: skip
    return spec, {"kernel": _read(layer.kernel), "bias": _read(layer.bias)}


def pair(value) -> tuple:
    """One number as two; `None`, as flax has it, is 1."""
    return (1, 1) if value is None else (value, value) if isinstance(value, int) else tuple(value)


def _pairs(padding):
    return [pair(each) for each in pair(padding)]


def _linear(layer, x):
    if x.order**2 * layer.kernel.size > MAX_CONSTANT:
        raise NotPlainError(f"a dense layer of each of {x.order} parts of {x.shape} is too large as one of all of them")
    kernel = np.kron(np.eye(x.order, dtype=np.float32), np.asarray(layer.kernel[...], np.float32))
    sizes = {"in_features": kernel.shape[0], "out_features": kernel.shape[1], "use_bias": layer.bias is not None}
    return ["Linear", sizes], {"kernel": kernel, "bias": _tiled(_read(layer.bias), x.order)}


def _batch_norm(layer, x):
    if layer.axis not in (-1, len(x.shape) - 1):
        raise NotPlainError(f"nnx.BatchNorm along axis {layer.axis} of {x.shape} has no plain form yet")
    arrays = {name: _tiled(_read(getattr(layer, name)), x.order) for name in ("scale", "bias", "mean", "var")}
    arguments = {
        "num_features": layer.num_features * x.order,
        "epsilon": float(layer.epsilon),
        "momentum": float(layer.momentum),
    }
    arguments |= {"use_scale": arrays["scale"] is not None, "use_bias": arrays["bias"] is not None}
    return ["BatchNorm", arguments], arrays


def _layer_norm(layer, x):
    axes = sorted(int(axis) % len(x.shape) for axis in np.atleast_1d(layer.reduction_axes))
    last, is_field = len(x.shape) - 1, len(x.shape) in (3, 5)
    whole = [[last - 1, last]] * is_field + [[last]] * (x.order == 1)
    if axes not in whole or np.atleast_1d(layer.feature_axes).tolist() not in ([-1], [len(x.shape) - 1]):
        raise NotPlainError(f"nnx.LayerNorm over the axes {axes} of {x.shape} has no plain form yet")
    arrays = {name: _tiled(_read(getattr(layer, name)), x.order) for name in ("scale", "bias")}
    arguments = {"num_features": x.order * x.shape[-1], "epsilon": float(layer.epsilon)}
    arguments |= {"use_scale": arrays["scale"] is not None, "use_bias": arrays["bias"] is not None}
    return ["LayerNorm", arguments], arrays


LAYERS = {_FConv: _fconv, nnx.Conv: _conv, nnx.Linear: _linear, nnx.BatchNorm: _batch_norm, nnx.LayerNorm: _layer_norm}
"""Layers, each as ([class, arguments], arrays)."""


def is_a(module: nnx.Module, kind: type) -> bool:
    """Whether a module of a traced network does what the layer `kind` does: a subclass may do more."""
    if not isinstance(module, kind) or inspect.unwrap(type(module).__call__) is not kind.__call__:
        return False
    work = {
        "convolve_with": [getattr(kind, "convolve_with", None)],
        "conv_general_dilated": [jax.lax.conv_general_dilated, conv_general_dilated],
        "dot_general": [jax.lax.dot_general],
    }
    return all(getattr(type(module), name, getattr(module, name, known[0])) in known for name, known in work.items())


def _over_elements(name, weights):
    """`[before, after]` over the group axis, of the function's options, as a dense layer at each pixel."""

    def lower(lowering, options, x, out):
        if len(x.shape) not in (3, 5):
            raise NotPlainError(f"{name} of {x.shape}, not of a field, has no plain form yet")
        matrix = np.kron(weights(options), np.eye(x.shape[-1])).astype(np.float32)
        sizes = {"in_features": matrix.shape[0], "out_features": matrix.shape[1], "use_bias": False}
        return lowering.layer(name, ["Linear", sizes], {"kernel": matrix}, x, out)

    return lower


def _directions(options):
    return directions(as_group(options["group"]))


def _in_cosets(group, subgroup):
    """The permutation of a group's elements that lays them out by cosets: `restrict` as `[before, after]`."""
    return np.eye(group.order)[:, group.cosets(subgroup).ravel()]


def _over_group(kind):
    return lambda lowering, options, x, out: lowering.step("over_group", [x], out, order=int(x.order), kind=kind)


def _pool(operation, **fixed):
    return lambda lowering, options, x, out: lowering.pool(operation, options, x, out, **fixed)


FUNCTIONS = {
    "spatial_max_pool": _pool("max_pool"),
    "corner_max_pool": lambda lowering, options, x, out: lowering.pool(
        "max_pool", options | {"strides": options["window"]}, x, out, widen=False
    ),
    "spatial_mean_pool": _pool("mean_pool"),
    "blur_pool": _pool("blur_pool"),
    "corner_blur_pool": _pool("blur_pool", widen=False),
    "max_over_group": _over_group("max"),
    "mean_over_group": _over_group("mean"),
    "upsample": lambda lowering, options, x, out: lowering.step("upsample", [x], out, factor=int(options["factor"])),
    "to_vectors": _over_elements("vectors", lambda of: 2.0 / as_group(of["group"]).order * _directions(of).T),
    "from_vectors": _over_elements("vectors", _directions),
    "restrict": _over_elements("restrict", lambda of: _in_cosets(as_group(of["group"]), of["subgroup"])),
}
"""Functions of this library that are one step."""


def fold_norms(network, out: int) -> None:
    """Folds batch norms into the convolution or dense layer before, if nothing else reads it; value `out` is last.

    Steps that nothing reads go.
    """
    used = {out}
    for number, (_, inputs, _) in reversed([*enumerate(network.steps, start=1)]):
        used.update(inputs if number in used else ())
    read = [inputs for number, (_, inputs, _) in enumerate(network.steps, start=1) if number in used]
    uses, kept, moved = [out, *itertools.chain(*read)], [], {0: 0}
    for number, (operation, inputs, options) in enumerate(network.steps, start=1):
        if number not in used:
            if operation == "layer":
                del network.layers[options["name"]], network.arrays[options["name"]]
            continue
        inputs = [i if isinstance(i, str) else moved[i] for i in inputs]
        source = int(inputs[0]) if operation == "layer" else 0
        before = kept[source - 1] if source else None
        once = uses.count(network.steps[number - 1][1][0]) == 1
        if before is not None and once and _fold(network, before, options["name"]):
            moved[number] = source
            continue
        kept.append([operation, inputs, options])
        moved[number] = len(kept)
    network.steps = kept
    network.constants = {name: array for name, array in network.constants.items() if name in used}


def _fold(network, before, name):
    """Whether layer `name` is a batch norm that folds into the step before."""
    (norm, arguments), layer = network.layers[name], network.layers.get(before[2].get("name"), ("",))
    if norm != "BatchNorm" or before[0] != "layer" or layer[0] not in ("Conv", "Linear"):
        return False
    scale, shift = affine_of(network.arrays.pop(name), arguments["epsilon"])
    arrays = network.arrays[before[2]["name"]]
    arrays["kernel"] = (arrays["kernel"] * scale).astype(np.float32)
    arrays["bias"] = (arrays.get("bias", np.zeros(1)) * scale + shift).astype(np.float32)
    layer[1]["use_bias"] = True
    del network.layers[name]
    return True
