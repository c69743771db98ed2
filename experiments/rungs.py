"""The ladder's networks: `lenet_fconv` and a narrow `alexnet_fconv`, repaired one change at a time."""

import dataclasses
import functools
from collections.abc import Callable

from flax import nnx

from fconv_jax.layers import GroupFConv, LiftingFConv, ProjectingFConv
from fconv_jax.models.alexnet import AlexNet
from fconv_jax.models.initial import plain_conv, plain_dense
from fconv_jax.models.lenet import LeNet
from fconv_jax.models.stages import StagedModel, flatten, mean_over_space
from fconv_jax.pooling import corner_max_pool, max_over_rotations, spatial_max_pool


@dataclasses.dataclass(frozen=True)
class Repairs:
    """Which repairs a network has; each rung of the ladder adds one."""

    he: bool = False
    symmetric_pools: bool = False
    max_over_rotations: bool = False
    mean_over_space: bool = False
    equal_parameters: bool = False


RUNGS: dict[str, Repairs] = {
    "as published": Repairs(),
    "variance-preserving init": Repairs(he=True),
    "symmetric pooling": Repairs(he=True, symmetric_pools=True),
    "maximum over rotations": Repairs(he=True, symmetric_pools=True, max_over_rotations=True),
    "mean over space": Repairs(he=True, symmetric_pools=True, max_over_rotations=True, mean_over_space=True),
    "equal parameters": Repairs(True, True, True, True, True),
}

# The narrow AlexNet: a quarter of the report's widths.  `_EQUAL_*`: features and hidden units with which the last rung
# has at most as many parameters as its plain network (a test counts them).
_NARROW, _NARROW_DENSE = (16, 48, 96, 64, 64), 1024
_EQUAL_LENET = (16, 10200)
_EQUAL_ALEXNET = ((6, 12, 20, 20, 64), 1240)


class LadderLeNet(LeNet):
    """`lenet_fconv` with repairs."""

    def __init__(self, repairs: Repairs, *, num_classes: int = 10, rngs: nnx.Rngs):
        self.repairs = repairs
        init = "he" if repairs.he else "report"
        features, hidden = _EQUAL_LENET if repairs.equal_parameters else (2, 120)
        self.conv = LiftingFConv(1, features, 5, num_rotations=8, init=init, rngs=rngs)
        inputs = features * (1 if repairs.max_over_rotations else 8) * (1 if repairs.mean_over_space else 12 * 12)
        self.dense1 = plain_dense(inputs, hidden, init=init, rngs=rngs)
        self.dense2 = plain_dense(hidden, num_classes, init=init, rngs=rngs)

    @property
    def stages(self):
        return _repaired(super().stages, self.repairs)


class LadderAlexNet(AlexNet):
    """`alexnet_fconv` of a quarter of the widths with repairs."""

    def __init__(self, repairs: Repairs, *, num_classes: int = 10, rngs: nnx.Rngs):
        self.repairs = repairs
        init = "he" if repairs.he else "report"
        features, hidden = tuple(width // 8 for width in _NARROW[:4]) + _NARROW[4:], _NARROW_DENSE
        if repairs.equal_parameters:
            features, hidden = _EQUAL_ALEXNET
        options = {"num_rotations": 8, "padding": "SAME", "init": init, "rngs": rngs}
        self.conv1 = LiftingFConv(1, features[0], 5, **options)
        self.conv2, self.conv3, self.conv4 = (GroupFConv(features[i], features[i + 1], 3, **options) for i in range(3))
        # To pool over rotations, the last layer keeps them; it has as many channels after the pool as before.
        last = GroupFConv if repairs.max_over_rotations else ProjectingFConv
        self.conv5 = last(features[3], features[4], 3, **options)
        self._add_dense(features[4] * (1 if repairs.mean_over_space else 3 * 3), hidden, num_classes, init, rngs)

    @property
    def stages(self):
        return _repaired(super().stages, self.repairs)


class NarrowAlexNet(AlexNet):
    """`alexnet` of a quarter of the widths."""

    def __init__(self, *, num_classes: int = 10, init: str, rngs: nnx.Rngs):
        init = "alexnet" if init == "report" else init
        sizes = zip((1, *_NARROW), _NARROW, (5, 3, 3, 3, 3), strict=False)
        convs = [plain_conv(n, m, k, padding=k // 2, init=init, rngs=rngs) for n, m, k in sizes]
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = convs
        self._add_dense(3 * 3 * _NARROW[-1], _NARROW_DENSE, num_classes, init, rngs)


def _repaired(stages, repairs):
    """A published network's stages with its pools, its rotations and its flatten repaired."""
    changed = []
    for name, stage in stages:
        if stage is corner_max_pool and repairs.symmetric_pools:
            stage = spatial_max_pool
        if stage is flatten:
            if repairs.max_over_rotations:
                changed.append(("max_over_rotations", max_over_rotations))
            if repairs.mean_over_space:
                name, stage = "mean_over_space", mean_over_space
        changed.append((name, stage))
    return tuple(changed)


LADDERS: dict[str, type[StagedModel]] = {"lenet_fconv": LadderLeNet, "narrow alexnet_fconv": LadderAlexNet}
PLAIN: dict[str, Callable] = {
    "lenet_fconv": functools.partial(LeNet, init="report"),
    "narrow alexnet_fconv": functools.partial(NarrowAlexNet, init="report"),
}
"""The plain network that a ladder is compared with."""
