"""Plain convolutions and dense layers with the initial weights that a model's `init` names."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fconv_jax import initializers
from fconv_jax.convolve import conv_general_dilated
from fconv_jax.draws import draw


def fconv_init(init: str, report: str = "torch_reference") -> dict[str, Any]:
    """Returns the initialisers of an F-Conv layer: `"report"` gives the one named, `"he"` he, biases 0.

    The reference draws its biases like its coefficients, the paper has none.

    Raises:
      ValueError: another `init`.
    """
    if init not in ("report", "he"):
        raise ValueError(f"init (={init!r}) must be 'report' or 'he'")
    name = report if init == "report" else "he"
    function = getattr(initializers, name)()
    return {
        "coefficient_init": function,
        "bias_init": function if name == "torch_reference" else nnx.initializers.zeros,
    }


def plain_conv(
    in_features: int, out_features: int, kernel_size: int, *, padding: int = 0, init: str, rngs: nnx.Rngs
) -> nnx.Conv:
    """Returns a plain convolution, `[batch, height, width, in]` -> `[batch, height', width', out]`.

    `init`: `"report"` (weights and biases uniform within +-1/sqrt(fan_in)), `"he"` (uniform with
    variance 2 / fan_in, biases 0) or `"alexnet"` (normal with variance 2 / fan_out, biases 0).

    Raises:
      ValueError: another `init`.
    """
    kernel_init, bias_init = _initializers(
        init, in_features * kernel_size**2, math.sqrt(2.0 / (out_features * kernel_size**2))
    )
    return nnx.Conv(
        in_features,
        out_features,
        (kernel_size, kernel_size),
        padding=((padding, padding), (padding, padding)),
        kernel_init=kernel_init,
        bias_init=bias_init,
        conv_general_dilated=conv_general_dilated,
        rngs=rngs,
    )


def plain_dense(in_features: int, out_features: int, *, init: str, rngs: nnx.Rngs, **options) -> nnx.Linear:
    """Returns a dense layer; `init` as in `plain_conv`, but `"alexnet"` is normal with std 0.01; `options`: of Flax."""
    kernel_init, bias_init = _initializers(init, in_features, 0.01)
    return nnx.Linear(in_features, out_features, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs, **options)


def _initializers(init, fan_in, alexnet_deviation):
    """The initializers of weights and biases."""
    if init == "report":
        return uniform_within(1.0 / math.sqrt(fan_in)), uniform_within(1.0 / math.sqrt(fan_in))
    if init == "he":
        return uniform_within(math.sqrt(6.0 / fan_in)), nnx.initializers.zeros
    if init == "alexnet":
        return _normal(alexnet_deviation), nnx.initializers.zeros
    raise ValueError(f"init (={init!r}) must be 'report' or 'he'")


def uniform_within(bound):
    """An initializer: uniform within +-bound."""
    return lambda key, shape, dtype=jnp.float32: draw(jax.random.uniform, key, shape, dtype, -bound, bound)


def _normal(deviation):
    return lambda key, shape, dtype=jnp.float32: draw(jax.random.normal, key, shape, dtype, scale=deviation)
