"""The report's AlexNets for 28 x 28 images: `alexnet` and `alexnet_fconv`."""

from flax import nnx

from fconv_jax.basis import REFERENCE
from fconv_jax.dropout import Dropout
from fconv_jax.layers import GroupFConv, LiftingFConv, ProjectingFConv
from fconv_jax.models.initial import fconv_init, plain_conv, plain_dense
from fconv_jax.models.stages import StagedModel, flatten
from fconv_jax.pooling import corner_max_pool

_WIDTHS = (64, 192, 384, 256, 256)
_DENSE = 4096


class AlexNet(StagedModel):
    """Five convolutions (5x5, then 3x3, widths 64, 192, 384, 256, 256) and three dense layers.

    With `fconv`, a lifting, three group and one projecting F-Conv of the same widths: width / 8
    features at 8 rotations.  The pools are those of PyTorch, and the last one, 7 -> 3, drops a
    row and a column: quarter turns are exact up to it and not beyond.
    """

    def __init__(
        self, *, num_classes: int = 10, in_features: int = 1, fconv: bool = False, init: str = "report", rngs: nnx.Rngs
    ):
        self.input_shape = (28, 28, in_features)
        convs = (_fconvs if fconv else _plain_convs)(in_features, init, rngs)
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = convs
        dense_init = "alexnet" if init == "report" and not fconv else init
        self._add_dense(3 * 3 * _WIDTHS[-1], _DENSE, num_classes, dense_init, rngs)

    def _add_dense(self, inputs, hidden, num_classes, init, rngs):
        self.dropout1 = Dropout(0.5)
        self.dense1 = plain_dense(inputs, hidden, init=init, rngs=rngs)
        self.dropout2 = Dropout(0.5)
        self.dense2 = plain_dense(hidden, hidden, init=init, rngs=rngs)
        self.dense3 = plain_dense(hidden, num_classes, init=init, rngs=rngs)

    @property
    def stages(self):
        """See `StagedModel`."""
        return (
            ("conv1", self.conv1),
            ("relu1", nnx.relu),
            ("pool1", corner_max_pool),
            ("conv2", self.conv2),
            ("relu2", nnx.relu),
            ("pool2", corner_max_pool),
            ("conv3", self.conv3),
            ("relu3", nnx.relu),
            ("conv4", self.conv4),
            ("relu4", nnx.relu),
            ("conv5", self.conv5),
            ("relu5", nnx.relu),
            ("pool3", corner_max_pool),
            ("flatten", flatten),
            ("dropout1", self.dropout1),
            ("dense1", self.dense1),
            ("relu6", nnx.relu),
            ("dropout2", self.dropout2),
            ("dense2", self.dense2),
            ("relu7", nnx.relu),
            ("dense3", self.dense3),
        )


def _plain_convs(in_features, init, rngs):
    init = "alexnet" if init == "report" else init
    sizes = zip((in_features, *_WIDTHS), _WIDTHS, (5, 3, 3, 3, 3), strict=False)
    return [plain_conv(n, m, k, padding=k // 2, init=init, rngs=rngs) for n, m, k in sizes]


def _fconvs(in_features, init, rngs, num_rotations=8):
    features = [width // num_rotations for width in _WIDTHS]
    options = {"group": num_rotations, "basis": REFERENCE, **fconv_init(init), "rngs": rngs}
    lifting = LiftingFConv(in_features, features[0], 5, **options)
    groups = [GroupFConv(features[i], features[i + 1], 3, **options) for i in range(3)]
    return [lifting, *groups, ProjectingFConv(features[3], _WIDTHS[4], 3, **options)]
