"""Why a stage breaks quarter turns, in words."""

import inspect

import jax.numpy as jnp
from flax import nnx

from fconv_jax import pooling
from fconv_jax.calls import FLAX_POOLS, Call
from fconv_jax.convolve import padding_width
from fconv_jax.layers import _FConv

OTHER = "it does not commute with quarter turns"


def reason(call: Call) -> str:
    """Says why a stage that is known to break quarter turns does so."""
    stage = call.stage
    name = getattr(getattr(stage, "func", stage), "__name__", "")
    if not bool(jnp.isfinite(call.y).all()):
        return "its output is not finite"
    if isinstance(stage, _FConv):
        if not stage.group.keeps_grid:
            return f"a rotation by 90 degrees is not among its {stage.group.num_rotations} rotations"
        if call.x.ndim > 3 and _room(call.x.shape[1], stage) % stage.strides:
            return (
                f"its stride of {stage.strides} does not fit the size: "
                "it starts at one border and stops short of the other"
            )
    if name in ("corner_max_pool", "corner_blur_pool", *FLAX_POOLS) and call.x.ndim > 3:
        return _pool_reason(call, name) or OTHER
    if isinstance(stage, nnx.Conv):
        return "a plain convolution: its filters have one direction"
    if call.x.ndim > 3 and call.y.ndim == 2:
        return (
            f"it makes a vector of the {'x'.join(map(str, call.x.shape[1:3]))} positions"
            f"{' and the rotations' if call.x.ndim == 5 else ''}: what follows sees a turned map as another vector"
        )
    return OTHER


def _room(size, layer):
    """How far a layer's kernel can move."""
    return size + 2 * padding_width(layer.padding, layer._reach()) - layer._reach()


def between(call: Call) -> str:
    """Says what is known of a break between the stage before and the input of this one."""
    if call.options.get("unseen"):
        return "none of its layers was seen at work; if that is in a jitted function, audit the network without it"
    if call.x.ndim == 2:
        return (
            f"a vector of {call.x.shape[-1]} numbers that depends on positions or rotations: a turned map is "
            "another vector"
        )
    return "the network does more than its layers and pools"


def _pool_reason(call, name):
    """Windows from the top-left corner: how many of the last pixels none sees; empty if symmetric."""
    function = getattr(pooling, name, None) or getattr(nnx, name)
    defaults = {n: p.default for n, p in inspect.signature(function).parameters.items()}
    options = {**defaults, **call.options}
    size, result = call.x.shape[1], call.y.shape[1]
    if name in FLAX_POOLS:
        window, strides = options["window_shape"][0], (options["strides"] or (1,))[0]
        padding = options["padding"]
        if padding == "SAME":
            low = max((result - 1) * strides + window - size, 0) // 2
        else:
            low = 0 if padding == "VALID" else padding[0][0]
        given = padding if isinstance(padding, str) else low
    else:
        window, strides = options["window"], options.get("strides") or options["window"]
        given = low = pooling._blur_padding(window, options["padding"])
    stride = "" if strides == window else f" at a stride of {strides}"
    dropped = size + low - ((result - 1) * strides + window)
    if dropped == -low:  # as much room at both borders
        return ""
    if dropped > 0:
        lines = "the last row and column" if dropped == 1 else f"the last {dropped} rows and columns"
        what = f"drops {lines}"
    else:
        what = "with more room at one border than at the other"
    return (
        f"windows of {window}{stride} with padding {given} do not tile {size} pixels: {size} -> {result} {what} "
        "(the symmetric pools do not)"
    )
