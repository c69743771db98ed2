"""What layers say of their arguments: which they take, and which stride, initialiser and type fit."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TypeVar

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


def stride_advice(layer, sizes: Sequence[int]) -> str:
    """Says that a layer's stride does not fit an image's sides, and which kernel and padding do; empty if it fits."""
    s, k, group = layer.strides, layer.kernel_size, layer.group

    def room(k, width):
        return [size + 2 * width - layer.kernel_dilation * (k - 1) - 1 for size in sizes]

    def half(k):
        return layer.kernel_dilation * (k - 1) // 2

    width = padding_width(layer.padding, layer._reach())
    misfits = [size for size, r in zip(sizes, room(k, width), strict=True) if r % s]
    if not misfits:
        return ""
    # A larger kernel rotates otherwise than one of 1 x 1, and these paddings are no number.
    larger = range(k, k + 2 * s) if k > 1 and layer.padding not in ("CIRCULAR", "REFLECT") else ()
    fits = (
        f"a kernel of {n} with padding {w}, or "
        for n in larger
        for w in (half(n), width)
        if all(r >= 0 and r % s == 0 for r in room(n, w)) and (n % 2 or not isinstance(layer.basis, Bicubic))
    )
    turns = "quarter turns" if group.keeps_grid else "half turns" if group.num_rotations % 2 == 0 else ""
    return (
        f"strides (={s}) do not divide size + 2 padding - kernel ({misfits[0]} + {2 * width} - {layer._reach()}): "
        f"{' and '.join(filter(None, [turns, 'mirrors' * group.reflections]))} break; use {next(fits, '')}"
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
    parameter = nnx.Param(values)
    if (found := getattr(parameter, "shape", ())) != shape:
        raise ValueError(f"{rule}, not of shape {found}")
    return parameter


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
