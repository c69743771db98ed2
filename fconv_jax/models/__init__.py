"""Networks by name: the report's, the paper's, the invariant ones, and ResNet, U-Net and EDSR for any images."""

import functools
import inspect
import math

import jax
from flax import nnx

from fconv_jax._checks import whole
from fconv_jax.models.alexnet import AlexNet
from fconv_jax.models.edsr import EDSR
from fconv_jax.models.fconv_mnist import fconv_mnist, fconv_mnist_simple
from fconv_jax.models.invariant import alexnet_fconv_invariant, lenet_fconv_invariant
from fconv_jax.models.lenet import ClassicLeNet, LeNet
from fconv_jax.models.resnet import ResNet
from fconv_jax.models.unet import UNet

MODELS = {
    "lenet": LeNet,
    "lenet_fconv": functools.partial(LeNet, fconv=True),
    "lenet_classic": ClassicLeNet,
    "alexnet": AlexNet,
    "alexnet_fconv": functools.partial(AlexNet, fconv=True),
    "fconv_mnist_simple": fconv_mnist_simple,
    "fconv_mnist": fconv_mnist,
    "lenet_fconv_invariant": lenet_fconv_invariant,
    "alexnet_fconv_invariant": alexnet_fconv_invariant,
    "resnet18_fconv": ResNet,
    "unet_fconv": UNet,
    "edsr_fconv": EDSR,
}


_OF_LAYERS = ("padding", "kernel_dilation", "feature_group_count", "basis", "coefficient_init", "bias_init", "dtype",
              "param_dtype", "precision")  # fmt: skip
"""What a network with `**options` leaves to its layers; the others it sets itself."""


def create(
    name: str, *, num_classes: int = 10, in_features: int = 1, init: str = "report", rngs: nnx.Rngs, **options
) -> nnx.Module:
    """Returns the network `name` of `MODELS` with fresh parameters.

    Args:
      name: see `MODELS`.
      num_classes: size of the logits, at least 1.
      in_features: channels of the images, at least 1.
      init: `"report"` (as published) or `"he"` (variance-preserving).
      rngs: its `params` stream draws the parameters.
      **options: of the network itself, such as `group`.

    Raises:
      ValueError: an unknown name, init or option, or no classes.

    >>> from flax import nnx
    >>> import jax, fconv_jax
    >>> model = fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0))
    >>> model(jax.numpy.zeros((2, 28, 28, 1))).shape
    (2, 10)
    """
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(f"model (={name!r}) must be one of {', '.join(MODELS)}")
    if init not in ("report", "he"):
        raise ValueError(f"init (={init!r}) must be 'report' or 'he'")
    sizes = {"num_classes": whole("num_classes", num_classes), "in_features": whole("in_features", in_features)}
    _check(name, options)
    return MODELS[name](**sizes, init=init, rngs=rngs, **options)


def _check(name, options):
    """Refuses options that a network does not take."""
    made, fixed = getattr(MODELS[name], "func", MODELS[name]), getattr(MODELS[name], "args", ())
    own = inspect.signature(made.__init__ if isinstance(made, type) else made).parameters
    own = list(own)[len(fixed) + isinstance(made, type) :]  # without self, and what the table fixes
    takes = [*[option for option in own if option not in ("options", "fconv")], *_OF_LAYERS * ("options" in own)]
    for option, value in options.items():
        if option not in takes:
            raise ValueError(f"{option} (={value!r}) must be an option of {name}, one of {', '.join(takes)}")
    if "options" in own and options.get("padding", "SAME") not in ("SAME", "CIRCULAR", "REFLECT"):
        raise ValueError(f"padding (={options['padding']!r}) of {name} must be 'SAME', 'CIRCULAR' or 'REFLECT'")


def num_parameters(model: nnx.Module) -> int:
    """Returns how many numbers are trained."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def plain_twin(name: str, *, rngs: nnx.Rngs, **options) -> nnx.Module:
    """Returns `resnet18_fconv`, `unet_fconv` or `edsr_fconv` of plain convolutions, with as many parameters.

    Its width is the one with which it comes nearest to the F-Conv network's number of parameters.

    Args:
      name: the F-Conv network's.
      rngs: its `params` stream draws the parameters.
      **options: the F-Conv network's, as in `create`; `group` and `width` set the parameter count to match.

    Raises:
      ValueError: a network without a plain twin.
    """
    if not isinstance(name, str) or MODELS.get(name) not in (ResNet, UNet, EDSR):
        raise ValueError(f"name (={name!r}) must be resnet18_fconv, unet_fconv or edsr_fconv")

    def count(options):
        return num_parameters(nnx.eval_shape(lambda: create(name, rngs=nnx.Rngs(0), **options)))

    wanted, sizes, step = count(options), {}, whole("feature_group_count", options.get("feature_group_count", 1))
    for width in range(step, 1000 * step, step):
        sizes[width] = abs(count({**options, "group": None, "width": width}) - wanted)
        if width > step and sizes[width] > sizes[width - step]:
            break
    nearest = min(sizes, key=lambda width: sizes[width])
    return create(name, rngs=rngs, **{**options, "group": None, "width": nearest})
