"""The convolution itself.  What a CPU needs otherwise is in `_convolve_cpu`."""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import PrecisionLike

from fconv_jax import _convolve_cpu as cpu
from fconv_jax._checks import below, same, whole

Padding = str | int | Sequence[int] | Sequence[Sequence[int]]
_MODES = {"CIRCULAR": "wrap", "REFLECT": "reflect"}


def padding_width(padding: Padding, kernel_size: int) -> int:
    """Returns the number of pixels that `padding` adds on each of the four sides.

    Args:
      padding: `"VALID"` (none), `"SAME"`, `"CIRCULAR"` or `"REFLECT"` ((k - 1) / 2, odd k only; zeros, the image
        repeated, or mirrored at its outer pixels), a number of zeros, or equal numbers or equal pairs of them.
      kernel_size: k; of a dilated kernel with its gaps.

    Raises:
      ValueError: an unknown padding, a negative one, one that differs between the sides, or `"SAME"` with an even k,
        which cannot be the same on both sides.
    """
    if isinstance(padding, str) and padding == "VALID":
        return 0
    if isinstance(padding, str) and padding in ("SAME", *_MODES):
        if kernel_size % 2 == 0:
            raise ValueError(f"padding {padding!r} needs an odd kernel_size (={kernel_size}): else it is not symmetric")
        return (kernel_size - 1) // 2
    rule = "'VALID', 'SAME', 'CIRCULAR', 'REFLECT' or a number of pixels that is the same on each side"
    number = padding if isinstance(padding, str) else same("padding", padding, rule="a number of pixels", depth=2)
    width = whole("padding", number, least=None, rule=rule)
    if width < 0:
        raise ValueError(f"padding (={width}) must not be negative")
    return width


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int = 1,
    padding: Padding = 0,
    kernel_dilation: int = 1,
    feature_group_count: int = 1,
    precision: PrecisionLike = None,
) -> jax.Array:
    """Returns the cross-correlation of images and a kernel.

        y[b, i, j, m] = sum_{u, v, n} x[b, s i + d u - w, s j + d v - w, n] kernel[u, v, n, m]

    w is the padding, s the stride and d the dilation; pixels outside are zero, or those that the padding says.  On a
    GPU, and by default also on a CPU, this is `lax.conv_general_dilated`; how a CPU computes it otherwise:
    `convolution_algorithm`.

    Args:
      x: `[batch, height, width, in]`, of any type of pixels: promoted as by `nnx.Conv`.
      kernel: `[k, k, in / feature_group_count, out]`.
      strides: s, the same along both axes.
      padding: as in `padding_width`.
      kernel_dilation: d.
      feature_group_count: into how many parts inputs and outputs are split, each convolved separately.
      precision: of the products, as in `jax.lax`.

    Returns:
      `[batch, (height + 2 w - k') // s + 1, (width + 2 w - k') // s + 1, out]`, k' = d (k - 1) + 1.

    Raises:
      ValueError: a kernel that is not square, an image smaller than the kernel, or a stride below 1.
    """
    if kernel.ndim != 4 or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"kernel of shape {kernel.shape} must be [k, k, in, out]: a kernel that rotates is square")
    d, strides = whole("kernel_dilation", kernel_dilation), whole("strides", strides)
    k = d * (kernel.shape[0] - 1) + 1
    width, parts = padding_width(padding, k), whole("feature_group_count", feature_group_count)
    if x.ndim != 4 or x.shape[-1] != kernel.shape[2] * parts:
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {kernel.shape[2] * parts}]")
    if any(below(size + 2 * width, k) for size in x.shape[1:3]):
        raise ValueError(f"an image of {x.shape[1]} x {x.shape[2]} with padding {width} is below the kernel (={k})")
    x, kernel = promote_dtype((x, kernel))
    if isinstance(padding, str) and padding in _MODES and width:
        x, width = jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)), mode=_MODES[padding]), 0
    options = {"rhs_dilation": (d, d), "feature_group_count": parts, "precision": precision}
    if (d, parts, precision) != (1, 1, None):
        return _convolve_otherwise(x, kernel, strides=strides, width=width, **options)
    return _convolve(x, kernel, strides=strides, width=width, algorithm=_algorithm.get())


@functools.partial(jax.jit, static_argnames=("strides", "width", "algorithm"))
def _convolve(x, kernel, *, strides, width, algorithm):
    if kernel.shape[0] == 1 and width == 0:  # one product: as fast as XLA's convolution, its gradients no slower
        return x[:, ::strides, ::strides] @ kernel[0, 0]
    way = cpu.choose(algorithm, x, kernel, strides)
    if way is None:
        return cpu.direct(x, kernel, strides=strides, width=width)
    return way(x, kernel, strides=strides, width=width)


@functools.partial(jax.jit, static_argnames=("strides", "width", "rhs_dilation", "feature_group_count", "precision"))
def _convolve_otherwise(x, kernel, *, strides, width, **options):
    return cpu.direct(x, kernel, strides=strides, width=width, **options)


ALGORITHMS = ("auto", "loops", "direct")

_algorithm = contextvars.ContextVar("fconv_jax_convolution_algorithm", default="auto")


@contextlib.contextmanager
def convolution_algorithm(name: str) -> Iterator[None]:
    """Chooses how a CPU computes the convolutions that are traced in this context; all agree to rounding.

    Args:
      name: `"auto"`, the default: `lax.conv_general_dilated`, with gradients in the layout that is fast on a CPU, in
        loops too; `"loops"`: also matrix products in place of small convolutions, for programs that convolve a few
        channels inside `lax.scan`, `lax.map` or `jax.vmap`; `"direct"`: `lax.conv_general_dilated` and nothing else,
        without a choice between backends.

    It has no effect on other backends, and none on functions that are compiled already: wrap the call that traces.

    Raises:
      ValueError: an unknown name.

    >>> import jax, fconv_jax
    >>> with fconv_jax.convolution_algorithm("direct"):
    ...     y = fconv_jax.convolve(jax.numpy.ones((1, 5, 5, 2)), jax.numpy.ones((3, 3, 2, 4)))
    """
    if name not in ALGORITHMS:
        raise ValueError(f"algorithm (={name!r}) must be one of {', '.join(ALGORITHMS)}")
    token = _algorithm.set(name)
    try:
        yield
    finally:
        _algorithm.reset(token)


def convolve_fields(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    strides: int = 1,
    padding: Padding = 0,
    kernel_dilation: int = 1,
    feature_group_count: int = 1,
    precision: PrecisionLike = None,
) -> jax.Array:
    """Convolves a field `[batch, height, width, g, in]` or image with a filter of `fconv_jax.filters`.

    The group and feature axes are flattened into channels and split again: the filter's
    axes after row and column are those of the input (`[in]` or `[g, in]`) and then those of the
    output (`[out]` or `[g, out]`).  `bias` `[out]` is added to every element.  With `feature_group_count` the features
    are split, never the group, and the filter's `in` is that of one part.
    """
    num_input_axes, parts = x.ndim - 3, whole("feature_group_count", feature_group_count)
    x, kernel, bias = promote_dtype((x, kernel, bias))
    if num_input_axes not in (1, 2) or kernel.ndim - 2 - num_input_axes not in (1, 2) or kernel.shape[-1] % parts:
        raise ValueError(
            f"kernel of shape {kernel.shape} is no filter of {parts} parts for an input of shape {x.shape}"
        )
    inputs, outputs = kernel.shape[2 : 2 + num_input_axes], kernel.shape[2 + num_input_axes :]
    whole_inputs = (*inputs[:-1], inputs[-1] * parts)
    if x.shape[3:] != whole_inputs:
        raise ValueError(
            f"input of shape {x.shape} must be [batch, height, width, {', '.join(map(str, whole_inputs))}]"
        )
    flat, flat_kernel = x.reshape(*x.shape[:3], math.prod(whole_inputs)), kernel
    if parts > 1:  # `lax` splits channels in their order: the part before the element
        flat = _part_first(x, parts)
        flat_kernel = _part_first(kernel, parts, num_leading=2 + num_input_axes)
    flat_kernel = flat_kernel.reshape(*kernel.shape[:2], math.prod(inputs), math.prod(outputs))
    options = {"kernel_dilation": kernel_dilation, "feature_group_count": parts, "precision": precision}
    y = convolve(flat, flat_kernel, strides=strides, padding=padding, **options)
    if parts > 1 and len(outputs) == 2:
        y = y.reshape(*y.shape[:3], parts, outputs[0], outputs[1] // parts)
        y = jnp.swapaxes(y, 3, 4).reshape(*y.shape[:3], math.prod(outputs))
    if bias is not None:
        y = y + flat_channels(jnp.broadcast_to(bias, outputs), 0)[None, None, None]
    return y.reshape(*y.shape[:3], *outputs)


def _part_first(x, parts, num_leading=3):
    """Axes (g, parts * c) after the leading ones as one, (parts, g, c); without g as they are, flat."""
    leading, axes = x.shape[:num_leading], x.shape[num_leading:]
    if len(axes) == 2:
        x = jnp.swapaxes(x.reshape(*leading, axes[0], parts, axes[1] // parts), num_leading, num_leading + 1)
    return x.reshape(*leading, math.prod(axes))


def flat_channels(x: jax.Array, num_leading: int = 3) -> jax.Array:
    """Returns `x` with its axes after the first `num_leading` (rotation, feature) as one, channels.

    XLA's CPU programs are slow over a last axis of a few features, also where the axes are merged
    only in the middle of a fused loop: there the flat array, and its gradient, are made for themselves.
    """
    flat = x.reshape(*x.shape[:num_leading], math.prod(x.shape[num_leading:]))  # -1 fails for an empty batch
    if x.ndim - num_leading < 2:
        return flat
    return jax.lax.platform_dependent(flat, cpu=jax.lax.optimization_barrier, default=lambda y: y)


def conv_general_dilated(lhs, rhs, window_strides, padding, *, dimension_numbers, **options):
    """`lax.conv_general_dilated` for `nnx.Conv`, computed by `convolve` where that covers the case.

    Pass it as `nnx.Conv(..., conv_general_dilated=fconv_jax.conv_general_dilated)`; anything
    but a plain two-dimensional convolution of equal strides and paddings goes to `jax.lax`.
    """
    # A NumPy type equals None.
    unit = all(value is None or (isinstance(value, int | tuple) and value in (1, (1, 1))) for value in options.values())
    pads = {tuple(pair) for pair in padding} if not isinstance(padding, str) else set()
    widths = {width for pair in pads for width in pair}
    layout = dimension_numbers == jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    if (
        unit
        and layout
        and len(widths) == 1
        and min(widths) >= 0
        and len(set(window_strides)) == 1
        and rhs.shape[0] == rhs.shape[1]
        and not any(below(size + 2 * max(widths), rhs.shape[0]) for size in lhs.shape[1:3])
    ):
        return convolve(lhs, rhs, strides=int(window_strides[0]), padding=int(widths.pop()))
    return jax.lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, dimension_numbers=dimension_numbers, **options
    )
