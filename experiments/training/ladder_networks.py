"""The ladder's networks: `lenet_fconv` and a narrow `alexnet_fconv`, fixed one change at a time, and plain ones.

`fixes` counts how many of the fixes below a network has, in this order; -1 is the plain network.
"""

from flax import nnx

from fconv_jax.basis import REFERENCE
from fconv_jax.layers import GroupFConv, LiftingFConv, ProjectingFConv
from fconv_jax.models.alexnet import AlexNet
from fconv_jax.models.initial import fconv_init, plain_conv, plain_dense
from fconv_jax.models.lenet import LeNet
from fconv_jax.models.stages import flatten, mean_over_space
from fconv_jax.pooling import corner_max_pool, max_over_group, spatial_max_pool

HE, SYMMETRIC_POOLS, MAX_OVER_ROTATIONS, MEAN_OVER_SPACE, EQUAL_PARAMETERS = range(1, 6)

# The narrow AlexNet: a quarter of the report's widths.  `_EQUAL_*`: features and hidden units with which the last rung
# has at most as many parameters as its plain network (a test counts them).
_NARROW, _NARROW_DENSE = (16, 48, 96, 64, 64), 1024
_EQUAL_LENET = (16, 10200)
_EQUAL_ALEXNET = ((6, 12, 20, 20, 64), 1240)


class LadderLeNet(LeNet):
    """`lenet_fconv` with some fixes."""

    def __init__(self, fixes: int, *, num_classes: int = 10, rngs: nnx.Rngs):
        self.fixes, self.input_shape = fixes, (28, 28, 1)
        if fixes < 0:
            super().__init__(num_classes=num_classes, rngs=rngs)
            return
        init = "he" if fixes >= HE else "report"
        features, hidden = _EQUAL_LENET if fixes >= EQUAL_PARAMETERS else (2, 120)
        self.conv = LiftingFConv(1, features, 5, 8, padding="VALID", basis=REFERENCE, **fconv_init(init), rngs=rngs)
        inputs = features * (1 if fixes >= MAX_OVER_ROTATIONS else 8) * (1 if fixes >= MEAN_OVER_SPACE else 12 * 12)
        self.dense1 = plain_dense(inputs, hidden, init=init, rngs=rngs)
        self.dense2 = plain_dense(hidden, num_classes, init=init, rngs=rngs)

    @property
    def stages(self):
        """The published network's, fixed."""
        return _fixed(super().stages, self.fixes)


class LadderAlexNet(AlexNet):
    """`alexnet_fconv` of a quarter of the widths with some fixes."""

    def __init__(self, fixes: int, *, num_classes: int = 10, rngs: nnx.Rngs):
        self.fixes, self.input_shape = fixes, (28, 28, 1)
        if fixes < 0:
            self._make_plain(num_classes, rngs)
            return
        init = "he" if fixes >= HE else "report"
        features, hidden = tuple(width // 8 for width in _NARROW[:4]) + _NARROW[4:], _NARROW_DENSE
        if fixes >= EQUAL_PARAMETERS:
            features, hidden = _EQUAL_ALEXNET
        options = {"group": 8, "basis": REFERENCE, **fconv_init(init), "rngs": rngs}
        self.conv1 = LiftingFConv(1, features[0], 5, **options)
        self.conv2, self.conv3, self.conv4 = (GroupFConv(features[i], features[i + 1], 3, **options) for i in range(3))
        # The last layer keeps the rotation axis for the pool, which leaves the number of channels unchanged.
        last = GroupFConv if fixes >= MAX_OVER_ROTATIONS else ProjectingFConv
        self.conv5 = last(features[3], features[4], 3, **options)
        self._add_dense(features[4] * (1 if fixes >= MEAN_OVER_SPACE else 3 * 3), hidden, num_classes, init, rngs)

    def _make_plain(self, num_classes, rngs):
        sizes = zip((1, *_NARROW), _NARROW, (5, 3, 3, 3, 3), strict=False)
        convs = [plain_conv(n, m, k, padding=k // 2, init="alexnet", rngs=rngs) for n, m, k in sizes]
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = convs
        self._add_dense(3 * 3 * _NARROW[-1], _NARROW_DENSE, num_classes, "alexnet", rngs)

    @property
    def stages(self):
        """The published network's, fixed."""
        return _fixed(super().stages, self.fixes)


def _fixed(stages, fixes):
    """A published network's stages with its pools, its rotations and its flatten fixed."""
    changed = []
    for name, stage in stages:
        if stage is corner_max_pool and fixes >= SYMMETRIC_POOLS:
            stage = spatial_max_pool
        if stage is flatten:
            if fixes >= MAX_OVER_ROTATIONS:
                changed.append(("max_over_group", max_over_group))
            if fixes >= MEAN_OVER_SPACE:
                name, stage = "mean_over_space", mean_over_space
        changed.append((name, stage))
    return tuple(changed)
