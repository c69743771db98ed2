"""Blocks of layers."""

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from fconv_jax._checks import whole
from fconv_jax.layers import GroupFConv


class ResidualBlock(nnx.Module):
    """Two group F-Convs beside a shortcut.

        y = act(x + residual_scale * n2(conv2(relu(n1(conv1(x)))))),

    n1, n2 batch norms over batch, space and rotations (with `batch_norm`, else nothing) and act
    a ReLU (with `final_relu`) or nothing: the reference has both endings, the ReLU in its
    layer file and none in its MNIST experiments.

    Law: that of its layers; quarter turns are exact when 4 divides t, at every image size.

    Args:
      features: features of the field, in and out.
      kernel_size: k, odd, so that the padding `"SAME"` keeps the size.
      num_rotations: t, the input's.
      batch_norm: normalise after each convolution; obeys `train()` and `eval()`.
      residual_scale: what the branch is multiplied by.
      final_relu: ReLU after the sum.
      num_frequencies, use_bias, smooth, mask, basis, init, dtype, param_dtype, rngs: as for `GroupFConv`.

    Returns (call): the input's shape, `[batch, height, width, t, features]`.

    Raises:
      ValueError: an even kernel size, or what `GroupFConv` refuses.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> block = fconv_jax.ResidualBlock(2, 3, num_rotations=4, batch_norm=True, rngs=nnx.Rngs(0))
    >>> block(jax.numpy.ones((1, 7, 7, 4, 2))).shape
    (1, 7, 7, 4, 2)
    """

    def __init__(
        self,
        features: int,
        kernel_size: int,
        num_rotations: int = 8,
        *,
        batch_norm: bool = False,
        residual_scale: float = 1.0,
        final_relu: bool = True,
        num_frequencies: int | None = None,
        use_bias: bool = True,
        smooth: bool = True,
        mask: str = "adaptive",
        basis: str = "fourier",
        init: str = "he",
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        options = {"num_frequencies": num_frequencies, "use_bias": use_bias, "smooth": smooth, "mask": mask}
        types = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}

        features = whole("features", features)

        def conv():
            sizes = (features, features, kernel_size, num_rotations)
            return GroupFConv(*sizes, padding="SAME", basis=basis, init=init, **options, **types)

        def norm():
            return nnx.BatchNorm(features, momentum=0.9, **types) if batch_norm else None

        self.conv1, self.norm1, self.conv2, self.norm2 = conv(), norm(), conv(), norm()
        self.residual_scale, self.final_relu = residual_scale, final_relu

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the output field of a field."""
        branch = nnx.relu(_apply(self.norm1, self.conv1(x)))
        branch = _apply(self.norm2, self.conv2(branch))
        y = x.astype(branch.dtype) + jnp.asarray(self.residual_scale, branch.dtype) * branch
        return nnx.relu(y) if self.final_relu else y


def _apply(norm, x):
    # A batch norm of half precision returns float32, as its running means are.
    return x if norm is None else norm(x).astype(x.dtype)
