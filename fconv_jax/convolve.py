"""The convolution itself: the one place that decides how it is computed, on which backend."""

import functools

import jax

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
    if isinstance(padding, int) and not isinstance(padding, bool):
        if padding < 0:
            raise ValueError(f"padding (={padding}) must not be negative")
        return padding
    if padding == "VALID":
        return 0
    if padding == "SAME":
        if kernel_size % 2 == 0:
            raise ValueError(f"padding 'SAME' needs an odd kernel_size (={kernel_size}): else it is not symmetric")
        return (kernel_size - 1) // 2
    raise ValueError(f"padding (={padding!r}) must be 'VALID', 'SAME' or a number of pixels")


@functools.partial(jax.jit, static_argnames=("strides", "padding"))
def convolve(x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: Padding = 0) -> jax.Array:
    """Returns the cross-correlation y[b, i, j, m] = sum_{u, v, n} x[b, s i + u - w, s j + v - w, n] kernel[u, v, n, m].

    w is the padding and s the stride; pixels outside are zero.

    Args:
      x: `[batch, height, width, in]`.
      kernel: `[k, k, in, out]`.
      strides: s, the same along both axes.
      padding: as in `padding_width`.

    Returns:
      `[batch, (height + 2 w - k) // s + 1, (width + 2 w - k) // s + 1, out]`.

    Raises:
      ValueError: an image smaller than the kernel, or a stride below 1.
    """
    k = kernel.shape[0]
    width = padding_width(padding, k)
    if isinstance(strides, bool) or not isinstance(strides, int) or strides < 1:
        raise ValueError(f"strides (={strides!r}) must be a whole number of at least 1")
    if x.ndim != 4 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {kernel.shape[2]}]")
    if min(x.shape[1], x.shape[2]) + 2 * width < k:
        raise ValueError(f"an image of {x.shape[1]} x {x.shape[2]} with padding {width} is below the kernel (={k})")
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=((width, width), (width, width)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def convolve_fields(x: jax.Array, kernel: jax.Array, *, strides: int = 1, padding: Padding = 0) -> jax.Array:
    """Convolves a field `[batch, height, width, t, in]` or image with a filter of `fconv_jax.filters`.

    The rotation and feature axes are flattened into channels and split again: the filter's
    axes after row and column are those of the input (`[in]` or `[t, in]`) and then those of the
    output (`[out]` or `[t, out]`).
    """
    num_input_axes = x.ndim - 3
    inputs, outputs = kernel.shape[2 : 2 + num_input_axes], kernel.shape[2 + num_input_axes :]
    if x.shape[3:] != inputs:
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {', '.join(map(str, inputs))}]")
    flat_kernel = kernel.reshape(*kernel.shape[:2], _product(inputs), _product(outputs))
    y = convolve(x.reshape(*x.shape[:3], _product(inputs)), flat_kernel, strides=strides, padding=padding)
    return y.reshape(*y.shape[:3], *outputs)


def _product(sizes):
    return functools.reduce(lambda a, b: a * b, sizes, 1)


def conv_general_dilated(lhs, rhs, window_strides, padding, *, dimension_numbers, **options):
    """`lax.conv_general_dilated` for `nnx.Conv`, computed by `convolve` where that covers the case.

    Pass it as `nnx.Conv(..., conv_general_dilated=fconv_jax.conv_general_dilated)`; anything
    but a plain two-dimensional convolution of equal strides and paddings goes to `jax.lax`.
    """
    unit = all(value in (None, 1, (1, 1)) for value in options.values())
    pads = {tuple(pair) for pair in padding} if not isinstance(padding, str) else set()
    widths = {width for pair in pads for width in pair}
    layout = dimension_numbers == jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    if unit and layout and len(widths) == 1 and len(set(window_strides)) == 1 and rhs.shape[0] == rhs.shape[1]:
        return convolve(lhs, rhs, strides=int(window_strides[0]), padding=int(widths.pop()))
    return jax.lax.conv_general_dilated(
        lhs, rhs, window_strides, padding, dimension_numbers=dimension_numbers, **options
    )
