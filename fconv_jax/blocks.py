"""Blocks of layers: residual, down and up in resolution.

Each takes `group`, the field's; `None` makes the plain twin, the same block of `nnx.Conv` over images.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fconv_jax._arguments import checked_dtype, checked_precision
from fconv_jax._checks import finite, same, whole
from fconv_jax.basis import Bicubic, Fourier
from fconv_jax.convolve import padding_width
from fconv_jax.group import Group, group_of
from fconv_jax.initializers import _asks_for_facts
from fconv_jax.layers import GroupFConv, LiftingFConv
from fconv_jax.pooling import spatial_mean_pool
from fconv_jax.resampling import upsample

_Group = Group | int | None
NORMS = ("batch", "layer", None)


def field_norm(norm: str | None, features: int, *, field: bool = True, **options) -> nnx.Module | None:
    """Returns a norm of Flax that every element of a group leaves as it is, for fields and images.

    Args:
      norm: `"batch"` (over batch, space and group, momentum 0.9), `"layer"` (at each pixel, over group and features,
        of an image over features) or `None`.
      features: the field's; scale and bias are one number for each.
      field: whether it is for fields `[batch, height, width, g, features]`, or for images.
      **options: `dtype`, `param_dtype`, `rngs` of the norm.

    Raises:
      ValueError: another name.
    """
    if norm not in NORMS:
        raise ValueError(f"norm (={norm!r}) must be 'batch', 'layer' or None")
    if norm is None:
        return None
    if norm == "batch":
        return nnx.BatchNorm(features, momentum=0.9, **options)
    return nnx.LayerNorm(features, reduction_axes=(-2, -1) if field else -1, **options)


class ConvBlock(nnx.Module):
    """y = relu(norm(conv(x))).

    Law: that of its layer.

    Args:
      in_features, out_features, kernel_size: of the layer.
      group: a `Group`, or t; `None` for a plain convolution.
      lift: whether the input is an image, not a field.
      norm: see `field_norm`; with a norm the layer has no bias.
      basis, coefficient_init, dtype, param_dtype, precision, rngs, ...: as for `GroupFConv`.

    Returns (call): `[batch, height, width, g, in]` -> `[batch, height, width, g, out]`.

    Raises:
      ValueError: what the layer or `field_norm` refuses.
    """

    def __init__(
        self,
        in_features,
        out_features,
        kernel_size=3,
        group: Group | int | None = 8,
        *,
        lift=False,
        norm="batch",
        **options,
    ):
        if "use_bias" in options:
            raise ValueError(
                f"use_bias (={options['use_bias']!r}) follows from norm (={norm!r}): a bias without a norm"
            )
        self.conv = _conv(in_features, out_features, kernel_size, group, lift=lift, use_bias=norm is None, **options)
        self.norm = field_norm(norm, out_features, field=group is not None, **_types(options))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the output field of a field, or of an image with `lift`."""
        return nnx.relu(_apply(self.norm, self.conv(x)))


class ResidualBlock(nnx.Module):
    """Two group F-Convs beside a shortcut.

        y = act(shortcut(x') + residual_scale * n2(conv2(relu(n1(conv1(x')))))),   x' = mean_pool(x, strides),

    n1, n2 norms, the shortcut a 1 x 1 layer where the features change (else x' itself), act
    a ReLU (with `final_relu`) or nothing: the reference has both endings, the ReLU in its
    layer file and none in its MNIST experiments.  The symmetric pool stands for the layer's stride, which would break
    quarter turns at even sizes.

    Law: that of its layers; quarter turns and mirrors of the group are exact at every image size.

    Args:
      in_features, out_features: features of the fields.
      kernel_size: k, odd, so that the padding `"SAME"` keeps the size; a number or an equal pair.
      group: the input's; `None` for a plain block of images.
      strides: by how much the resolution falls, a number or an equal pair.
      norm: see `field_norm`; batch norms obey `train()` and `eval()`.
      residual_scale: a number that the branch is multiplied by.
      final_relu: ReLU after the sum.
      use_bias, basis, coefficient_init, dtype, param_dtype, rngs, ...: as for `GroupFConv`.

    Returns (call): `[batch, height, width, g, in]` -> `[batch, height // strides, width // strides, g, out]`.

    Raises:
      ValueError: an even kernel size, padding that changes the size, with strides an input without a batch, or what
        `GroupFConv` refuses.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> block = fconv_jax.ResidualBlock(2, 4, 3, group=4, strides=2, norm="batch", rngs=nnx.Rngs(0))
    >>> block(jax.numpy.ones((1, 8, 8, 4, 2))).shape
    (1, 4, 4, 4, 4)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 3,
        group: Group | int | None = 8,
        *,
        strides: int | tuple[int, int] = 1,
        norm: str | None = None,
        residual_scale: float = 1.0,
        final_relu: bool = True,
        **options,
    ):
        _refuse_lift(options)
        sizes = whole("in_features", in_features), whole("out_features", out_features)
        self.strides = whole("strides", same("strides", strides))

        def conv(before, k=kernel_size):
            return _conv(before, sizes[1], k, group, **options)

        def normed():
            return field_norm(norm, sizes[1], field=group is not None, **_types(options))

        self.conv1, self.norm1 = conv(sizes[0]), normed()
        self.conv2, self.norm2 = conv(sizes[1]), normed()
        options = point_options(options)
        self.shortcut = conv(sizes[0], 1) if sizes[0] != sizes[1] else None
        self.residual_scale, self.final_relu = finite("residual_scale", residual_scale), final_relu

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the output field of a field."""
        x = _pooled(x, self.strides, self.conv1)
        branch = nnx.relu(_apply(self.norm1, self.conv1(x)))
        branch = _apply(self.norm2, self.conv2(branch))
        if branch.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"padding (={self.conv1.padding!r}) must keep the size, or nothing stands beside the shortcut: "
                f"{x.shape} became {branch.shape}"
            )
        x = x if self.shortcut is None else self.shortcut(x)
        y = x.astype(branch.dtype) + jnp.asarray(self.residual_scale, branch.dtype) * branch
        return nnx.relu(y) if self.final_relu else y


class DownBlock(nnx.Module):
    """Half the resolution: y = block2(block1(mean_pool(x, strides))), the blocks `ConvBlock`s.

    Law: that of its layers; quarter turns and mirrors of the group are exact at every image size.

    Args: as for `ConvBlock` (but `lift`), and `strides`, by how much the resolution falls.

    Returns (call): `[batch, height, width, g, in]` -> `[batch, height // strides, width // strides, g, out]`.
    """

    def __init__(self, in_features, out_features, kernel_size=3, group: _Group = 8, *, strides=2, **options):
        _refuse_lift(options)
        self.strides = whole("strides", same("strides", strides))
        self.block1 = ConvBlock(in_features, out_features, kernel_size, group, **options)
        self.block2 = ConvBlock(out_features, out_features, kernel_size, group, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the output field of a field."""
        return self.block2(self.block1(_pooled(x, self.strides, self.block1.conv)))


class UpBlock(nnx.Module):
    """Twice the resolution, beside a shortcut: y = block2(block1([upsample(x), skip])), the blocks `ConvBlock`s.

    Law: that of its layers; quarter turns and mirrors of the group are exact.

    Args: as for `ConvBlock` (but `lift`), `skip_features`, those of the shortcut, and `factor`, by how much the
    resolution rises.

    Returns (call): fields `[batch, height, width, g, in]` and `[batch, factor height, factor width, g, skip]` ->
    `[batch, factor height, factor width, g, out]`.

    Raises:
      ValueError: a shortcut of another size.
    """

    def __init__(
        self,
        in_features,
        skip_features,
        out_features,
        kernel_size=3,
        group: Group | int | None = 8,
        *,
        factor=2,
        **options,
    ):
        _refuse_lift(options)
        self.factor = whole("factor", factor)
        features = whole("in_features", in_features) + whole("skip_features", skip_features)
        self.block1 = ConvBlock(features, out_features, kernel_size, group, **options)
        self.block2 = ConvBlock(out_features, out_features, kernel_size, group, **options)

    def __call__(self, x: jax.Array, skip: jax.Array) -> jax.Array:
        """Returns the output field of a field and the shortcut's."""
        x = upsample(x, self.factor)
        if x.shape[:-1] != skip.shape[:-1]:
            raise ValueError(f"skip of shape {skip.shape} must be {(*x.shape[:-1], skip.shape[-1])}")
        return self.block2(self.block1(jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)))


def _conv(in_features, out_features, kernel_size, group, *, lift=False, basis=None, coefficient_init=None, **options):
    """A group F-Conv, with `lift` a lifting one, or without a group a plain convolution."""
    if group is None:
        kernel_init = nnx.initializers.he_uniform()
        size = (whole("kernel_size", same("kernel_size", kernel_size)),) * 2
        in_features, out_features = whole("in_features", in_features), whole("out_features", out_features)
        whole("feature_group_count", options.get("feature_group_count", 1))
        whole("kernel_dilation", same("kernel_dilation", options.get("kernel_dilation", 1)))
        checked_dtype(options.get("dtype"))
        checked_precision(options.get("precision"))
        if "kernel_dilation" not in options:
            padding_width(options.get("padding", "SAME"), size[0])  # refuses what a layer with a group would
        return nnx.Conv(in_features, out_features, size, kernel_init=kernel_init, **plain_options(options))
    named: dict[str, Fourier | Bicubic] = {} if basis is None else {"basis": basis}
    named |= {} if coefficient_init is None else {"coefficient_init": coefficient_init}
    kind = LiftingFConv if lift else GroupFConv
    return kind(in_features, out_features, kernel_size, group, **named, **options)


def _refuse_lift(options):
    if options.pop("lift", False):
        raise ValueError("lift (=True): this block takes fields; put a ConvBlock with lift in front of it")


def _pooled(x, strides, conv):
    """The input of a block at its resolution.  A pool takes one axis of images, a layer any number."""
    group = group_of(conv)
    axes = (conv.in_features,) if group is None else (group.order, conv.in_features)
    if strides > 1 and x.ndim != 3 + len(axes):
        raise ValueError(f"input of shape {x.shape} must be [batch, height, width, {', '.join(map(str, axes))}]")
    return spatial_mean_pool(x, strides) if strides > 1 else x


def plain_options(options):
    """Those of a layer's options that a plain convolution has: no basis, and no initialiser that asks for its facts."""
    left_out = {"basis", "coefficient_init"}
    if any(_asks_for_facts(options.get("bias_init"))):
        left_out.add("bias_init")
    return {name: value for name, value in options.items() if name not in left_out}


def point_options(options):
    """Those of a layer's options that a kernel of 1 x 1 has, which keeps the size: no border of its own and no gaps."""
    return {name: value for name, value in options.items() if name not in ("padding", "kernel_dilation")}


def _types(options):
    return {name: options[name] for name in ("dtype", "param_dtype", "rngs") if name in options}


def _apply(norm, x):
    # A batch norm in half precision returns float32, the type of its running means.
    return x if norm is None else norm(x).astype(x.dtype)
