"""What layers say of their arguments: which they take, and which stride, initialiser and type fit."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from fconv_jax import initializers
from fconv_jax.basis import Bicubic
from fconv_jax.convolve import padding_width

NOT_OF_CONV = {
    "kernel_init": "the parameters are coefficients of the basis: coefficient_init",
    "input_dilation": "its zeros between pixels break rotations: upsample first",
    "mask": "a masked kernel does not rotate; where a kernel fades is the basis's: Fourier(mask=...)",
    "conv_general_dilated": "how a convolution is computed is said by convolution_algorithm",
    "promote_dtype": "types are promoted by flax's promote_dtype, as nnx.Conv does by default",
    "preferred_element_type": "the result has the promoted type",
    "kernel_metadata": "the parameters are coefficients of the basis",
    "bias_metadata": "set it on the layer's bias",
}
"""Arguments of `nnx.Conv` that an F-Conv layer does not take, and why."""


_Init = TypeVar("_Init", bound=Callable[..., None])


def named(init: _Init) -> _Init:
    """An `__init__` whose errors name the class that is made, and say why it lacks an argument of `nnx.Conv`."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self, *args, **options):
        try:
            signature.bind(self, *args, **options)
        except TypeError as error:
            why = "".join(f" ({NOT_OF_CONV[name]})" for name in options if name in NOT_OF_CONV)
            raise TypeError(f"{type(self).__name__}() {error}{why}") from None
        init(self, *args, **options)

    return checked  # pyright: ignore


def misfit(layer, sizes: Sequence[int]) -> tuple[int, tuple[int, int] | None] | None:
    """A side that a layer's stride does not fit, and the closest kernel and padding that it does; `None` if it fits.

    The outputs stay as large.  No kernel is smaller: it may lack the basis's frequencies.
    """
    s, d, k = layer.strides, layer.kernel_dilation, layer.kernel_size
    width, odd = padding_width(layer.padding, layer._reach()), isinstance(layer.basis, Bicubic)

    def room(k, width):
        return [size + 2 * width - d * (k - 1) - 1 for size in sizes]

    misfits = [size for size, r in zip(sizes, room(k, width), strict=True) if r % s]
    if not misfits:
        return None
    whole_steps = [r // s * s for r in room(k, width)]
    fits = [
        (abs(n - k) + abs(w - width), -n, w)
        for n in range(k, k + s + 1, 1 + odd)
        for w in range(width + s + 1)
        if room(n, w) == whole_steps
    ]
    if not fits or k == 1 or min(whole_steps) < 0 or layer.padding in ("CIRCULAR", "REFLECT"):  # these are no number
        return misfits[0], None
    return misfits[0], (-min(fits)[1], min(fits)[2])


def stride_advice(layer, sizes: Sequence[int]) -> str:
    """Says that a layer's stride does not fit an image's sides, and which kernel and padding do; empty if it fits."""
    found, group = misfit(layer, sizes), layer.group
    if found is None:
        return ""
    size, fit = found
    width, reach = padding_width(layer.padding, layer._reach()), layer._reach()
    turns = "quarter turns" if group.keeps_grid else "half turns" if group.num_rotations % 2 == 0 else ""
    return (
        f"strides (={layer.strides}) do not divide size + 2 padding - kernel ({size} + {2 * width} - {reach}): "
        f"{' and '.join(filter(None, [turns, 'mirrors' * group.reflections]))} break; use "
        f"{f'a kernel of {fit[0]} with padding {fit[1]}, or ' if fit else ''}"
        "no stride and a symmetric pool (spatial_mean_pool, blur_pool)"
    )


def parameter(name, function, key, shape, dtype, facts):
    """What an initialiser gives, if it is of the parameter's shape."""
    rule = f"{name} (={function!r}) must give an array of shape {shape} for (key, shape, dtype)"
    try:
        values = initializers.initialize(name, function, key, shape, dtype, facts)
    except (TypeError, ValueError) as error:
        if not callable(function):
            raise
        raise ValueError(f"{rule}: {error}".partition("\n")[0]) from error
    # Before it becomes a variable: under hijax that has no shape while it is traced.
    if (found := getattr(getattr(values, "raw_value", values), "shape", ())) != shape:
        raise ValueError(f"{rule}, not of shape {found}")
    return nnx.Param(values)


def checked_dtype(dtype, name="dtype"):
    """A floating-point type, or `None`."""
    if dtype is None:
        return None
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(f"{name} (={dtype!r}) must be a floating-point type such as jnp.float32 or jnp.bfloat16")
    return dtype


def checked_precision(precision):
    """A precision that `jax.lax` knows, or `None`."""
    if precision is None:
        return None
    one = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    try:
        hash(precision)  # a program is kept under it
        jax.eval_shape(functools.partial(jax.lax.dot, precision=precision), one, one)
    except (ValueError, TypeError):
        raise ValueError(
            f"precision (={precision!r}) must be None, 'default', 'high', 'highest' or another that jax.lax knows"
        ) from None
    return precision
