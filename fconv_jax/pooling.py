"""Pooling over space and over the group.

Images are `[batch, height, width, channel]`, fields `[batch, height, width, g, channel]`: spatial
pools work on both, pools over the group make an image of a field.  Both need their batch axis, under
`jax.vmap` too: without it a field looks like an image whose columns are the group.

The law of a spatial pool: windows of k pixels, s apart, on n pixels padded by w on both sides
are mirror-symmetric, and quarter turns exact, where s divides n + 2 w - k.  The symmetric pools
(`spatial_max_pool`, `spatial_mean_pool`, `blur_pool`) therefore widen their windows by the remainder,

    k' = k + (n + 2 w - k) mod s,

along each axis: neighbours then overlap a little, every pixel is seen (if s is at most k), and the output has the
size that it has in PyTorch, (n + 2 w - k) // s + 1.  Windows of 2 take 28 -> 14 -> 7 -> 3 (the
last with windows of 3, 2 apart); windows of 3, 2 apart, padded by 1, take 28 -> 14 -> 7 -> 4.  With
`widen=False` a remainder is a `ValueError`.  The `corner_` pools are PyTorch's: they start in
the top-left corner and drop the remainder, which breaks quarter turns.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from fconv_jax._checks import below, finite, real_pixels, whole
from fconv_jax._observed import observed
from fconv_jax._precision import narrowed, widened
from fconv_jax._tiles import tiled_maximum, tiles_maximum
from fconv_jax.convolve import flat_channels


@observed
def corner_max_pool(x: jax.Array, window: int = 2, *, padding: int = 0) -> jax.Array:
    """Maximum over windows laid out from the top-left corner, as PyTorch's `MaxPool2d(window, padding=...)`.

    A remainder at the bottom and at the right is dropped, so quarter turns are kept only where
    the window divides (size + 2 padding) (28 -> 14 is exact, 7 -> 3 is not).  It is here for the
    networks as published; `spatial_max_pool` is the symmetric one.

    Args:
      x: `[batch, height, width, ...]`.
      window: side of the window, and the stride.
      padding: pixels of the type's lowest number on each of the four sides, at most half the window.

    Returns:
      `[batch, (height + 2 padding) // window, (width + 2 padding) // window, ...]`.

    Raises:
      ValueError: an image smaller than the window, or an impossible number.
    """
    x = real_pixels(x)
    window, padding = _checked_window(x, window, padding, _maximum)
    if padding:
        pads = [(0, 0), (padding, padding), (padding, padding)] + [(0, 0)] * (x.ndim - 3)
        x = jnp.pad(x, pads, constant_values=_lowest(x.dtype))
    return tiles_maximum(x, window)


@observed
def spatial_max_pool(
    x: jax.Array, window: int = 2, *, strides: int | None = None, padding: int = 0, widen: bool = True
) -> jax.Array:
    """Maximum over symmetric windows: y[i, j] = max_{u < k'_h, v < k'_w} x[s i + u - w, s j + v - w].

    Law: quarter turns are exact at every size (k': see the module's docstring).  Where the largest of a window stands
    more than once, as in an even background, the gradient along x goes to one of them (windows that neither overlap
    nor are padded), or is shared among them: gradients along an image (saliency) then do not rotate with it, those
    along parameters do.

    Args:
      x: `[batch, height, width, ...]`, an image or a field.
      window: k.
      strides: s; `None` means the window.
      padding: w, pixels of minus infinity on each of the four sides, at most half the window.
      widen: let windows grow by the remainder; if not, a remainder is an error.

    Returns:
      `[batch, (height + 2 w - k) // s + 1, (width + 2 w - k) // s + 1, ...]`.

    Raises:
      ValueError: an image smaller than the window, an impossible number, or a remainder with `widen=False`.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.spatial_max_pool(jnp.ones((1, 7, 7, 8, 2))).shape
    (1, 3, 3, 8, 2)
    """
    x = real_pixels(x)
    window, padding = _checked_window(x, window, padding, _maximum)
    strides = window if strides is None else whole("strides", strides)
    tiled = strides == window and padding == 0 and all(size % window == 0 for size in x.shape[1:3])
    if tiled and x.ndim in (4, 5):  # the same windows, and faster
        return tiled_maximum(x, window)
    return _pool(x, window, strides, padding, widen, _maximum)


@observed
def spatial_mean_pool(
    x: jax.Array, window: int = 2, *, strides: int | None = None, padding: int = 0, widen: bool = True
) -> jax.Array:
    """Mean over symmetric windows: y[i, j] = sum_{u < k'_h, v < k'_w} x[s i + u - w, s j + v - w] / (k'_h k'_w).

    Law, Args, Returns, Raises: as for `spatial_max_pool`, but pixels outside are zeros, which count, and the mean of
    whole numbers is float32.  It is computed in float32 at least.

    >>> import jax.numpy as jnp, fconv_jax
    >>> fconv_jax.spatial_mean_pool(jnp.ones((1, 7, 7, 3)), 3, strides=2, padding=1).shape
    (1, 4, 4, 3)
    """
    return _pool(x, window, strides, padding, widen, _mean)


@observed
def blur_pool(
    x: jax.Array, window: int = 5, *, strides: int | None = 2, padding: int | None = None, widen: bool = True
) -> jax.Array:
    """Gaussian mean over symmetric windows, against aliasing: y[i, j] = sum_{u, v} g_h[u] g_w[v] x[s i + u - w, ...].

        g[u] proportional to exp(-(u - (k' - 1) / 2)^2 / (2 sigma^2)),   sigma = (k' - 1) / 6,   sum_u g[u] = 1.

    Law: quarter turns are exact at every size.  Pixels outside are zeros and borders are not renormalised.

    Args:
      x: `[batch, height, width, ...]`, an image or a field.
      window: k.
      strides: s, `None` means the window.
      padding: w, `None` means (k - 1) // 2.
      widen: as for `spatial_max_pool`.

    Returns, Raises: as for `spatial_mean_pool`.
    """
    return _pool(x, window, strides, _blur_padding(window, padding), widen, _blur)


@observed
def corner_blur_pool(x: jax.Array, window: int, *, strides: int | None = None, padding: int | None = None) -> jax.Array:
    """`blur_pool` laid out from the top-left corner, as the reference's: a remainder is dropped, the window stays k.

    Quarter turns are exact only where s divides (size + 2 w - k); there it equals `blur_pool`.
    """
    return _pool(x, window, strides, _blur_padding(window, padding), None, _blur)


@observed
def max_over_group(x: jax.Array) -> jax.Array:
    """Maximum over a field's group axis: y[b, i, j, c] = max_e x[b, i, j, e, c].

    Law: pool(e f) = e pool(f) exactly, where e moves the field's pixels and its group axis, and the image's pixels.

    Args:
      x: `[batch, height, width, g, channel]`.

    Returns:
      `[batch, height, width, channel]`.

    Raises:
      ValueError: an input that is not a field.
    """
    return jnp.max(_checked_field(x), axis=-2)


@observed
def mean_over_group(x: jax.Array) -> jax.Array:
    """Mean over a field's group axis: y[b, i, j, c] = sum_e x[b, i, j, e, c] / g.  Otherwise as `max_over_group`."""
    return jnp.mean(_checked_field(x), axis=-2)


def disk_mask(size: int, margin: float = 2.0) -> np.ndarray:
    """A soft disk that fades the corners, which leave the image when it is rotated.

        mask[i, j] = min(1, exp((T - (i - c)^2 - (j - c)^2) / 4)),   c = (size - 1) / 2,   T = (c - margin c / 100)^2.

    Args:
      size: side of the image in pixels.
      margin: percent of the radius left free, 0..100.

    Returns:
      float32 `[size, size]`, read-only; an image times `mask[..., None]`, a field times `mask[..., None, None]`.

    Raises:
      ValueError: a size below 1 or a margin outside 0..100.
    """
    size, margin = whole("size", size), finite("margin", margin)
    if not 0.0 <= margin <= 100.0:
        raise ValueError(f"margin (={margin:g}) must be a percentage, 0 to 100")
    return _disk_mask(size, margin)


@functools.cache
def _disk_mask(size, margin):
    centre = (size - 1) / 2
    offsets = np.arange(size) - centre
    distances = offsets[:, None] ** 2 + offsets**2
    limit = (centre - margin * centre / 100.0) ** 2
    mask = np.exp(np.minimum(limit - distances, 0.0) / 4.0).astype(np.float32)
    mask.setflags(write=False)
    return mask


@functools.partial(jax.jit, static_argnames=("window", "strides", "padding", "widen", "combine"))
def _reduced(x, *, window, strides, padding, widen, combine):
    windows = [_window(x.shape[axis], window, strides, padding, widen) for axis in (1, 2)]
    channels, dtype, x = x.shape[3:], x.dtype, flat_channels(x)
    x = x if combine is _maximum else widened(x)  # rounded once, or the axes' order would show
    if padding:
        sides = (padding, padding)
        outside = _lowest(x.dtype) if combine is _maximum else 0
        x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=outside)
    for axis, width in zip((1, 2), windows, strict=True):
        # One strided slice for each place in the window: `reduce_window` is slow backwards on a CPU.
        last = (x.shape[axis] - width) // strides * strides
        x = combine([jax.lax.slice_in_dim(x, u, u + last + 1, strides, axis) for u in range(width)])
    x = x if combine is _maximum else narrowed(x, dtype)
    return x.reshape(*x.shape[:3], *channels)


def _pool(x, window, strides, padding, widen, combine):
    """Reduces windows along rows, then columns; `widen` is `None` to drop a remainder as PyTorch does."""
    x = real_pixels(x)
    if x.ndim not in (4, 5):
        raise ValueError(f"input of shape {x.shape} must be an image (four axes) or a field (five axes)")
    window, padding = _checked_window(x, window, padding, combine)
    strides = window if strides is None else whole("strides", strides)
    widen = widen if widen is None else bool(widen)
    return _reduced(x, window=window, strides=strides, padding=padding, widen=widen, combine=combine)


def _checked_window(x, window, padding, combine):
    if x.ndim < 3:
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, ...]")
    window, padding = whole("window", window), whole("padding", padding, least=0)
    if combine is _maximum and 2 * padding > window:
        raise ValueError(f"padding (={padding}) must be at most half the window (={window}): a window must see a pixel")
    for size in x.shape[1:3]:
        if below(size + 2 * padding, window):
            raise ValueError(
                f"an image of {x.shape[1]} x {x.shape[2]} with padding {padding} has a side of {size + 2 * padding} "
                f"that is below the window (={window})"
            )
    return window, padding


def _lowest(dtype):
    """The lowest value of a pixel type."""
    if jnp.issubdtype(dtype, jnp.floating):
        return -jnp.inf
    return False if jnp.issubdtype(dtype, jnp.bool_) else jnp.iinfo(dtype).min


def _window(size, window, strides, padding, widen):
    remainder = (size + 2 * padding - window) % strides
    if widen is None or (isinstance(remainder, int) and not remainder):
        return window
    if not isinstance(remainder, int):
        raise ValueError(
            f"strides (={strides}) must be known to divide size + 2 padding - window (= {size} + {2 * padding} - "
            f"{window}): export with sizes such as {strides} * h"
        )
    if not widen:
        raise ValueError(
            f"strides (={strides}) must divide size + 2 padding - window (= {size} + {2 * padding} - {window}) "
            f"for exact quarter turns: use a window of {window + remainder}, other padding, or widen=True"
        )
    return window + remainder


def _maximum(slices):
    return functools.reduce(jnp.maximum, slices)


def _mean(slices):
    return functools.reduce(operator.add, slices) / len(slices)


def _blur(slices):
    width = len(slices)
    squares = (np.arange(width) - (width - 1) / 2) ** 2
    weights = np.exp(-squares * 18.0 / max(width - 1, 1) ** 2)  # sigma = (width - 1) / 6
    weights = weights / np.sum(weights)
    return functools.reduce(
        operator.add, (float(weight) * values for weight, values in zip(weights, slices, strict=True))
    )


def _blur_padding(window, padding):
    return (whole("window", window) - 1) // 2 if padding is None else padding


def _checked_field(x):
    x = real_pixels(x)
    if x.ndim != 5:
        raise ValueError(f"input of shape {x.shape} must be a field [batch, height, width, group, channel]")
    return x
