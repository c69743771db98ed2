"""Why a stage breaks quarter turns, in words."""

from collections.abc import Sequence

from flax import nnx

from fconv_jax._arguments import misfit
from fconv_jax._traced import POOLS, Cause, Stage
from fconv_jax.layers import _FConv

NOT_FINITE = "its output is not finite"
OTHER = "it does not commute with quarter turns"
CUTS = ("slice", "dynamic_slice", "gather", "pad")
"""Equations that cut or pad a map."""
PLAIN = "a plain convolution: its filters have one direction"
STRIDE = "does not fit the size: it starts at one border and stops short of the other"
NORMS = (nnx.BatchNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.RMSNorm)


def of_layer(stage: Stage, x: Sequence[int], y: Sequence[int]) -> str:
    """The reason that a layer or pool, from shape x to y, is known for; empty if none."""
    layer = stage.stage
    if isinstance(layer, _FConv):
        if not layer.group.keeps_grid:
            return f"a rotation by 90 degrees is not among those of {layer.group}"
        first = len(x) - (4 if layer._from_field else 3)
        if found := misfit(layer, x[first : first + 2]):
            size, fit = found
            advice = f"; a kernel of {fit[0]} x {fit[0]} with padding {fit[1]} fits {size} pixels" if fit else ""
            return f"its stride of {layer.strides} {STRIDE}{advice}"
    is_point = isinstance(layer, nnx.Conv) and max(layer.kernel_size) == 1 and len(x) > 3
    if is_point and (stride := _one(layer.strides)) and any((size - 1) % stride for size in x[1:3]):
        return f"its stride of {stride} {STRIDE}"
    if isinstance(layer, (nnx.Conv, nnx.ConvTranspose)):
        return PLAIN
    if isinstance(layer, NORMS):
        return (
            "it normalises or scales by rows, columns or rotations, which a rotation exchanges: over all, or channels"
        )
    if getattr(layer, "__name__", "").startswith("corner_") and "window" in stage.options and len(x) > 3:
        window, padding = stage.options["window"], stage.options["padding"]
        padding = (window - 1) // 2 if padding is None else padding
        return _windows(x[1], y[1], window, stage.options.get("strides") or window, padding, padding)
    return ""


def of_cause(cause: Cause | None, y: Sequence[int]) -> str:
    """The reason that an equation lost quarter turns, as seen in an array of shape y that came of it."""
    if cause is None:
        return OTHER
    options, name, x = cause.equation.params, cause.equation.primitive.name, cause.source
    if name in POOLS and len(x) > 3:
        windows, strides, padding = (options[key] for key in ("window_dimensions", "window_strides", "padding"))
        if len(x) == 5 and windows[3] > 1:
            return "it pools a field over width and rotations; `spatial_max_pool` and `spatial_mean_pool` do not"
        given = padding[1][0] if len(set(padding[1])) == 1 else " and ".join(map(str, padding[1]))
        size = (x[1] + sum(padding[1]) - windows[1]) // strides[1] + 1
        return _windows(x[1], size, windows[1], strides[1], padding[1][0], given)
    positions = f"the {'x'.join(map(str, x[1:3]))} positions{' and the rotations' if len(x) == 5 else ''}"
    if name == "reshape" and len(x) > 3 and len(y) == 2:
        return f"it makes a vector of {positions}: what follows sees a rotated map as another vector"
    if len(x) == len(y) > 3 and y[1] % x[1] == 0 and y[1] > x[1] and y[-1] * (y[1] // x[1]) ** 2 == x[-1]:
        return "a pixel shuffle: it lays channels out as pixels in a fixed order; `upsample` and a convolution do not"
    if name == "conv_general_dilated":
        return PLAIN
    if len(cause.constant) > 2:
        shape = "x".join(map(str, cause.constant))
        return f"an array of {shape} that depends on the position meets the map ({name}): a position encoding"
    cut = tuple(cause.equation.outvars[0].aval.shape)
    if name in CUTS and len(x) == 5 and cut[1:3] == tuple(x[1:3]) and cut[3:] != tuple(x[3:]):
        return f"it takes some of the rotations and leaves the others ({name}); `restrict` keeps those of a subgroup"
    if name in CUTS:
        return f"it cuts or pads a map of {'x'.join(map(str, x[1:3]))} more at one border than at the other ({name})"
    if len(x) > 3 and len(y) == 2:
        return f"a vector of {y[1]} numbers that depends on {positions}: a rotated map is another vector"
    return f"{OTHER} ({name})"


def _one(value) -> int:
    return _one(value[0]) if isinstance(value, (tuple, list)) else value


def _windows(size, result, window, stride, low, given):
    """Windows from the top-left corner: how many of the last pixels none sees; empty if symmetric."""
    dropped = size + low - ((result - 1) * stride + window)
    if dropped == -low:  # as much room at both borders
        return ""
    lines = "the last row and column" if dropped == 1 else f"the last {dropped} rows and columns"
    return (
        f"windows of {window}{'' if stride == window else f' at a stride of {stride}'} with padding {given} do not "
        f"tile {size} pixels: {size} -> {result} "
        f"{f'drops {lines}' if dropped > 0 else 'with more room at one border than at the other'} "
        "(the symmetric pools do not)"
    )
