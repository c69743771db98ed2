"""The convolution itself.  What a CPU needs otherwise is in `_convolve_cpu`."""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax.nnx.nn.dtypes import promote_dtype

from fconv_jax import _convolve_cpu as cpu
from fconv_jax._checks import below, whole

Padding = str | int


def padding_width(padding: Padding, kernel_size: int) -> int:
    """Returns the number of zeros that `padding` adds on each of the four sides.

    Args:
      padding: `"VALID"` (none), `"SAME"` ((k - 1) / 2, odd k only) or a number.
      kernel_size: k.

    Raises:
      ValueError: an unknown padding, a negative one, or `"SAME"` with an even k, which
        cannot be the same on both sides.
    """
    if isinstance(padding, str) and padding == "VALID":
        return 0
    if isinstance(padding, str) and padding == "SAME":
        if kernel_size % 2 == 0:
            raise ValueError(f"padding 'SAME' needs an odd kernel_size (={kernel_size}): else it is not symmetric")
        return (kernel_size - 1) // 2
    width = whole("padding", padding, least=None, rule="'VALID', 'SAME' or a number of pixels")
    if width < 0:
        raise ValueError(f"padding (={width}) must not be negative")
    return width


def convolve(x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: Padding = 0) -> jax.Array:
    """Returns the cross-correlation y[b, i, j, m] = sum_{u, v, n} x[b, s i + u - w, s j + v - w, n] kernel[u, v, n, m].

    w is the padding and s the stride; pixels outside are zero.  On a GPU, and by default also on a CPU, this is
    `lax.conv_general_dilated`; how a CPU computes it otherwise: `convolution_algorithm`.

    Args:
      x: `[batch, height, width, in]`, of any type of pixels: promoted as by `nnx.Conv`.
      kernel: `[k, k, in, out]`.
      strides: s, the same along both axes.
      padding: as in `padding_width`.

    Returns:
      `[batch, (height + 2 w - k) // s + 1, (width + 2 w - k) // s + 1, out]`.

    Raises:
      ValueError: an image smaller than the kernel, or a stride below 1.
    """
    k = kernel.shape[0]
    width, strides = padding_width(padding, k), whole("strides", strides)
    if x.ndim != 4 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {kernel.shape[2]}]")
    if any(below(size + 2 * width, k) for size in x.shape[1:3]):
        raise ValueError(f"an image of {x.shape[1]} x {x.shape[2]} with padding {width} is below the kernel (={k})")
    x, kernel = promote_dtype((x, kernel))
    return _convolve(x, kernel, strides=strides, width=width, algorithm=_algorithm.get())


@functools.partial(jax.jit, static_argnames=("strides", "width", "algorithm"))
def _convolve(x, kernel, *, strides, width, algorithm):
    if kernel.shape[0] == 1 and width == 0:  # one product: as fast as XLA's convolution, its gradients much faster
        return x[:, ::strides, ::strides] @ kernel[0, 0]
    way = cpu.choose(algorithm, x, kernel, strides)
    if way is None:
        return cpu.direct(x, kernel, strides=strides, width=width)
    return way(x, kernel, strides=strides, width=width)


ALGORITHMS = ("auto", "loops", "direct")

_algorithm = contextvars.ContextVar("fconv_jax_convolution_algorithm", default="auto")


@contextlib.contextmanager
def convolution_algorithm(name: str) -> Iterator[None]:
    """Says how convolutions that are traced in this context are computed on a CPU; all ways agree to rounding.

    Args:
      name: `"auto"`, the default: `lax.conv_general_dilated`, with gradients in the layout that is fast on a CPU, in
        loops too; `"loops"`: also matrix products in place of small convolutions, for programs that convolve a few
        channels inside `lax.scan`, `lax.map` or `jax.vmap`; `"direct"`: `lax.conv_general_dilated` and nothing else,
        without a choice between backends.

    It has no effect on other backends.  It counts when a function is traced: wrap the call that compiles.

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
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, *, strides: int = 1, padding: Padding = 0
) -> jax.Array:
    """Convolves a field `[batch, height, width, t, in]` or image with a filter of `fconv_jax.filters`.

    The rotation and feature axes are flattened into channels and split again: the filter's
    axes after row and column are those of the input (`[in]` or `[t, in]`) and then those of the
    output (`[out]` or `[t, out]`).  `bias` `[out]` is added to every rotation.
    """
    num_input_axes = x.ndim - 3
    x, kernel, bias = promote_dtype((x, kernel, bias))
    inputs, outputs = kernel.shape[2 : 2 + num_input_axes], kernel.shape[2 + num_input_axes :]
    if x.shape[3:] != inputs:
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {', '.join(map(str, inputs))}]")
    flat_kernel = kernel.reshape(*kernel.shape[:2], math.prod(inputs), math.prod(outputs))
    y = convolve(x.reshape(*x.shape[:3], math.prod(inputs)), flat_kernel, strides=strides, padding=padding)
    if bias is not None:
        y = y + flat_channels(jnp.broadcast_to(bias, outputs), 0)[None, None, None]
    return y.reshape(*y.shape[:3], *outputs)


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
    unit = all(value in (None, 1, (1, 1)) for value in options.values())
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
    ):
        return convolve(lhs, rhs, strides=int(window_strides[0]), padding=int(widths.pop()))
    return jax.lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, dimension_numbers=dimension_numbers, **options
    )
