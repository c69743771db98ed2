"""The convolution itself: the one place that decides how it is computed, on which backend."""

import functools

import jax
import jax.numpy as jnp

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
    on_cpu = _cpu_algorithm(x, kernel, strides)
    if on_cpu is _direct:  # without the choice around it: inside one, a CPU runs it some 20 times slower
        return _direct(x, kernel, strides=strides, width=width)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(on_cpu, strides=strides, width=width),
        default=functools.partial(_direct, strides=strides, width=width),
    )


def convolve_fields(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, *, strides: int = 1, padding: Padding = 0
) -> jax.Array:
    """Convolves a field `[batch, height, width, t, in]` or image with a filter of `fconv_jax.filters`.

    The rotation and feature axes are flattened into channels and split again: the filter's
    axes after row and column are those of the input (`[in]` or `[t, in]`) and then those of the
    output (`[out]` or `[t, out]`).  `bias` `[out]` is added to every rotation.
    """
    num_input_axes = x.ndim - 3
    inputs, outputs = kernel.shape[2 : 2 + num_input_axes], kernel.shape[2 + num_input_axes :]
    if x.shape[3:] != inputs:
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {', '.join(map(str, inputs))}]")
    flat_kernel = kernel.reshape(*kernel.shape[:2], _product(inputs), _product(outputs))
    y = convolve(x.reshape(*x.shape[:3], _product(inputs)), flat_kernel, strides=strides, padding=padding)
    if bias is not None:
        y = y + flat_channels(jnp.broadcast_to(bias, outputs), 0)
    return y.reshape(*y.shape[:3], *outputs)


def flat_channels(x: jax.Array, num_leading: int = 3) -> jax.Array:
    """Returns `x` with its axes after the first `num_leading` (rotation, feature) as one, channels.

    XLA's CPU programs are slow over a last axis of a few features, also where the axes are merged
    only in the middle of a fused loop: there the flat array, and its gradient, are made for themselves.
    """
    flat = x.reshape(*x.shape[:num_leading], -1)
    if x.ndim - num_leading < 2:
        return flat
    return jax.lax.platform_dependent(flat, cpu=jax.lax.optimization_barrier, default=lambda y: y)


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


def _cpu_algorithm(x, kernel, strides):
    """How a CPU computes this convolution.

    XLA's convolution is slow on a CPU where it has few channels, and 10 to 40 times slower inside
    a loop or under vmap; matrix products are fast everywhere.  Measured for this project's networks, see
    docs/performance.md.
    """
    k, in_features, out_features = kernel.shape[0], *kernel.shape[2:]
    if strides == 1 and k > 1 and k * k * in_features <= _FEW_INPUTS:
        return _by_blocks
    full_precision = jnp.promote_types(x.dtype, kernel.dtype) in (jnp.float32, jnp.float64)
    if strides == 1 and k == 3 and min(in_features, out_features) >= _WINOGRAD_CHANNELS and full_precision:
        return _by_winograd
    if k * k * in_features <= _MANY_INPUTS or k > min(x.shape[1:3]):  # XLA's own is 20 times slower below the kernel
        return _by_windows
    return _direct


_FEW_INPUTS, _MANY_INPUTS, _WINOGRAD_CHANNELS = 80, 800, 16


def _direct(x, kernel, *, strides, width):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=((width, width), (width, width)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _by_windows(x, kernel, *, strides, width):
    """One product of all k x k windows with the kernel."""
    k = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)))
    rows, columns = ((size - k) // strides * strides + 1 for size in x.shape[1:3])
    windows = [x[:, i : i + rows : strides, j : j + columns : strides] for i in range(k) for j in range(k)]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _by_blocks(x, kernel, *, strides, width):
    """One product that makes 2 x 2 output pixels at a time from the cells of 2 x 2 input pixels that they see."""
    del strides  # 1
    k, in_features, out_features = kernel.shape[0], *kernel.shape[2:]
    sizes = [size + 2 * width - k + 1 for size in x.shape[1:3]]
    blocks = [(size + 1) // 2 for size in sizes]
    seen = k // 2 + 1  # cells along an axis, for k + 1 input pixels
    ends = [2 * (n + seen - 1) - size - width for n, size in zip(blocks, x.shape[1:3], strict=True)]
    x = _pad_or_crop(x, width, ends)
    cells = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, in_features).transpose(0, 1, 3, 2, 4, 5)
    cells = cells.reshape(*cells.shape[:3], 4 * in_features)
    windows = [cells[:, i : i + blocks[0], j : j + blocks[1]] for i in range(seen) for j in range(seen)]
    # The kernel, moved to each of the four output pixels, in the order of the windows' entries.
    spare = 2 * seen - k
    moved = [jnp.pad(kernel, ((a, spare - a), (b, spare - b), (0, 0), (0, 0))) for a in (0, 1) for b in (0, 1)]
    moved = jnp.stack(moved, axis=3).reshape(seen, 2, seen, 2, in_features, 4 * out_features)
    moved = moved.transpose(0, 2, 1, 3, 4, 5).reshape(-1, 4 * out_features)
    y = jnp.concatenate(windows, axis=-1) @ moved
    y = y.reshape(*y.shape[:3], 2, 2, out_features).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(y.shape[0], 2 * blocks[0], 2 * blocks[1], out_features)[:, : sizes[0], : sizes[1]]


def _by_winograd(x, kernel, *, strides, width):
    """Winograd's F(2 x 2, 3 x 3): 16 products for 2 x 2 output pixels instead of 36 (Lavin, Gray, CVPR 2016)."""
    del strides  # 1
    sizes = [size + 2 * width - 2 for size in x.shape[1:3]]
    tiles = [(size + 1) // 2 for size in sizes]
    ends = [2 * n + 2 - size - width for n, size in zip(tiles, x.shape[1:3], strict=True)]
    x = _pad_or_crop(x, width, ends)
    rows, columns = 2 * tiles[0] - 1, 2 * tiles[1] - 1
    pixels = [[x[:, i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)]
    inputs = _both_axes(lambda d: (d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]), pixels)
    half = 0.5
    kernels = _both_axes(
        lambda g: (g[0], half * (g[0] + g[1] + g[2]), half * (g[0] - g[1] + g[2]), g[2]),
        [[kernel[i, j] for j in range(3)] for i in range(3)],
    )
    products = [[inputs[i][j] @ kernels[i][j] for j in range(4)] for i in range(4)]
    outputs = _both_axes(lambda m: (m[0] + m[1] + m[2], m[1] - m[2] - m[3]), products)
    y = jnp.stack([jnp.stack(row, axis=3) for row in outputs], axis=2)
    return y.reshape(y.shape[0], 2 * tiles[0], 2 * tiles[1], -1)[:, : sizes[0], : sizes[1]]


def _both_axes(transform, table):
    """Applies a one-dimensional transform along the columns and then the rows of a table of arrays."""
    table = [transform(column) for column in zip(*table, strict=True)]
    return [transform(row) for row in zip(*table, strict=True)]


def _pad_or_crop(x, width, ends):
    """Adds `width` zeros in front of rows and columns and `ends` behind them; negative ends crop."""
    no = (0, 0, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), (no, (width, ends[0], 0), (width, ends[1], 0), no))
