"""Stacks of group convolutions, simplified after escnn's example on rotated MNIST (`examples/model.ipynb`).

That one has six steerable layers, more features and images of 29 x 29; these have four F-Conv layers.  What
`lenet_fconv_invariant` is compared with: filters of few frequencies, batch norm, blurred pools, a maximum over
the group and a mean over space, but no disk, no power mean and smaller kernels.
"""

from flax import nnx

from fconv_jax.models.invariant import InvariantFConv, Layer

_KERNELS, _FREQUENCIES, _POOLED = (7, 5, 5, 5), (4, 3, 3, 3), (1, 3)


def stack(features: tuple[int, ...], *, num_rotations: int, init: str, num_classes: int = 10, rngs: nnx.Rngs):
    """Returns a stack with the given features in its four layers, of about the parameters of the invariant network."""
    layers = tuple(
        Layer(k, width, p, pool=i in _POOLED)
        for i, (k, width, p) in enumerate(zip(_KERNELS, features, _FREQUENCIES, strict=True))
    )
    options = {"margin": None, "hidden": 64, "init": init, "num_classes": num_classes, "rngs": rngs}
    return InvariantFConv(layers, num_rotations=num_rotations, **options)
