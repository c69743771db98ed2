"""EDSR of F-Conv layers for super-resolution: `edsr_fconv`."""

import jax
from flax import nnx

from fconv_jax._checks import whole
from fconv_jax.blocks import ResidualBlock, _conv, plain_options
from fconv_jax.group import Group
from fconv_jax.layers import ProjectingFConv
from fconv_jax.models.initial import fconv_init
from fconv_jax.models.stages import ImageModel
from fconv_jax.resampling import upsample

SCALES = (1, 2, 3, 4)


class EDSR(ImageModel):
    """Residual blocks at the input's resolution, then bilinear upsampling of the field.

        y = upsample(x, scale) + project(relu(conv_up(upsample(f + conv(blocks(f)), scale)))),   f = lift(x)

    As EDSR (Lim et al. 2017, arXiv 1707.02921), but where that shuffles channels into pixels, which has one fixed
    direction, this one interpolates the field; x 4 does it twice.  As there, the blocks have no norms unless asked for.

    Law: quarter turns and mirrors of the group rotate and mirror the large image, to rounding, end to end.

    Args:
      in_features: channels of the images, in and out.
      scale: 2, 3 or 4 (1 restores an image at its own size).
      group: a `Group`, or t; `None` for the plain twin.
      width: features.
      blocks: number of residual blocks.
      residual_scale: of each.
      norm: of the blocks, `None`, `"batch"` or `"layer"`, see `field_norm`; with a norm their layers have no bias.
      init: `"report"` and `"he"` are the same here: `initializers.he_smooth`.
      num_classes: none here; ignored, so that `models.create` may pass it.
      **options: of the layers, such as `basis` or `dtype`.

    Returns (call): `[batch, height, width, in_features]` -> `[batch, scale height, scale width, in_features]`,
      of the wider type of the images and the layers.

    Raises:
      ValueError: another scale.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_features: int = 3,
        scale: int = 2,
        group: Group | int | None = 8,
        width: int = 8,
        blocks: int = 4,
        residual_scale: float = 1.0,
        norm: str | None = None,
        use_bias: bool = True,
        init: str = "report",
        rngs: nnx.Rngs,
        **options,
    ):
        fconv_init(init)
        if whole("scale", scale) not in SCALES:
            raise ValueError(f"scale (={scale!r}) must be one of {', '.join(map(str, SCALES))}")
        width, in_features = whole("width", width), whole("in_features", in_features)
        options |= {"use_bias": use_bias, "rngs": rngs}
        self.input_shape = (None, None, in_features)
        self.scale, self.steps = int(scale), (2, 2) if scale == 4 else (int(scale),)
        self.lift = _conv(in_features, width, 3, group, lift=True, **options)
        inner = {**options, "use_bias": use_bias and norm is None, "residual_scale": residual_scale}
        sizes = [(width, width, 3, group)] * whole("blocks", blocks)
        self.blocks = nnx.List([ResidualBlock(*size, norm=norm, final_relu=False, **inner) for size in sizes])
        self.conv = _conv(width, width, 3, group, **options)
        self.up = nnx.List([_conv(width, width, 3, group, **options) for _ in self.steps])
        if group is None:
            self.last = nnx.Conv(width, in_features, (3, 3), **plain_options(options))
        else:
            self.last = ProjectingFConv(width, in_features, 3, group, **options)

    def __call__(self, images: jax.Array, rngs=None) -> jax.Array:
        """Returns the large images."""
        self._check_images(images)
        x = first = self.lift(images)
        for block in self.blocks:
            x = block(x)
        x = first + self.conv(x)
        for step, conv in zip(self.steps, self.up, strict=True):
            x = nnx.relu(conv(upsample(x, step)))
        with jax.numpy_dtype_promotion("standard"):  # images of one type, layers that compute in another
            return upsample(images, self.scale) + self.last(x)
