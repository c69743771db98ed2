"""The paper's own networks for rotated MNIST: `fconv_mnist_simple` and `fconv_mnist`."""

import functools

from flax import nnx

from fconv_jax.basis import Fourier
from fconv_jax.dropout import Dropout, FieldDropout
from fconv_jax.layers import GroupFConv, LiftingFConv
from fconv_jax.models.initial import fconv_init, plain_dense
from fconv_jax.models.stages import StagedModel, flatten
from fconv_jax.pooling import blur_pool, corner_max_pool, max_over_group

_basis = functools.partial(Fourier, mask="gaussian")
_padded_pool = functools.partial(corner_max_pool, window=2, padding=1)
_gaussian_pool = functools.partial(blur_pool, window=5, strides=1, padding=0)


class FConvMnist(StagedModel):
    """F-Conv layers with batch norm, a Gaussian pool, a maximum over the group and a small dense head.

    Sizes: 28 -> 24 (k = 7, padding 1) -> 24 -> pool 13 -> 13 -> 13 -> pool 7 -> ... -> 5 -> pool 1.
    The first layer has 5 frequencies, the others (k = 5) have 4; none has a bias.  The second
    pool, 13 -> 7 with padding 1, is asymmetric as published: quarter turns are exact up to it but,
    despite the maximum over the group, not beyond.

    Args:
      widths: features of each layer.
      num_rotations: t.
      field_dropout: rate, after every layer but the first; 0 for none.
      dropout: rate in the head.
      init: `"report"` as published (the layers' `initializers.xie()`), or `"he"`.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        *,
        num_rotations: int,
        field_dropout: float,
        dropout: float,
        num_classes: int = 10,
        in_features: int = 1,
        init: str = "report",
        rngs: nnx.Rngs,
    ):
        self.num_layers, self.input_shape = len(widths), (28, 28, in_features)
        options = {"use_bias": False, **fconv_init(init, "xie"), "rngs": rngs}
        for number, width in enumerate(widths, start=1):
            if number == 1:
                conv = LiftingFConv(in_features, width, 7, num_rotations, padding=1, basis=_basis(5), **options)
            else:
                padding = 1 if number == len(widths) else 2
                sizes = (widths[number - 2], width, 5, num_rotations)
                conv = GroupFConv(*sizes, padding=padding, basis=_basis(4), **options)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"norm{number}", nnx.BatchNorm(width, momentum=0.9, rngs=rngs))
        self.field_dropout = FieldDropout(field_dropout)
        self.dense1 = plain_dense(widths[-1], widths[-1], init=init, rngs=rngs)
        self.norm = nnx.BatchNorm(widths[-1], momentum=0.9, rngs=rngs)
        self.dropout = Dropout(dropout)
        self.dense2 = plain_dense(widths[-1], num_classes, init=init, rngs=rngs)

    @property
    def stages(self):
        """See `StagedModel`."""
        stages = []
        for number in range(1, self.num_layers + 1):
            stages += [(f"{name}{number}", getattr(self, f"{name}{number}")) for name in ("conv", "norm")]
            stages.append((f"relu{number}", nnx.relu))
            if number > 1 and self.field_dropout.rate > 0.0:
                stages.append((f"field_dropout{number}", self.field_dropout))
            if number in (2, 4):
                stages.append((f"pool{number // 2}", _padded_pool))
        return (
            *stages,
            ("pool3", _gaussian_pool),
            ("max_over_group", max_over_group),
            ("flatten", flatten),
            ("dense1", self.dense1),
            ("norm", self.norm),
            ("elu", nnx.elu),
            ("dropout", self.dropout),
            ("dense2", self.dense2),
        )


fconv_mnist_simple = functools.partial(FConvMnist, (10,) * 6, num_rotations=8, field_dropout=0.0, dropout=0.2)
fconv_mnist = functools.partial(
    FConvMnist, (16, 16, 32, 32, 32, 64, 96), num_rotations=12, field_dropout=0.25, dropout=0.7
)
