"""The report's LeNets: `lenet`, `lenet_fconv` and the two-convolution `lenet_classic`."""

from flax import nnx

from fconv_jax.basis import REFERENCE
from fconv_jax.layers import LiftingFConv
from fconv_jax.models.initial import fconv_init, plain_conv, plain_dense
from fconv_jax.models.stages import StagedModel, flatten
from fconv_jax.pooling import corner_max_pool


class LeNet(StagedModel):
    """conv 5x5 1->16 · ReLU · max-pool 2 · dense 2304->120 · ReLU · dense 120->num_classes.

    With `fconv`, the convolution is a lifting F-Conv of the same kernel size and number of
    channels: 16/8 = 2 features at 8 rotations (not equivariant: the flatten breaks it).
    """

    def __init__(
        self, *, num_classes: int = 10, in_features: int = 1, fconv: bool = False, init: str = "report", rngs: nnx.Rngs
    ):
        self.input_shape = (28, 28, in_features)
        if fconv:
            options = {"padding": "VALID", "basis": REFERENCE, **fconv_init(init)}
            self.conv = LiftingFConv(in_features, 2, 5, 8, **options, rngs=rngs)
        else:
            self.conv = plain_conv(in_features, 16, 5, init=init, rngs=rngs)
        self.dense1 = plain_dense(12 * 12 * 16, 120, init=init, rngs=rngs)
        self.dense2 = plain_dense(120, num_classes, init=init, rngs=rngs)

    @property
    def stages(self):
        """See `StagedModel`."""
        return (
            ("conv", self.conv),
            ("relu1", nnx.relu),
            ("pool", corner_max_pool),
            ("flatten", flatten),
            ("dense1", self.dense1),
            ("relu2", nnx.relu),
            ("dense2", self.dense2),
        )


class ClassicLeNet(StagedModel):
    """The report's figure 1, left: two convolutions and three dense layers, over 99 % on MNIST."""

    def __init__(self, *, num_classes: int = 10, in_features: int = 1, init: str = "report", rngs: nnx.Rngs):
        self.input_shape = (28, 28, in_features)
        self.conv1 = plain_conv(in_features, 16, 5, init=init, rngs=rngs)
        self.conv2 = plain_conv(16, 32, 5, init=init, rngs=rngs)
        self.dense1 = plain_dense(4 * 4 * 32, 120, init=init, rngs=rngs)
        self.dense2 = plain_dense(120, 84, init=init, rngs=rngs)
        self.dense3 = plain_dense(84, num_classes, init=init, rngs=rngs)

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
            ("flatten", flatten),
            ("dense1", self.dense1),
            ("relu3", nnx.relu),
            ("dense2", self.dense2),
            ("relu4", nnx.relu),
            ("dense3", self.dense3),
        )
