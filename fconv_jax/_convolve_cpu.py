"""How a CPU convolves: which of the ways below, by which measured rule (docs/performance.md).

Each way takes (x `[batch, height, width, in]`, kernel `[k, k, in, out]`, strides, width: zeros on each side) and gives
what `direct` gives, to rounding.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from fconv_jax._checks import below
from fconv_jax._precision import computing_type

FEW_INPUTS, MANY_INPUTS, WINOGRAD_CHANNELS = 80, 800, 16
WHOLE_BATCH, CHUNK_IMAGES = 32, 8
"""A kernel's gradient of up to so many images is one convolution; of more, one for each chunk of so many."""


def choose(algorithm: str, x, kernel, strides: int):
    """Returns how a convolution is computed, or `None` for `direct`, gradients too, on every backend.

    Measured by `python -m benchmarks.convolutions`:

    - XLA's own convolution is the fastest where it has the canonical layout (channels last): in the forward pass, and
      with the gradients of `with_gradients`.  Other layouts, which jax's gradients have, XLA makes canonical in a
      program's outermost level only: in a loop, or in a choice between backends, they mostly run 10 to 50 times slower.
    - Below the kernel's size, and for few channels in loops and under vmap, matrix products are many times faster.
    """
    if algorithm == "direct" or _is_sharded(x) or _is_sharded(kernel):
        return None
    way = _in_loops(x, kernel, strides) if algorithm == "loops" else None
    if way is None and any(below(size, kernel.shape[0]) for size in x.shape[1:3]):
        way = by_windows
    return with_gradients if way is None else functools.partial(_on_cpu, way)


def _in_loops(x, kernel, strides):
    k, in_features, out_features = kernel.shape[0], *kernel.shape[2:]
    full_precision = jnp.promote_types(x.dtype, kernel.dtype) in (jnp.float32, jnp.float64)
    if strides == 1 and k > 1 and k * k * in_features <= FEW_INPUTS:
        return by_blocks
    if strides == 1 and k == 3 and min(in_features, out_features) >= WINOGRAD_CHANNELS and full_precision:
        return by_winograd
    return by_windows if k * k * in_features <= MANY_INPUTS else None


def _is_sharded(x):
    """Whether it is spread over a mesh, by explicit axes or in `shard_map`: there jax's own gradients know its type."""
    kind = jax.typeof(x)
    spec, manual = getattr(getattr(kind, "sharding", None), "spec", ()), getattr(kind, "manual_axis_type", None)
    return any(axis is not None for axis in spec) or bool(getattr(manual, "varying", ()))


def _on_cpu(way, x, kernel, *, strides, width):
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(way, strides=strides, width=width),
        default=functools.partial(direct, strides=strides, width=width),
    )


def with_gradients(x, kernel, *, strides, width):
    """XLA's convolution; on a CPU its gradients are convolutions in the canonical layout."""
    return _with_gradients(strides, width, x, kernel)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _with_gradients(strides, width, x, kernel):
    return direct(x, kernel, strides=strides, width=width)


@functools.partial(_with_gradients.defjvp, symbolic_zeros=True)
def _with_gradients_jvp(strides, width, primals, tangents):
    (x, kernel), (x_tangent, kernel_tangent) = primals, tangents
    parts, y = [], _with_gradients(strides, width, x, kernel)
    if not isinstance(x_tangent, SymbolicZero):
        parts.append(_on_cpu(along_input, x_tangent, kernel, strides=strides, width=width))
    if not isinstance(kernel_tangent, SymbolicZero):
        # x is kept for the backward pass as it is, not in the layout or the chunks that are used there.
        along = functools.partial(_on_cpu, along_kernel, strides=strides, width=width)
        parts.append(jax.checkpoint(along, prevent_cse=False)(x, kernel_tangent))
    return y, functools.reduce(operator.add, parts) if parts else jnp.zeros_like(y)


def along_input(x, kernel, *, strides, width):
    """The convolution as the transpose of the input's gradient, which is one in the canonical layout.

    The gradient: y, strides apart, convolved with the kernel, flipped and with its features exchanged.
    """
    k, y = kernel.shape[0], jax.eval_shape(functools.partial(direct, strides=strides, width=width), x, kernel)

    def gradient(y):
        sizes = zip(x.shape[1:3], y.shape[1:3], strict=True)
        return jax.lax.conv_general_dilated(
            y,
            jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
            window_strides=(1, 1),
            padding=[(k - 1 - width, size - 1 + width - (count - 1) * strides) for size, count in sizes],
            lhs_dilation=(strides, strides),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return jax.linear_transpose(gradient, y)(x)[0]


def along_kernel(x, kernel, *, strides, width):
    """The convolution as the transpose of the kernel's gradient, which is one in the canonical layout.

    The gradient: the input convolved with y as the kernel, the images being the features that are summed.  It is a sum
    over chunks of images: of many at a time, the windows, as large as an image, leave the cache.
    """
    k, y = kernel.shape[0], jax.eval_shape(functools.partial(direct, strides=strides, width=width), x, kernel)

    def of_some(x, y):
        sizes = zip(x.shape[1:3], y.shape[1:3], strict=True)
        taps = jax.lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0),
            y.transpose(1, 2, 0, 3),
            window_strides=(1, 1),
            padding=[(width, k - size - width + (count - 1) * strides) for size, count in sizes],
            rhs_dilation=(strides, strides),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return taps.transpose(1, 2, 0, 3)

    def gradient(y):
        if not isinstance(x.shape[0], int) or x.shape[0] <= WHOLE_BATCH:  # no number: a symbol of `jax.export`
            return of_some(x, y)
        chunks = tuple(_in_chunks(array) for array in (x, y))
        zero = jnp.zeros(kernel.shape, computing_type(y.dtype))
        total = jax.lax.scan(lambda total, chunk: (total + of_some(*chunk).astype(zero.dtype), None), zero, chunks)[0]
        return total.astype(y.dtype)

    return jax.linear_transpose(gradient, y)(kernel)[0]


def _in_chunks(array):
    """`[batch, ...]` -> `[chunks, CHUNK_IMAGES, ...]`; images of zeros fill the last chunk."""
    missing = -array.shape[0] % CHUNK_IMAGES
    if missing:
        array = jnp.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1)))
    return array.reshape(-1, CHUNK_IMAGES, *array.shape[1:])


def direct(x, kernel, *, strides, width, **options):
    """XLA's own convolution; the options are those of `lax.conv_general_dilated`."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=((width, width), (width, width)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **options,
    )


def by_windows(x, kernel, *, strides, width):
    """One product of all k x k windows with the kernel."""
    k = kernel.shape[0]
    x = jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)))
    rows, columns = ((size - k) // strides * strides + 1 for size in x.shape[1:3])
    windows = [x[:, i : i + rows : strides, j : j + columns : strides] for i in range(k) for j in range(k)]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def by_blocks(x, kernel, *, strides, width):
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


def by_winograd(x, kernel, *, strides, width):
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
    return y.reshape(y.shape[0], 2 * tiles[0], 2 * tiles[1], kernel.shape[-1])[:, : sizes[0], : sizes[1]]


def _both_axes(transform, table):
    """Applies a one-dimensional transform along the columns and then the rows of a table of arrays."""
    table = [transform(column) for column in zip(*table, strict=True)]
    return [transform(row) for row in zip(*table, strict=True)]


def _pad_or_crop(x, width, ends):
    """Adds `width` zeros in front of rows and columns and `ends` behind them; negative ends crop."""
    no = (0, 0, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), (no, (width, ends[0], 0), (width, ends[1], 0), no))
