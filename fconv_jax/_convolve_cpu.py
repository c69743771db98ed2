"""How a CPU convolves: which of the ways below, by which measured rule (docs/performance.md).

Each way takes (x `[batch, height, width, in]`, kernel `[k, k, in, out]`, strides, width: zeros on each side) and gives
what `direct` gives, to rounding.
"""

import functools
import operator
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

FEW_INPUTS, MANY_INPUTS, WINOGRAD_CHANNELS = 80, 800, 16
MANY_CHANNELS = 48
"""Input channels from which the kernel's gradient may be a sum of matrix products."""
SLOW = 2.5
_ZERO = np.int32(0)
CHUNK_NUMBERS = 2**20
"""Numbers, of a window and of the output, that are in the cache at a time (4 MB of float32)."""


def choose(algorithm: str, x, kernel, strides: int, width: int):
    """Returns how a convolution is computed, or `None` for `direct` on every backend.

    Measured by `python -m benchmarks.convolutions`:

    - XLA's convolution is the fastest forward, and for the input's gradient, where it stands alone.
    - The gradient of a kernel with many channels is 5 to 15 times slower than matrix products on some CPUs, and about
      as fast on others: `slow_kernel_gradient` tries which.  Programs that ask for "loops" take the products anywhere.
    - Below the kernel's size, inside loops and under vmap, matrix products are many times faster.
    """
    full_precision = jnp.promote_types(x.dtype, kernel.dtype) in (jnp.float32, jnp.float64)
    if algorithm == "direct" or _is_sharded(x):
        return None
    if algorithm == "loops":
        way = _in_loops(x, kernel, strides, full_precision)
        if way is not None:
            return functools.partial(_on_cpu, way)
    elif kernel.shape[0] > min(x.shape[1:3]):
        return functools.partial(_on_cpu, by_windows)
    if kernel.shape[2] >= MANY_CHANNELS and full_precision and x.dtype == kernel.dtype:
        return functools.partial(with_kernel_gradient, always=algorithm == "loops")
    return None


@functools.cache
def slow_kernel_gradient() -> bool:
    """Whether XLA's gradient of a kernel is `SLOW` times slower than matrix products on this machine's CPU.

    Tried once in a process, on one small convolution (about 0.2 s).  Where another backend is the default it is
    assumed, since a CPU is then only a fallback.
    """
    if jax.default_backend() != "cpu":
        return True
    x, g, kernel = (np.ones(shape, np.float32) for shape in ((8, 16, 16, 64), (8, 16, 16, 64), (3, 3, 64, 64)))
    on_cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])

    def seconds(way):
        def gradient(x, g, kernel):
            return jax.vjp(lambda kernel: way(x, kernel, strides=1, width=1), kernel)[1](g)

        shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=on_cpu) for each in (x, g, kernel)]
        compiled, times = jax.jit(gradient).lower(*shapes).compile(), []
        for _ in range(4):  # the first is slower
            started = time.perf_counter()
            jax.block_until_ready(compiled(x, g, kernel))
            times.append(time.perf_counter() - started)
        return min(times)

    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        return seconds(direct) > SLOW * seconds(with_kernel_gradient)


def _in_loops(x, kernel, strides, full_precision):
    k, in_features, out_features = kernel.shape[0], *kernel.shape[2:]
    if strides == 1 and k > 1 and k * k * in_features <= FEW_INPUTS:
        return by_blocks
    if strides == 1 and k == 3 and min(in_features, out_features) >= WINOGRAD_CHANNELS and full_precision:
        return by_winograd
    if k * k * in_features <= MANY_INPUTS or k > min(x.shape[1:3]):
        return by_windows
    return None


def _is_sharded(x):
    """Whether an axis is spread over a mesh with explicit axes: there XLA's convolution knows what to do."""
    spec = getattr(getattr(jax.typeof(x), "sharding", None), "spec", ())
    return any(axis is not None for axis in spec)


def _on_cpu(way, x, kernel, *, strides, width):
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(way, strides=strides, width=width),
        default=functools.partial(direct, strides=strides, width=width),
    )


def with_kernel_gradient(x, kernel, *, strides, width, always=True):
    """XLA's convolution, whose gradient of the kernel is a sum of matrix products, `always` or where XLA's is slow."""
    return _with_kernel_gradient(strides, width, always, x, kernel)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _with_kernel_gradient(strides, width, always, x, kernel):
    del always
    return direct(x, kernel, strides=strides, width=width)


@functools.partial(_with_kernel_gradient.defjvp, symbolic_zeros=True)
def _with_kernel_gradient_jvp(strides, width, always, primals, tangents):
    (x, kernel), (x_tangent, kernel_tangent) = primals, tangents
    products = not isinstance(kernel_tangent, SymbolicZero) and (always or slow_kernel_gradient())
    if products:  # products and convolution then share what feeds them, in place of computing it twice
        x = jax.lax.optimization_barrier(x)
    y, parts = _with_kernel_gradient(strides, width, always, x, kernel), []
    if not isinstance(x_tangent, SymbolicZero):
        parts.append(direct(x_tangent, kernel, strides=strides, width=width))
    if products:
        # Only x is kept for the backward pass, not its windows.
        along = jax.checkpoint(functools.partial(_on_cpu, by_taps, strides=strides, width=width), prevent_cse=False)
        parts.append(along(x, kernel_tangent))
    elif not isinstance(kernel_tangent, SymbolicZero):
        parts.append(direct(x, kernel_tangent, strides=strides, width=width))
    tangent = functools.reduce(operator.add, parts) if parts else jnp.zeros_like(y)
    return y, jax.lax.optimization_barrier(tangent) if products else tangent


def by_taps(x, kernel, *, strides, width):
    """A product for each of the kernel's k x k taps, over chunks of the output whose windows stay in the cache.

        y[p] = sum_{u, v} x[s p + (u, v)] @ kernel[u, v].

    Its transpose along the kernel, `kernel[u, v] = sum_p x[s p + (u, v)]^T y[p]`, is the kernel's gradient.
    """
    k, _, in_features, out_features = kernel.shape
    x = jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)))
    height, columns = ((size - k) // strides + 1 for size in x.shape[1:3])
    images, rows = _chunk(x.shape[0], height, columns, CHUNK_NUMBERS // (in_features + out_features))
    across, down = x.shape[0] // images, -(-height // rows)
    seen = (rows - 1) * strides + k
    missing = (down - 1) * rows * strides + seen - x.shape[1]
    x = jnp.pad(x, ((0, 0), (0, max(missing, 0)), (0, 0), (0, 0)))
    spans = ((rows - 1) * strides + 1, (columns - 1) * strides + 1)

    def tap(y, pixels, weights, u, v):
        window = jax.lax.dynamic_slice(pixels, (_ZERO, u, v, _ZERO), (images, *spans, in_features))
        return y + window[:, ::strides, ::strides].reshape(-1, in_features) @ weights

    def chunk(kernel, image, row):
        pixels = jax.lax.dynamic_slice(x, (image, row, _ZERO, _ZERO), (images, seen, x.shape[2], in_features))
        y = jnp.zeros((images * rows * columns, out_features), x.dtype)

        def add(y, each):
            return tap(y, pixels, *each), None

        u, v = np.divmod(np.arange(k * k, dtype=np.int32), k)
        taps = (kernel.reshape(k * k, in_features, out_features), u, v)
        return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), y, taps)[0]

    chunk = jax.checkpoint(chunk, prevent_cse=False)
    if across * down == 1:
        y = chunk(kernel, _ZERO, _ZERO)
    else:
        image, row = np.divmod(np.arange(across * down, dtype=np.int32), down)
        y = jax.lax.map(lambda place: chunk(kernel, *place), (image * images, row * rows * strides))
    y = y.reshape(across, down, images, rows, columns, out_features).transpose(0, 2, 1, 3, 4, 5)
    return y.reshape(x.shape[0], down * rows, columns, out_features)[:, :height]


def _chunk(batch, height, width, pixels):
    """Images, and rows of each, that are computed at a time: about `pixels` pixels."""
    if height * width >= pixels:
        pieces = min(height, -(-height * width // max(pixels, 1)))
        return 1, -(-height // pieces)
    images = min(batch, pixels // (height * width))
    return next((n for n in range(images, 0, -1) if batch % n == 0), 1), height


def direct(x, kernel, *, strides, width):
    """XLA's own convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(strides, strides),
        padding=((width, width), (width, width)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
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
    return y.reshape(y.shape[0], 2 * tiles[0], 2 * tiles[1], -1)[:, : sizes[0], : sizes[1]]


def _both_axes(transform, table):
    """Applies a one-dimensional transform along the columns and then the rows of a table of arrays."""
    table = [transform(column) for column in zip(*table, strict=True)]
    return [transform(row) for row in zip(*table, strict=True)]


def _pad_or_crop(x, width, ends):
    """Adds `width` zeros in front of rows and columns and `ends` behind them; negative ends crop."""
    no = (0, 0, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), (no, (width, ends[0], 0), (width, ends[1], 0), no))
