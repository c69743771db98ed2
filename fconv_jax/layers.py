"""Flax NNX layers: each makes parameters and calls one pure function.

Symbols in docstrings: g = group.order, k = kernel_size, r = number of basis functions.
The equivariance law that all layers share: an element e of the group moves an image's pixels (mirror, then rotation);
on a field it also moves the group axis, (e f)[h] = f[e^-1 h].  Then layer(e x) = e layer(x): exact to rounding for
quarter turns (4 divides the number of rotations) and mirrors, when the padding is symmetric (it always is here) and
the stride divides (size + 2 padding - k).  The group's other rotations hold approximately, better for smooth images.
"""

import functools
import math
import warnings
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.typing import Dtype, PrecisionLike

from fconv_jax import initializers
from fconv_jax._arguments import checked_dtype, checked_precision, named, parameter, stride_advice
from fconv_jax._checks import same, whole
from fconv_jax._precision import widened
from fconv_jax.basis import Bicubic, Fourier, FourierBasis
from fconv_jax.convolve import Padding, convolve_fields, padding_width
from fconv_jax.filters import group_filter, lifting_filter, projecting_filter
from fconv_jax.group import Group, as_group


class EquivarianceWarning(UserWarning):
    """A layer that was made equivariant is used in a way that breaks it."""


class _FConv(nnx.Module):
    """What the three F-Conv layers share; a subclass says whether its input and its output have a group axis."""

    _from_field: ClassVar[bool]
    _to_field: ClassVar[bool]

    @named
    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int],
        group: Group | int = 8,
        *,
        strides: int | tuple[int, int] = 1,
        padding: Padding = "SAME",
        kernel_dilation: int | tuple[int, int] = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        basis: Fourier | Bicubic = Fourier(),  # noqa: B008 - frozen
        coefficient_init: initializers.Initializer = initializers.he_smooth(),  # noqa: B008 - a function
        bias_init: initializers.Initializer = nnx.initializers.zeros,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        precision: PrecisionLike = None,
        rngs: nnx.Rngs,
    ):
        self.in_features, self.out_features = whole("in_features", in_features), whole("out_features", out_features)
        self.feature_group_count = whole("feature_group_count", feature_group_count)
        for name, features in (("in_features", self.in_features), ("out_features", self.out_features)):
            if features % self.feature_group_count:
                raise ValueError(
                    f"{name} (={features}) must be a multiple of feature_group_count (={self.feature_group_count})"
                )
        self.kernel_size, self.group = whole("kernel_size", same("kernel_size", kernel_size)), as_group(group)
        self.strides = whole("strides", same("strides", strides))
        self.kernel_dilation = whole("kernel_dilation", same("kernel_dilation", kernel_dilation))
        width = padding_width(padding, self._reach())
        self.padding = padding if isinstance(padding, str) else width
        if not isinstance(basis, Fourier | Bicubic):
            raise ValueError(
                f"basis (={' '.join(repr(basis).split()):.60}) must be a fconv_jax.Fourier or fconv_jax.Bicubic"
            )
        self.basis, self.use_bias, self.precision = basis, bool(use_bias), checked_precision(precision)
        self.dtype, param_dtype = checked_dtype(dtype), checked_dtype(param_dtype, "param_dtype")
        in_features = self.in_features // self.feature_group_count
        facts = initializers.LayerFacts(in_features, self.group, self.sampled_basis, self._from_field, self._to_field)
        elements = (self.group.order,) if self._from_field and self._to_field else ()
        shape = (*elements, in_features, self.out_features, facts.basis.rank)

        def made(name, function, shape):
            return parameter(name, function, rngs.params(), shape, param_dtype, facts)

        self.coefficients = made("coefficient_init", coefficient_init, shape)
        self.bias = made("bias_init", bias_init, (self.out_features,)) if use_bias else None

    @property
    def sampled_basis(self) -> FourierBasis:
        """The layer's basis: cached, read-only NumPy, no part of the layer's state."""
        return self.basis.sampled(self.kernel_size, self.group)

    def filter(self) -> jax.Array:
        """Returns the layer's convolution filter, expanded from its coefficients (shapes: `fconv_jax.filters`).

        It is computed in float32 at least, and has the type of the coefficients.
        """
        coefficients = self.coefficients[...]
        wide = widened(coefficients)
        expand, num_axes = (lifting_filter if self._to_field else projecting_filter), 3
        if self._from_field and self._to_field:
            expand, num_axes = functools.partial(group_filter, group=self.group), 4
        for _ in range(wide.ndim - num_axes):  # a stack of layers, made by `nnx.vmap`
            expand = jax.vmap(expand, in_axes=(0, None))
        return expand(wide, jnp.asarray(self.sampled_basis.values, wide.dtype)).astype(coefficients.dtype)

    def _reach(self):
        """The side of the kernel with its gaps."""
        return self.kernel_dilation * (self.kernel_size - 1) + 1

    def convolve_with(self, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        """Returns the layer's output for a filter and a bias in place of its own."""
        first = self._first_axis(x)
        leading, image = x.shape[:first], x.shape[first:]
        if len(leading) != 1:  # as nnx.Conv: none, or several axes of images
            x = x.reshape(math.prod(leading), *image)
        self._warn(image)
        x, kernel, bias = promote_dtype((x, kernel, bias), dtype=self.dtype)
        y = convolve_fields(
            x,
            kernel,
            bias,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
            feature_group_count=self.feature_group_count,
            precision=self.precision,
        )
        return y if len(leading) == 1 else y.reshape(*leading, *y.shape[1:])

    def _first_axis(self, x):
        """Where an image's axes begin, after those of the batch, if the last ones are the layer's."""
        axes = (self.group.order, self.in_features) if self._from_field else (self.in_features,)
        # `convolve_fields` tells a filter's axes by the input's: there 8 channels may pass for 8 elements.
        if x.ndim < 2 + len(axes) or x.shape[-len(axes) :] != axes:
            raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {', '.join(map(str, axes))}]")
        return x.ndim - 2 - len(axes)

    def _warn(self, image):
        advice = stride_advice(self, [size for size in image[:2] if isinstance(size, int)])
        if advice and (self.group.num_rotations % 2 == 0 or self.group.reflections):
            warnings.warn(advice, EquivarianceWarning, stacklevel=4)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the layer's output."""
        self._first_axis(x)  # before the work of expanding
        return self.convolve_with(x, self.filter(), None if self.bias is None else self.bias[...])


class LiftingFConv(_FConv):
    """F-Conv from images to fields: filter e is one series of functions, moved by element e.

        y[b, i, j, e, m] = sum_{u, v, n} x[b, s i + d u - w, s j + d v - w, n] F[u, v, n, e, m] + bias[m],
        F[u, v, n, e, m] = sum_r basis[u, v, e, r] coefficients[n, m, r].

    Law: layer(e x) = e layer(x) for the elements e of the group, exactly for quarter turns and mirrors (the module's
    docstring has the conditions), nearly for the others.

    Args:
      in_features: n, channels of the image.
      out_features: m, features of the field (its channels are m g).
      kernel_size: k, or a pair of equal numbers.  With k = 1 the basis is the constant 1.
      group: a `Group`, or t for C_t.
      strides: s, a number or an equal pair.  Quarter turns and mirrors stay exact only where s divides
        (size + 2 padding - k); elsewhere the layer warns, and says which kernel would fit.
      padding: `"SAME"` (odd k; the same on both sides whatever the stride), `"VALID"`, `"CIRCULAR"`, `"REFLECT"`
        (again and again in images that are smaller than the padding), or a number of zeros on each side.
      kernel_dilation: d, a number or an equal pair.
      feature_group_count: parts into which the features (never the group) are split, each convolved separately.
      use_bias: one bias for each feature, the same for every element.
      basis: `Fourier(...)` (F-Conv) or `Bicubic()` (B-Conv, odd k).
      coefficient_init, bias_init: see `fconv_jax.initializers`; those of jax also serve.
      dtype: of the computation; `None` promotes input and parameters.
      param_dtype: of the parameters.
      precision: of the products, as in `nnx.Conv`.
      rngs: its `params` stream draws the parameters.

    Parameters: `coefficients` `[in / feature_group_count, out, r]`, `bias` `[out]`.

    Returns (call): `[batch, height, width, in]` -> `[batch, height', width', g, out]` with
    height' = (height + 2 padding - k') // s + 1, k' = d (k - 1) + 1.  As for `nnx.Conv` there may also be no batch
    axis, or several.

    Raises:
      ValueError: an impossible size, padding, basis, initialiser or input shape.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> layer = fconv_jax.LiftingFConv(1, 2, 5, fconv_jax.Group(8), rngs=nnx.Rngs(0))
    >>> layer(jax.numpy.ones((3, 28, 28, 1))).shape
    (3, 28, 28, 8, 2)
    """

    _from_field, _to_field = False, True


class GroupFConv(_FConv):
    """F-Conv from fields to fields: filters moved by the output's element, one for each relative element.

        y[b, i, j, e, m] = sum_{u, v, a, n} x[b, s i + d u - w, s j + d v - w, a, n] F[u, v, a, n, e, m] + bias[m],
        F[u, v, a, n, e, m] = sum_r basis[u, v, e, r] coefficients[e^-1 a, n, m, r].

    Law: layer(e f) = e layer(f), where e moves the field's pixels and its group axis; exactly for quarter turns and
    mirrors (conditions in the module's docstring), nearly for the group's others.

    Args: as for `LiftingFConv`; the group must be the input's.

    Parameters: `coefficients` `[g, in / feature_group_count, out, r]`, `bias` `[out]`.

    Returns (call): `[batch, height, width, g, in]` -> `[batch, height', width', g, out]`.

    Raises:
      ValueError: an impossible size, padding, basis, initialiser or input shape.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> group = fconv_jax.Group(4, reflections=True)
    >>> layer = fconv_jax.GroupFConv(2, 4, (3, 3), group, rngs=nnx.Rngs(0))
    >>> layer(jax.numpy.ones((3, 12, 12, 8, 2))).shape
    (3, 12, 12, 8, 4)
    """

    _from_field, _to_field = True, True


class ProjectingFConv(_FConv):
    """F-Conv from fields back to images: the elements are summed, each with its moved filter.

        y[b, i, j, m] = sum_{u, v, e, n} x[b, s i + d u - w, s j + d v - w, e, n] F[u, v, e, n, m] + bias[m],
        F[u, v, e, n, m] = sum_r basis[u, v, e, r] coefficients[n, m, r].

    Law: layer(e f) = e layer(f), exactly for quarter turns and mirrors (conditions in the module's docstring), nearly
    for the group's others.

    Args: as for `LiftingFConv`; the group must be the input's.

    Parameters: `coefficients` `[in / feature_group_count, out, r]`, `bias` `[out]`.

    Returns (call): `[batch, height, width, g, in]` -> `[batch, height', width', out]`.

    Raises:
      ValueError: an impossible size, padding, basis, initialiser or input shape.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> layer = fconv_jax.ProjectingFConv(2, 16, 3, 8, rngs=nnx.Rngs(0))
    >>> layer(jax.numpy.ones((3, 12, 12, 8, 2))).shape
    (3, 12, 12, 16)
    """

    _from_field, _to_field = True, False
