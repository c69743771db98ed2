"""A U-Net of F-Conv layers: `unet_fconv`, for masks or vectors at each pixel."""

import jax
from flax import nnx

from fconv_jax._checks import whole
from fconv_jax.blocks import ConvBlock, DownBlock, UpBlock, plain_options, point_options
from fconv_jax.group import Group, as_group
from fconv_jax.layers import GroupFConv, ProjectingFConv
from fconv_jax.models.initial import fconv_init
from fconv_jax.models.stages import ImageModel
from fconv_jax.vectors import checked_group, to_vectors

OUTPUTS = ("mask", "vectors")


class UNet(ImageModel):
    """Down in resolution and up again, with a shortcut at each level (Ronneberger et al. 2015, arXiv 1505.04597).

    Law: quarter turns and mirrors of the group rotate and mirror the output, to rounding, whatever the parameters:
    masks as images, vectors as vectors (`rotate_vectors`).

    Args:
      num_classes: channels of the output.
      in_features: channels of the images.
      group: a `Group`, or t; `None` for the plain twin, whose vectors are two channels for each class.
      width: features of the first level; each level has twice those of the one before.
      depth: levels below the first.
      output: `"mask"`, logits of each class at each pixel, or `"vectors"`, as of a flow.
      norm: `"batch"`, `"layer"` or `None`, see `field_norm`.
      init: `"report"` and `"he"` are the same here: `initializers.he_smooth`.
      **options: of the layers, such as `basis` or `dtype`.

    Returns (call): images `[batch, height, width, in_features]`, sides multiples of 2^depth, ->
    `[batch, height, width, num_classes]`, or of vectors `[batch, height, width, 2, num_classes]`.

    Raises:
      ValueError: another output, or sides that are not such multiples.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_features: int = 1,
        group: Group | int | None = 8,
        width: int = 8,
        depth: int = 3,
        output: str = "mask",
        norm: str | None = "batch",
        init: str = "report",
        rngs: nnx.Rngs,
        **options,
    ):
        fconv_init(init)
        if output not in OUTPUTS:
            raise ValueError(f"output (={output!r}) must be {' or '.join(OUTPUTS)}")
        if output == "vectors" and group is not None:
            group = checked_group(group)
        width, depth = whole("width", width), whole("depth", depth)
        blocks = {**options, "norm": norm, "rngs": rngs}
        widths = [width * 2**level for level in range(depth + 1)]
        self.group, self.output, self.depth = group and as_group(group), output, depth
        self.input_shape, self.smallest_size = (None, None, whole("in_features", in_features)), max(16, 2**depth)
        self.lift = ConvBlock(whole("in_features", in_features), width, 3, group, lift=True, **blocks)
        self.first = ConvBlock(width, width, 3, group, **blocks)
        self.down = nnx.List([DownBlock(widths[i], widths[i + 1], 3, group, **blocks) for i in range(depth)])
        self.up = nnx.List(
            [UpBlock(widths[i + 1], widths[i], widths[i], 3, group, **blocks) for i in reversed(range(depth))]
        )
        options = point_options(options)
        if group is None:
            features = num_classes if output == "mask" else 2 * num_classes
            self.last = nnx.Conv(width, features, (1, 1), rngs=rngs, **plain_options(options))
        else:
            kind = ProjectingFConv if output == "mask" else GroupFConv
            self.last = kind(width, num_classes, 1, group, use_bias=output == "mask", rngs=rngs, **options)

    def __call__(self, images: jax.Array, rngs=None) -> jax.Array:
        """Returns the masks' logits or the vectors."""
        self._check_images(images)
        sides = [side for side in images.shape[1:3] if isinstance(side, int)]
        if any(side % 2**self.depth for side in sides):
            raise ValueError(f"images of shape {images.shape} must have sides that are multiples of {2**self.depth}")
        levels = [self.first(self.lift(images))]
        for block in self.down:
            levels.append(block(levels[-1]))
        x = levels.pop()
        for block in self.up:
            x = block(x, levels.pop())
        x = self.last(x)
        if self.output == "mask":
            return x
        return x.reshape(*x.shape[:3], 2, x.shape[3] // 2) if self.group is None else to_vectors(x, self.group)
