"""Why a stage breaks quarter turns, in words."""

from collections.abc import Sequence

from flax import nnx

from fconv_jax._traced import POOLS, Cause, Stage
from fconv_jax.group import group_of

NOT_FINITE = "its output is not finite"
OTHER = "it does not commute with quarter turns"
CUTS = ("slice", "dynamic_slice", "gather", "pad")
"""Equations that cut or pad a map."""
PLAIN = "a plain convolution: its filters have one direction"
NORMS = (nnx.BatchNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.RMSNorm)


def of_layer(stage: Stage, x: Sequence[int], y: Sequence[int]) -> str:
    """The reason that a layer or pool, from shape x to y, is known for; empty if none."""
    layer, group = stage.stage, group_of(stage.stage)
    if hasattr(layer, "strides") and (group is not None or isinstance(layer, nnx.Conv)) and len(x) > 3:
        if group is not None and not group.keeps_grid:
            return f"a rotation by 90 degrees is not among those of {group}"
        kernel, stride = _one(getattr(layer, "kernel_size", 1)), _one(layer.strides)
        if group is None and kernel > 1:
            return PLAIN
        padding, dilation = getattr(layer, "padding", 0), _one(getattr(layer, "kernel_dilation", 1))
        reach = dilation * (kernel - 1) + 1
        width = (0 if padding == "VALID" else (reach - 1) // 2) if isinstance(padding, str) else _one(padding)
        misfits = [i for i in (1, 2) if (x[i] + 2 * width - reach) % stride]
        if misfits:
            i = misfits[0]
            return _stride(x[i], y[i], kernel, width, stride, advise=dilation == 1 and kernel > 1 and x[1] == x[2])
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
    if name in CUTS:
        return f"it cuts or pads a map of {'x'.join(map(str, x[1:3]))} more at one border than at the other ({name})"
    if len(x) > 3 and len(y) == 2:
        return f"a vector of {y[1]} numbers that depends on {positions}: a rotated map is another vector"
    return f"{OTHER} ({name})"


def _one(value) -> int:
    return _one(value[0]) if isinstance(value, (tuple, list)) else value


def _stride(size, result, kernel, padding, stride, advise):
    """A stride that does not fit, and the closest kernel and padding that do."""
    fitting = [
        (abs(k - kernel) + abs(w - padding), -k, w)
        for k in range(1, kernel + stride + 1)
        for w in range(padding + stride + 1)
        if (size + 2 * w - k) % stride == 0 and (size + 2 * w - k) // stride + 1 == result
    ]
    words = f"its stride of {stride} does not fit the size: it starts at one border and stops short of the other"
    if not fitting or not advise:
        return words
    _, k, w = min(fitting)
    return f"{words}; a kernel of {-k} x {-k} with padding {w} fits {size} pixels"


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
