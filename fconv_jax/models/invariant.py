"""Networks that are invariant up to their logits: `lenet_fconv_invariant` and `alexnet_fconv_invariant`."""

import dataclasses
import functools

import jax.numpy as jnp
from flax import nnx

from fconv_jax._checks import finite, whole
from fconv_jax.basis import Fourier
from fconv_jax.dropout import Dropout
from fconv_jax.layers import GroupFConv, LiftingFConv
from fconv_jax.models.initial import fconv_init, plain_dense
from fconv_jax.models.stages import StagedModel, mean_over_space, means_over_space
from fconv_jax.pooling import blur_pool, disk_mask, max_over_group, spatial_mean_pool
from fconv_jax.transforms import inside_disk, rotate_image


@dataclasses.dataclass(frozen=True)
class Layer:
    """One F-Conv layer: kernel size, features, frequencies (`None`: all) and whether a pool of stride 2 follows."""

    kernel_size: int
    features: int
    num_frequencies: int | None = None
    pool: bool = False


class InvariantFConv(StagedModel):
    """F-Conv layers, then a maximum over the group, a mean over space and two dense layers.

    Law: quarter turns of the image do not change the logits, to rounding, whatever the parameters (4 must divide
    `num_rotations`).  Other angles change them little: the filters have few frequencies and fade inside their kernels,
    the pools blur, and after each layer a soft disk fades the features' corners, since the square frame, where padding
    begins, does not rotate with the image (docs/equivariance.md).

    Args:
      layers: see `Layer`; padding `"SAME"`, batch norm and ReLU in each.
      num_rotations: t.
      mask: of the layers' basis, see `fourier_basis`.
      margin: of the disk in per cent of the radius, see `disk_mask`; `None` for no disk.
      blur: window of the Gaussian pools (`blur_pool`); `None` for the mean of 2 x 2 pixels.
      power: p of the power mean over space that the dense layer sees beside the mean, see `means_over_space`;
        `None` for the mean alone.
      power_blur: window of the blur (`blur_pool`, stride 1) between the maximum over the group and the means: without
        it, the power mean depends on where a feature's strongest point falls between the pixels.  `None`: no blur.
      input_turns: angles in degrees by which the image is also rotated (cubic spline) before the first layer;
        the pooled features are averaged over them.  (0.0,) leaves that out.  Parameters do not depend on it: a network
        trained at one angle may answer at several (results/input-turns.md).
      hidden: units of the first dense layer.
      dropout: rate in front of it.
      num_classes: units of the second.
      init: `"report"` (the layers' `initializers.xie()`: functions that the grid cannot rotate start small) or `"he"`.

    Raises:
      ValueError: no layers, a power below 1, a rate outside 0..1 (1 excluded), no angle or one that is not finite, or
        what a layer, pool or disk refuses.
    """

    def __init__(
        self,
        layers: tuple[Layer, ...],
        *,
        num_rotations: int,
        mask: str = "fading",
        margin: float | None = 2.0,
        blur: int | None = 5,
        power: float | None = None,
        power_blur: int | None = None,
        input_turns: tuple[float, ...] = (0.0,),
        hidden: int,
        dropout: float = 0.0,
        num_classes: int = 10,
        in_features: int = 1,
        init: str = "report",
        rngs: nnx.Rngs,
    ):
        _check(layers=layers, power=power, hidden=hidden, dropout=dropout, input_turns=input_turns)
        _check_windows(margin, blur=blur, power_blur=power_blur)
        hidden, num_classes = int(hidden), whole("num_classes", num_classes)
        self.layers, self.input_turns, self.margin, self.blur = layers, tuple(map(float, input_turns)), margin, blur
        self.power, self.power_blur = power, power_blur
        self.input_shape, before = (28, 28, in_features), in_features
        for number, layer in enumerate(layers, start=1):
            kind = LiftingFConv if number == 1 else GroupFConv
            conv = kind(
                before,
                layer.features,
                layer.kernel_size,
                num_rotations,
                use_bias=False,
                basis=Fourier("all" if layer.num_frequencies is None else layer.num_frequencies, mask=mask),
                **fconv_init(init, "xie"),
                rngs=rngs,
            )
            setattr(self, f"conv{number}", conv)
            setattr(self, f"norm{number}", nnx.BatchNorm(layer.features, momentum=0.9, rngs=rngs))
            before = layer.features
        self.dropout = Dropout(dropout)
        self.dense1 = plain_dense(before * (1 if power is None else 2), hidden, init=init, rngs=rngs)
        self.dense2 = plain_dense(hidden, num_classes, init=init, rngs=rngs)

    @property
    def stages(self):
        """See `StagedModel`."""
        stages = []
        if self.input_turns != (0.0,):
            stages.append(("input_turns", functools.partial(_rotated, angles=self.input_turns)))
        for number, layer in enumerate(self.layers, start=1):
            stages += [(f"{name}{number}", getattr(self, f"{name}{number}")) for name in ("conv", "norm")]
            stages.append((f"relu{number}", nnx.relu))
            if self.margin is not None:
                stages.append((f"disk{number}", functools.partial(inside_disk, margin=self.margin)))
            if layer.pool:
                pool = spatial_mean_pool if self.blur is None else functools.partial(blur_pool, window=self.blur)
                stages.append((f"pool{number}", pool))
        stages.append(("max_over_group", max_over_group))
        if self.power_blur is not None:
            blur = functools.partial(blur_pool, window=self.power_blur, strides=1)
            stages.append(("blur", blur))
        if self.power is None:
            stages.append(("mean_over_space", mean_over_space))
        else:
            stages.append(("means_over_space", functools.partial(means_over_space, power=self.power)))
        if self.input_turns != (0.0,):
            stages.append(("mean_over_turns", functools.partial(_mean_over_turns, count=len(self.input_turns))))
        stages += [("dropout", self.dropout)] if self.dropout.rate > 0.0 else []
        return (*stages, ("dense1", self.dense1), ("relu", nnx.relu), ("dense2", self.dense2))


def _check(*, layers, power, hidden, dropout, input_turns):
    if not layers:
        raise ValueError("layers must not be empty")
    if power is not None and finite("power", power) < 1:
        raise ValueError(f"power (={power!r}) must be a finite number of at least 1, or None")
    whole("hidden", hidden)
    if not 0 <= finite("dropout", dropout) < 1:
        raise ValueError(f"dropout (={dropout!r}) must be at least 0 and below 1")
    if not isinstance(input_turns, tuple | list) or not input_turns:
        raise ValueError(f"input_turns (={input_turns!r}) must be finite angles, at least one")
    for angle in input_turns:
        finite("input_turns", angle, "number of degrees")


def _check_windows(margin, **windows):
    """Refuses what the disk and the pools would refuse in a call."""
    if margin is not None:
        disk_mask(28, margin)
    for name, window in windows.items():
        if window is not None:
            whole(name, window)


def _rotated(images, angles):
    """`[batch, ...]` -> `[batch angles, ...]`, an image's rotated copies together."""
    copies = jnp.stack([rotate_image(images, angle) for angle in angles], axis=1)
    return copies.reshape(images.shape[0] * len(angles), *images.shape[1:])


def _mean_over_turns(x, count):
    return x.reshape(x.shape[0] // count, count, x.shape[-1]).mean(axis=1)


lenet_fconv_invariant = functools.partial(
    InvariantFConv,
    (Layer(9, 8, 5, pool=True), Layer(7, 12, 4, pool=True), Layer(5, 24, 3), Layer(5, 32, 3)),
    num_rotations=8,
    power=16.0,
    power_blur=5,
    hidden=64,
)
alexnet_fconv_invariant = functools.partial(
    InvariantFConv,
    (Layer(9, 16, 5, pool=True), Layer(7, 32, 4, pool=True), Layer(5, 48, 3), Layer(5, 48, 3), Layer(5, 64, 3)),
    num_rotations=8,
    power=16.0,
    power_blur=5,
    hidden=512,
    dropout=0.5,
)
