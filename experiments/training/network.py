"""A network without its parameters: how it is made, applied and evaluated."""

import dataclasses
import functools
import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.scipy.ndimage import map_coordinates

import fconv_jax
from experiments.settings import MODELS

_ANGLE = 360  # what an image's key is for, beside dropout


@dataclasses.dataclass(frozen=True)
class Network:
    """A network without its parameters, and its loss: `graphdef` merged with params and stats is the model.

    `has_stats`: batch statistics make the images of a batch depend on each other, so that a
    batch must not be cut.
    """

    graphdef: nnx.GraphDef
    create: Callable
    num_classes: int
    compute_dtype: jnp.dtype
    has_stats: bool
    label_smoothing: float = 0.0
    augmentation: str = "none"

    def expand(self, params):
        """Returns the parameters with F-Conv coefficients expanded to filters, as `apply` takes them."""
        model = fconv_jax.expand_filters(nnx.merge(self.graphdef, params, self._no_stats, copy=True))
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    @functools.cached_property
    def _expanded(self):
        """The structure of the network with expanded filters."""
        model = nnx.eval_shape(lambda: fconv_jax.expand_filters(self.create(rngs=nnx.Rngs(0))))
        return nnx.split(model, nnx.Param, ...)[0]

    @functools.cached_property
    def _no_stats(self):
        model = nnx.eval_shape(lambda: self.create(rngs=nnx.Rngs(0)))
        return nnx.split(model, nnx.Param, ...)[2]

    def apply(self, filters, stats, images, keys=None):
        """Returns (logits float32, new stats) of uint8 images; training mode if `keys` (one an image) are given.

        `filters`: parameters that went through `expand`, which slices of a batch share.  Training mode rotates each
        image where the augmentation says so.
        """
        training = keys is not None
        pixels = images.astype(jnp.float32) / 255
        if training and self.augmentation == "rotations":
            pixels = jax.vmap(rotated_anew)(pixels, keys)
        model = nnx.merge(self._expanded, jax.tree.map(self._cast, filters), stats, copy=True)
        model = nnx.view(model, deterministic=not training, use_running_average=not training, raise_if_not_found=False)
        # A batch that may be sliced is convolved inside loops; otherwise seeds run one after another, without a loop.
        with fconv_jax.convolution_algorithm("auto" if self.has_stats else "loops"):
            logits = model(self._cast(pixels), rngs=keys)
        return logits.astype(jnp.float32), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def losses(self, logits, labels):
        """Returns the cross-entropy of each image, with the label y smoothed over the n classes.

            loss = -sum_c q_c log softmax(logits)_c,    q_c = (1 - s) [c = y] + s / n

        with the label smoothing s (Szegedy et al., CVPR 2016); s = 0 is the report's loss.
        """
        if self.label_smoothing == 0.0:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, self.num_classes), self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    def _cast(self, x):
        return x.astype(self.compute_dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def build(
    name: str,
    *,
    init: str = "report",
    num_classes: int = 10,
    precision: str = "float32",
    label_smoothing: float = 0.0,
    augmentation: str = "none",
) -> Network:
    """Returns the network `name` of `settings.MODELS`, without making parameters.

    `precision`: `"float32"` or `"bfloat16"` for the arithmetic; parameters, statistics and the loss are float32 either
    way.

    Raises:
      ValueError: an unknown name, init or precision.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision (={precision!r}) must be 'float32' or 'bfloat16'")
    spec = MODELS.get(name)
    if spec is not None and ":" in spec.builder:
        module, builder = spec.builder.split(":")
        own = {} if spec.rung else {"init": init}  # a rung of a ladder has its own initial weights
        create = functools.partial(getattr(importlib.import_module(module), builder), **spec.options, **own)
    else:
        create = functools.partial(fconv_jax.models.create, spec.builder if spec else name, init=init)
    create = functools.partial(create, num_classes=num_classes)
    options = {"precision": precision, "label_smoothing": label_smoothing, "augmentation": augmentation}
    return network(create, num_classes=num_classes, **options)


def network(create: Callable, *, num_classes: int = 10, precision: str = "float32", **options) -> Network:
    """Returns the network that `create(rngs=...)` makes, without making parameters; `options`: of `Network`."""
    graphdef, _, stats = nnx.split(nnx.eval_shape(lambda: create(rngs=nnx.Rngs(0))), nnx.Param, ...)
    has_stats = bool(jax.tree.leaves(stats))
    return Network(graphdef, create, num_classes, jnp.dtype(precision), has_stats, **options)


def rotated_anew(image: jax.Array, key: jax.Array) -> jax.Array:
    """An image `[size, size, channel]` rotated about its centre by an angle uniform over the circle, bilinearly.

    What comes from outside the image is 0.  `fconv_jax.rotate_image` takes no traced angle.
    """
    angle = jax.random.uniform(jax.random.fold_in(key, _ANGLE), maxval=2 * jnp.pi)
    centre = (image.shape[0] - 1) / 2
    rows, columns = (axis - centre for axis in jnp.indices(image.shape[:2]))
    sources = [centre + jnp.cos(angle) * rows + jnp.sin(angle) * columns,
               centre - jnp.sin(angle) * rows + jnp.cos(angle) * columns]  # fmt: skip
    return jax.vmap(lambda plane: map_coordinates(plane, sources, order=1), in_axes=-1, out_axes=-1)(image)


def abstract_model(network: Network) -> nnx.Module:
    """Returns the network's modules without numbers."""
    return nnx.eval_shape(lambda: network.create(rngs=nnx.Rngs(0)))


def num_parameters(network: Network) -> int:
    """Returns how many numbers a network learns."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract_model(network), nnx.Param)))
