"""Bases of rotated filters, built once in float64 with NumPy.

F-Conv writes a filter as a Fourier series on the plane and samples it, moved by each element
of the group, on the k x k pixels of a kernel (Xie, Zhao, Xu, Meng, TPAMI 45(4):4537-4551,
2022, arXiv 2107.14519, sections 3 and 4).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import ParamSpec

import numpy as np

from fconv_jax import _decomposition
from fconv_jax._checks import flag, whole
from fconv_jax.group import Group, as_group

MASKS = ("adaptive", "gaussian", "fading")

_P = ParamSpec("_P")


@dataclasses.dataclass(frozen=True, eq=False)
class FourierBasis:
    """Functions sampled on a kernel's pixels for every element of a group (symbols: k, g, r).

    Attributes:
      values: float32 `[k, k, g, r]` (row, column, element, function), read-only; multiplied by
        `weights` with smoothing.
      rank: r, the number of functions.
      singular_values: float64, all 2 p^2 of the candidates' Gram matrix, falling.
      weights: float64 `[r]`, the smoothing weight of each function, applied or not.
    """

    values: np.ndarray
    rank: int
    singular_values: np.ndarray
    weights: np.ndarray


def _kept(function: Callable[_P, FourierBasis]) -> Callable[_P, FourierBasis]:
    """Keeps what the function returns for each size and option."""
    kept = functools.lru_cache(maxsize=None, typed=True)(function)  # typed: 5.0 and True are not 5 and 1

    @functools.wraps(function)
    def basis(*args: _P.args, **options: _P.kwargs) -> FourierBasis:
        try:
            return kept(*args, **options)
        except TypeError:  # a list or an array cannot be looked up: the function says what it may be
            return function(*args, **options)

    return basis


@_kept
def fourier_basis(
    kernel_size: int,
    group: Group | int,
    num_frequencies: int | None = None,
    *,
    smooth: bool = True,
    mask: str = "adaptive",
) -> FourierBasis:
    """Returns the Fourier basis of F-Conv, moved by every element of the group, canonical and read-only.

    The candidates are, on the grid X (columns), Y (rows) = linspace(-1, 1, k) and for the element of the rotation by
    theta_o = 2 pi o / t after s mirrors,

        cos(f_a x' + f_b y') m  and  sin(f_a x' + f_b y') m,     a, b = 0..p-1,
        x' = (-1)^s (cos(theta) X - sin(theta) Y),   y' = sin(theta) X + cos(theta) Y,
        f_a = (a - p [a > p/2]) pi (p - 1) / p,

    with the mask m(C), C = X^2 + Y^2.  With A the `[k k g, 2 p^2]` matrix of candidates and
    A^T A = U S U^T, the functions are the columns of A U / sqrt(S) with S > 1e-4: orthonormal
    over pixels and elements.  The smoothing weight of function r is 1 / (25 max(v, 0.04)),
    v = (std_e(s) + std_e(q)) / mean_e(s + q), s_e = (sum_ij B)^2, q_e = k^2 sum_ij B^2: small
    for functions that the pixel grid changes much when they are rotated.

    Canonical: singular values within a relative 1e-7 form a block.  In each block, fixed
    vectors are projected onto its span and orthonormalised in order (Gram-Schmidt with positive
    diagonal), which depends on the span alone.

    Args:
      kernel_size: k, side of the kernel in pixels.  With k = 1 there is one function, the constant 1.
      group: t rotations, with or without reflections; an int is t.
      num_frequencies: p, frequencies along each axis, 2..k; `None` means k.
      smooth: multiply each function by its smoothing weight.
      mask: `"adaptive"` (1 if t = 4, else exp(-max(C - 1, 0) / 0.2) for k > 4 and
        exp(-max(C - 1, 0) / 2) for k <= 4), `"gaussian"` (exp(-max(C - 1, 0) / 0.2)) or `"fading"`
        (max(1 - C (k - 1)^2 / k^2, 0)^2 for k > 3 and exp(-C) for k <= 3).  The first two are the reference's and are
        cut off where the square kernel ends, which no rotation moves; `"fading"` reaches zero smoothly on the circle
        inside the kernel.  With 3 x 3 pixels this would leave the corners nothing, and the Gaussian rotates better.

    Raises:
      ValueError: a size, group, mask or `smooth` that the formulas do not allow.
    """
    k, group, p = checked_sizes(kernel_size, group, num_frequencies)
    if mask not in MASKS:
        raise ValueError(f"mask (={mask!r}) must be one of {', '.join(MASKS)}")
    smooth = flag("smooth", smooth)
    if k == 1:
        return _constant(group)
    p = k if p is None else p
    candidates = _fourier_candidates(k, group, p, mask).reshape(k * k * group.order, 2 * p * p)
    functions, singular_values = _decomposition.decompose(candidates, p)
    functions = _decomposition.canonical(functions, singular_values[: functions.shape[1]])
    functions = functions.reshape(k, k, group.order, -1)
    weights = _smoothing_weights(functions)
    values = functions * weights if smooth else functions
    return _frozen(values, singular_values, weights)


@_kept
def bicubic_basis(kernel_size: int, group: Group | int) -> FourierBasis:
    """Returns B-Conv's basis: one bicubic interpolation function per pixel, moved by every element of the group.

        B_(i,j)(x', y') = cubic(x' - i) cubic(y' - j) m,      i, j = -(k//2)..k//2,

    with pixel offsets x, y in the same range moved as in `fourier_basis`, Keys' cubic
    convolution kernel (a = -1/2) and the adaptive mask.  Element 0 is the pixel basis times the mask.

    Args:
      kernel_size: k, odd.  With k = 1 there is one function, the constant 1.
      group: t rotations, with or without reflections; an int is t.

    Returns:
      a basis of rank k^2, without smoothing (weights 1) and without orthogonalisation; its
      `singular_values` are those of the Gram matrix (`[k^2]`, falling).

    Raises:
      ValueError: an even kernel size, which has no centre pixel, or an impossible size.
    """
    k, group, _ = checked_sizes(kernel_size, group, None)
    if k % 2 == 0:
        raise ValueError(f"kernel_size (={k}) must be odd for the bicubic basis: it needs a centre pixel")
    if k == 1:
        return _constant(group)
    offsets = np.arange(k) - k // 2
    x, y = _moved_grid(offsets.astype(np.float64), group)
    values = _cubic(x[..., None, None] - offsets) * _cubic(y[..., None, None] - offsets[:, None])
    unit = np.linspace(-1.0, 1.0, k)
    values = values * _mask(unit, group.num_rotations, "adaptive")[:, :, None, None, None]
    values = values.reshape(k, k, group.order, k * k)
    singular_values = np.linalg.svd(values.reshape(-1, k * k), compute_uv=False) ** 2
    return _frozen(values, singular_values, np.ones(k * k))


@dataclasses.dataclass(frozen=True)
class Fourier:
    """The Fourier basis that a layer uses (`fourier_basis`), whatever its kernel size.

    The default rotates well at every step of the group.  From 3 x 3 on it has fewer functions than a kernel has pixels
    (3 x 3: 7 of 9, 5 x 5: 9 of 25), and they fade towards the rim.  Where quarter turns are enough, choose the
    reference's "all" and "adaptive".  Kernels of 2 x 2 rotate by quarter turns only.

    Args:
      num_frequencies: p along each axis: `"few"`, (k + 1) // 2 and at least 2; `"all"`, k; or a number, 2..k (kernels
        of 1 x 1 have one function, whatever it says).
      smooth, mask: as in `fourier_basis`.

    Raises:
      ValueError: an unknown mask or word; a number that does not fit the kernel is refused by the layer.
    """

    num_frequencies: int | str = "few"
    smooth: bool = True
    mask: str = "fading"

    def __post_init__(self):
        if not isinstance(self.mask, str) or self.mask not in MASKS:
            raise ValueError(f"mask (={self.mask!r}) must be one of {', '.join(MASKS)}")
        if not isinstance(self.num_frequencies, str) or self.num_frequencies not in ("few", "all"):
            rule = "'few', 'all' or a whole number"
            object.__setattr__(self, "num_frequencies", whole("num_frequencies", self.num_frequencies, 2, rule))
        object.__setattr__(self, "smooth", flag("smooth", self.smooth))

    def sampled(self, kernel_size: int, group: Group | int) -> FourierBasis:
        """Returns the functions for a kernel size and a group."""
        p = None if isinstance(self.num_frequencies, str) or kernel_size == 1 else self.num_frequencies
        if self.num_frequencies == "few" and kernel_size > 1:
            p = max(2, (kernel_size + 1) // 2)
        return fourier_basis(kernel_size, _short(group), p, smooth=self.smooth, mask=self.mask)


@dataclasses.dataclass(frozen=True)
class Bicubic:
    """The bicubic basis (`bicubic_basis`), for odd kernel sizes."""

    def sampled(self, kernel_size: int, group: Group | int) -> FourierBasis:
        """Returns the functions for a kernel size and a group."""
        return bicubic_basis(kernel_size, _short(group))


def _short(group):
    """C_t as t, as users call a basis: one entry of the cache for both."""
    group = as_group(group)
    return group if group.reflections else group.num_rotations


REFERENCE = Fourier("all", mask="adaptive")
"""The options of the PyTorch reference's layers: those of the report's networks."""


def checked_sizes(kernel_size: int, group: Group | int, num_frequencies: int | None) -> tuple[int, Group, int | None]:
    """Returns k, the group and p (or `None`).

    Raises:
      ValueError: not a whole number or group, or a size that a basis cannot have.
    """
    k, group = whole("kernel_size", kernel_size), as_group(group)
    if num_frequencies is None:
        return k, group, None
    p = whole("num_frequencies", num_frequencies, least=None)
    if not 2 <= p <= k:
        raise ValueError(
            f"num_frequencies (={p}) must be between 2 and kernel_size (={k}): "
            "one frequency is a constant, more than the pixels alias"
        )
    return k, group, p


def _moved_grid(coordinates, group):
    """Coordinates `[k]` -> x', y' `[k, k, g]` (row, column, element): where the element's inverse moves each pixel."""
    t = group.num_rotations
    angles = 2.0 * np.pi * np.arange(t) / t
    x, y = np.meshgrid(coordinates, coordinates)
    x, y = x[..., None], y[..., None]
    x, y = np.cos(angles) * x - np.sin(angles) * y, np.sin(angles) * x + np.cos(angles) * y
    if not group.reflections:
        return x, y
    return np.concatenate([x, -x], axis=-1), np.concatenate([y, y], axis=-1)


def _mask(coordinates, num_rotations, mask):
    """The mask `[k, k]` that fades the corners, which leave the kernel when it rotates, or all of its rim."""
    x, y = np.meshgrid(coordinates, coordinates)
    if mask == "fading" and len(coordinates) <= 3:
        return np.exp(-(x**2 + y**2))
    if mask == "fading":
        edge = 1.0 + 1.0 / (len(coordinates) - 1)  # pixels end half a pixel beyond the outermost centres
        return np.maximum(1.0 - (x**2 + y**2) / edge**2, 0.0) ** 2
    outside = np.maximum(x**2 + y**2 - 1.0, 0.0)
    if mask == "adaptive" and num_rotations == 4:
        return np.ones_like(outside)
    width = 2.0 if mask == "adaptive" and len(coordinates) <= 4 else 0.2
    return np.exp(-outside / width)


def _fourier_candidates(k, group, p, mask):
    coordinates = np.linspace(-1.0, 1.0, k)
    x, y = _moved_grid(coordinates, group)
    index = np.arange(p)
    frequencies = (index - p * (index > p / 2)) * np.pi * (p - 1) / p
    phase = x[..., None, None] * frequencies[:, None] + y[..., None, None] * frequencies
    phase = phase.reshape(k, k, group.order, p * p)
    candidates = np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)
    return candidates * _mask(coordinates, group.num_rotations, mask)[:, :, None, None]


def _smoothing_weights(functions):
    k = functions.shape[0]
    sums = np.sum(functions, axis=(0, 1)) ** 2
    squares = k * k * np.sum(functions**2, axis=(0, 1))
    change = (np.std(sums, axis=0) + np.std(squares, axis=0)) / np.mean(sums + squares, axis=0)
    return 1.0 / (25.0 * np.maximum(change, 0.04))


def _cubic(distance):
    """Keys' cubic convolution kernel, a = -1/2."""
    d = np.abs(distance)
    near = 1.5 * d**3 - 2.5 * d**2 + 1.0
    far = -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
    return np.where(d <= 1.0, near, np.where(d < 2.0, far, 0.0))


def _constant(group):
    """One pixel has one function, the same for every element."""
    return _frozen(np.ones((1, 1, group.order, 1)), np.array([float(group.order)]), np.ones(1))


def _frozen(values, singular_values, weights):
    values = np.ascontiguousarray(values, dtype=np.float32)
    for array in (values, singular_values, weights):
        array.setflags(write=False)
    return FourierBasis(values, values.shape[-1], singular_values, weights)
