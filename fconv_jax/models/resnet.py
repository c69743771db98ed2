"""ResNet-18 of F-Conv layers: `resnet18_fconv`, for images of 32 pixels and more."""

import jax
from flax import nnx

from fconv_jax._checks import whole
from fconv_jax.blocks import ConvBlock, ResidualBlock
from fconv_jax.group import Group, as_group
from fconv_jax.models.initial import fconv_init, plain_dense
from fconv_jax.models.stages import ImageModel
from fconv_jax.pooling import max_over_group, spatial_max_pool, spatial_mean_pool


class ResNet(ImageModel):
    """A stem and four stages of two `ResidualBlock`s, a maximum over the group, a mean over space and a dense layer.

    Stages have width, 2 width, 4 width and 8 width features, and begin with half the resolution but for the first.
    Where ResNet-18 has strides, it has symmetric mean pools, which are exact at every size (He et al. 2016,
    arXiv 1512.03385, and its layout for small images).

    Law: quarter turns and mirrors of the group do not change the logits, to rounding, whatever the parameters.

    Args:
      num_classes: size of the logits.
      in_features: channels of the images.
      group: a `Group`, or t; `None` for the plain twin, see `plain_twin`.
      width: features of the first stage.
      large: the stem for large images, 7 x 7 and two halvings, in place of 3 x 3.
      norm: `"batch"` or `"layer"`, see `field_norm`; `None`: biases in its place.
      init: `"report"` and `"he"` are the same here: `initializers.he_smooth`.
      **options: of the layers, such as `basis` or `dtype`.

    Returns (call): images `[batch, height, width, in_features]` -> logits `[batch, num_classes]`.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_features: int = 3,
        group: Group | int | None = 8,
        width: int = 8,
        large: bool = False,
        norm: str | None = "batch",
        init: str = "report",
        rngs: nnx.Rngs,
        **options,
    ):
        fconv_init(init)
        options |= {"norm": norm, "rngs": rngs}
        width, self.group, self.large = whole("width", width), group and as_group(group), large
        self.input_shape = (None, None, whole("in_features", in_features))
        self.stem = ConvBlock(whole("in_features", in_features), width, 7 if large else 3, group, lift=True, **options)
        blocks, before = [], width
        for stage in range(4):
            for number in range(2):
                after, strides = width * 2**stage, 2 if stage and not number else 1
                blocks.append(ResidualBlock(before, after, 3, group, strides=strides, use_bias=norm is None, **options))
                before = after
        self.blocks = nnx.List(blocks)
        types = {name: options[name] for name in ("dtype", "param_dtype", "precision") if name in options}
        self.dense = plain_dense(before, num_classes, init="report", rngs=rngs, **types)

    def __call__(self, images: jax.Array, rngs=None) -> jax.Array:
        """Returns the logits."""
        self._check_images(images)
        x = spatial_mean_pool(self.stem(images)) if self.large else self.stem(images)
        x = spatial_max_pool(x, 3, strides=2, padding=1) if self.large else x
        for block in self.blocks:
            x = block(x)
        x = x if self.group is None else max_over_group(x)
        return self.dense(x.mean(axis=(1, 2)))
