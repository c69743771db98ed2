"""Flax NNX layers: each makes parameters and calls one pure function.

Symbols in docstrings: t = num_rotations, k = kernel_size, r = number of basis functions.
The equivariance law that all layers share: let R turn an image by a quarter turn
(`jnp.rot90(x, 1, axes=(1, 2))`) and, on a field, also move rotation o to o + t/4 (cyclic).
Then layer(R x) = R layer(x): exact to rounding when 4 divides t, the padding is symmetric (it
always is here) and the stride divides (size + 2 padding - k).  Turns by other multiples of
2 pi / t hold approximately, better for smooth images and larger kernels.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype

from fconv_jax._checks import whole
from fconv_jax._precision import widened
from fconv_jax.basis import FourierBasis, checked_sizes, layer_basis
from fconv_jax.convolve import Padding, convolve_fields, padding_width
from fconv_jax.draws import draw
from fconv_jax.filters import group_filter, lifting_filter, pointwise_filter, projecting_filter

INITS = ("he", "report", "paper")


class _FConv(nnx.Module):
    """What the three F-Conv layers share; a subclass names its filter and its coefficients' shape."""

    _expand: ClassVar[Callable[..., jax.Array]]

    def _rotation_axes(self) -> tuple[int, ...]:
        """The coefficients' axes in front of `[in, out, r]`."""
        return ()

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        num_rotations: int = 8,
        *,
        strides: int = 1,
        num_frequencies: int | None = None,
        padding: Padding = "VALID",
        use_bias: bool = True,
        smooth: bool = True,
        mask: str = "adaptive",
        basis: str = "fourier",
        init: str = "he",
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        in_features, out_features = whole("in_features", in_features), whole("out_features", out_features)
        self.in_features, self.out_features, self.strides = in_features, out_features, whole("strides", strides)
        self.kernel_size, self.num_rotations, self.num_frequencies = checked_sizes(
            kernel_size, num_rotations, num_frequencies
        )
        width = padding_width(padding, self.kernel_size)
        self.padding = padding if isinstance(padding, str) else width
        self.smooth, self.mask, self.basis = smooth, mask, basis
        self.use_bias, self.dtype = use_bias, _checked_dtype(dtype)
        fourier = self.fourier_basis
        shape = (*self._rotation_axes(), in_features, out_features, fourier.rank)
        bound = _coefficient_bound(
            init, shape, fourier, isinstance(self, ProjectingFConv), isinstance(self, LiftingFConv)
        )
        self.coefficients = nnx.Param(_uniform(rngs, shape, bound, _checked_dtype(param_dtype)))
        bias_bound = _bias_bound(init, math.prod(self._rotation_axes()) * in_features * fourier.rank)
        self.bias = nnx.Param(_uniform(rngs, (out_features,), bias_bound, param_dtype)) if use_bias else None

    @property
    def fourier_basis(self) -> FourierBasis:
        """The layer's basis: cached, read-only NumPy, no part of the layer's state."""
        return layer_basis(
            self.basis, self.kernel_size, self.num_rotations, self.num_frequencies, self.smooth, self.mask
        )

    def filter(self) -> jax.Array:
        """Returns the layer's convolution filter, expanded from its coefficients (shapes: `fconv_jax.filters`).

        It is computed in float32 at least, and has the type of the coefficients.
        """
        coefficients = self.coefficients[...]
        wide = widened(coefficients)
        return self._expand(wide, self.fourier_basis.values.astype(wide.dtype)).astype(coefficients.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        _check_input(x, self, isinstance(self, LiftingFConv))
        kernel = self.filter()
        bias = None if self.bias is None else self.bias[...]
        x, kernel, bias = promote_dtype((x, kernel, bias), dtype=self.dtype)
        return convolve_fields(x, kernel, bias, strides=self.strides, padding=self.padding)


class LiftingFConv(_FConv):
    """F-Conv from images to fields: filter o is the same Fourier series, turned by 2 pi o / t.

        y[b, i, j, o, m] = sum_{u, v, n} x[b, s i + u - w, s j + v - w, n] F[u, v, n, o, m] + bias[m],
        F[u, v, n, o, m] = sum_r basis[u, v, o, r] coefficients[n, m, r].

    Law: a quarter turn of the input turns the output and moves rotation o to o + t/4, exactly
    (see the module's docstring for its conditions); other angles approximately.

    Args:
      in_features: n, channels of the image.
      out_features: m, features of the field (its channels are m t).
      kernel_size: k >= 2.
      num_rotations: t >= 1.
      strides: s >= 1.  Quarter turns stay exact only where s divides (size + 2 padding - k).
      num_frequencies: p, 2..k; `None` means k.
      padding: `"VALID"`, `"SAME"` (odd k) or a number of pixels on each side.
      use_bias: one bias for each feature, the same at every rotation.
      smooth: damp the functions that the pixel grid changes when they are turned.
      mask: `"adaptive"`, `"gaussian"` or `"fading"`, see `fourier_basis`.
      basis: `"fourier"` (F-Conv) or `"bicubic"` (B-Conv, odd k).
      init: `"he"`: uniform coefficients, equal shares for the functions of the basis, with which
        the filters have the variance of a He-initialised plain kernel, biases 0 (it gives
        functions that smoothing damps their full share: choose another where turns between the
        steps of the group matter from the start);
        `"report"`: coefficients and biases uniform within +-1/sqrt(in expand r), expand = t in
        a group layer, else 1; `"paper"`: coefficients U(-1, 1) sqrt(6 / (in r)) weights, biases 0.
      dtype: of the computation; `None` promotes input and parameters.
      param_dtype: of the parameters.
      rngs: its `params` stream draws the parameters.

    Parameters: `coefficients` `[in, out, r]`, `bias` `[out]`.

    Returns (call): `[batch, height, width, in]` -> `[batch, height', width', t, out]` with
    height' = (height + 2 padding - k) // s + 1.

    Raises:
      ValueError: an impossible size, padding, mask, basis, init or input shape.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> layer = fconv_jax.LiftingFConv(1, 2, 5, num_rotations=8, rngs=nnx.Rngs(0))
    >>> layer(jax.numpy.ones((3, 28, 28, 1))).shape
    (3, 24, 24, 8, 2)
    """

    _expand = staticmethod(lifting_filter)


class GroupFConv(_FConv):
    """F-Conv from fields to fields: turned filters over turned and shifted input rotations.

        y[b, i, j, o, m] = sum_{u, v, a, n} x[b, s i + u - w, s j + v - w, a, n] F[u, v, a, n, o, m] + bias[m],
        F[u, v, a, n, o, m] = sum_r basis[u, v, o, r] coefficients[(a - o) mod t, n, m, r].

    Law: turning the input field by a quarter turn (pixels, and rotation o to o + t/4) turns the
    output field likewise, exactly (conditions in the module's docstring); other angles
    approximately.

    Args: as for `LiftingFConv`; `num_rotations` must be the input's.

    Parameters: `coefficients` `[t, in, out, r]`, `bias` `[out]`.

    Returns (call): `[batch, height, width, t, in]` -> `[batch, height', width', t, out]`.

    Raises:
      ValueError: an impossible size, padding, mask, basis, init or input shape.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> layer = fconv_jax.GroupFConv(2, 4, 3, num_rotations=8, padding="SAME", rngs=nnx.Rngs(0))
    >>> layer(jax.numpy.ones((3, 12, 12, 8, 2))).shape
    (3, 12, 12, 8, 4)
    """

    _expand = staticmethod(group_filter)

    def _rotation_axes(self):
        return (self.num_rotations,)


class ProjectingFConv(_FConv):
    """F-Conv from fields back to images: the rotations are summed, each with its turned filter.

        y[b, i, j, m] = sum_{u, v, o, n} x[b, s i + u - w, s j + v - w, o, n] F[u, v, o, n, m] + bias[m],
        F[u, v, o, n, m] = sum_r basis[u, v, o, r] coefficients[n, m, r].

    Law: turning the input field by a quarter turn turns the output image, exactly (conditions
    in the module's docstring); other angles approximately.

    Args: as for `LiftingFConv`; `num_rotations` must be the input's.

    Parameters: `coefficients` `[in, out, r]`, `bias` `[out]`.

    Returns (call): `[batch, height, width, t, in]` -> `[batch, height', width', out]`.

    Raises:
      ValueError: an impossible size, padding, mask, basis, init or input shape.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> layer = fconv_jax.ProjectingFConv(2, 16, 3, num_rotations=8, padding="SAME", rngs=nnx.Rngs(0))
    >>> layer(jax.numpy.ones((3, 12, 12, 8, 2))).shape
    (3, 12, 12, 16)
    """

    _expand = staticmethod(projecting_filter)


class PointwiseFConv(nnx.Module):
    """1 x 1 F-Conv from fields to fields: mixes features and rotations at each pixel.

        y[b, i, j, o, m] = sum_{a, n} x[b, i s, j s, a, n] coefficients[(a - o) mod t, n, m] + bias[m].

    Law: every turn of pixels that the grid allows, with the shift of the rotation axis, is
    exact; with a stride s, where s divides (size - 1).

    Args:
      in_features, out_features: n and m.
      num_rotations: t >= 1, the input's.
      strides: s >= 1.
      use_bias, init, dtype, param_dtype, rngs: as for `LiftingFConv` (r = 1).

    Parameters: `coefficients` `[t, in, out]`, `bias` `[out]`.

    Returns (call): `[batch, height, width, t, in]` -> `[batch, height', width', t, out]`.

    Raises:
      ValueError: an impossible size, init or input shape.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_rotations: int = 8,
        *,
        strides: int = 1,
        use_bias: bool = True,
        init: str = "he",
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        in_features, out_features = whole("in_features", in_features), whole("out_features", out_features)
        self.in_features, self.out_features = in_features, out_features
        self.num_rotations, self.strides = whole("num_rotations", num_rotations), whole("strides", strides)
        self.use_bias, self.dtype = use_bias, _checked_dtype(dtype)
        shape = (*self._rotation_axes(), in_features, out_features)
        fan_in = math.prod(shape[:-1])
        bound = _coefficient_bound(init, (1, math.prod(shape[:-1]), out_features, 1), None)
        self.coefficients = nnx.Param(_uniform(rngs, shape, bound, _checked_dtype(param_dtype)))
        bias_bound = _bias_bound(init, fan_in)
        self.bias = nnx.Param(_uniform(rngs, (out_features,), bias_bound, param_dtype)) if use_bias else None

    def _rotation_axes(self) -> tuple[int, ...]:
        return (self.num_rotations,)

    def _mix(self, x):
        kernel = pointwise_filter(self.coefficients[...])
        x, kernel = promote_dtype((x, kernel), dtype=self.dtype)
        return convolve_fields(x, kernel[None, None], strides=self.strides)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the output field of an image or a field."""
        _check_input(x, self, isinstance(self, LiftingPointwiseFConv))
        y = self._mix(x)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class LiftingPointwiseFConv(PointwiseFConv):
    """1 x 1 F-Conv from images to fields: a plain 1 x 1 convolution, the same at every rotation.

        y[b, i, j, o, m] = sum_n x[b, i s, j s, n] coefficients[n, m] + bias[m]   for every o.

    Args, law, errors: as for `PointwiseFConv`.

    Parameters: `coefficients` `[in, out]`, `bias` `[out]`.

    Returns (call): `[batch, height, width, in]` -> `[batch, height', width', t, out]`.
    """

    def _rotation_axes(self):
        return ()

    def _mix(self, x):
        x, kernel = promote_dtype((x, self.coefficients[...]), dtype=self.dtype)
        y = convolve_fields(x, kernel[None, None], strides=self.strides)
        return jnp.broadcast_to(y[..., None, :], (*y.shape[:3], self.num_rotations, self.out_features))


def _coefficient_bound(init, shape, basis, projecting=False, lifting=False):
    """The bound (a number, or `[r]`) of the uniform distribution that `init` names; its variance is bound^2 / 3."""
    in_features, rank = shape[-3], shape[-1]
    if init == "he":
        return math.sqrt(3.0) * _he_deviations(in_features, rank, basis, projecting, lifting)
    if init == "report":
        return 1.0 / math.sqrt(math.prod(shape[:-3]) * in_features * rank)
    if init == "paper":
        weights = 1.0 if basis is None else basis.weights
        return math.sqrt(6.0 / (in_features * rank)) * weights
    raise ValueError(f"init (={init!r}) must be one of {', '.join(INITS)}")


def _he_deviations(in_features, rank, basis, projecting, lifting):
    """Standard deviations of the coefficients with which a layer keeps the variance as a He kernel does.

    An output pixel of white noise has the variance n in sum_r var(c_r) |B_r|^2, |B_r|^2 the sum
    over pixels and rotations, n = 1/t in a lifting layer (it sees one angle of t) and 1 in the
    others.  It is made 2.  Functions get equal shares: then the filters' covariance is, on the
    span, that of a plain kernel, and smooth images keep their variance too.  A projecting layer
    also adds the rotations up, and what they share (after a ReLU: much) adds coherently, so
    there a function counts with the square of its sum over rotations where that is larger.
    """
    values = np.ones((1, 1, 1, rank)) if basis is None else basis.values.astype(np.float64)
    energies = np.sum(values**2, axis=(0, 1, 2))
    norms = np.maximum(energies, np.sum(np.sum(values, axis=2) ** 2, axis=(0, 1))) if projecting else energies
    angles_seen = 1.0 / values.shape[2] if lifting else 1.0
    return np.sqrt(2.0 / (in_features * angles_seen * np.sum(energies / norms)) / norms)


def _bias_bound(init, fan_in):
    return 1.0 / math.sqrt(fan_in) if init == "report" else 0.0


def _uniform(rngs, shape, bound, dtype):
    return draw(jax.random.uniform, rngs.params(), shape, dtype, -1.0, 1.0, scale=bound)


def _check_input(x, layer, lifting):
    # Before `convolve_fields`, which tells a filter's axes by the input's: 8 channels may pass for 8 rotations there.
    axes = (layer.in_features,) if lifting else (layer.num_rotations, layer.in_features)
    if x.shape[3:] != axes:
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {', '.join(map(str, axes))}]")


def _checked_dtype(dtype):
    if dtype is None:
        return None
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(f"dtype (={dtype!r}) must be a floating-point type such as jnp.float32 or jnp.bfloat16")
    return dtype
