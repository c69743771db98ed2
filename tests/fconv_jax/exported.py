"""Networks that are exported, and how their outputs are compared."""

import jax.numpy as jnp
import numpy as np
import onnxruntime
from flax import nnx

import fconv_jax as fc

D4 = fc.Group(4, reflections=True)
MODELS = {
    "lenet": ("lenet", {}),
    "lenet_fconv": ("lenet_fconv", {}),
    "lenet_classic": ("lenet_classic", {}),
    "fconv_mnist_simple": ("fconv_mnist_simple", {}),
    "lenet_fconv_invariant": ("lenet_fconv_invariant", {}),
    "resnet18_fconv": ("resnet18_fconv", {"width": 2, "group": D4}),
    "resnet18_fconv, large": ("resnet18_fconv", {"width": 1, "group": 4, "large": True, "norm": "layer"}),
    "unet_fconv": ("unet_fconv", {"depth": 2, "width": 2, "group": D4}),
    "unet_fconv of vectors": ("unet_fconv", {"depth": 1, "width": 2, "output": "vectors"}),
    "unet_fconv, plain": ("unet_fconv", {"depth": 1, "width": 2, "group": None, "num_classes": 2}),
    "edsr_fconv": ("edsr_fconv", {"blocks": 1, "width": 2, "scale": 3, "group": D4, "residual_scale": 0.1}),
}
LARGE = {
    "alexnet": ("alexnet", {}),
    "alexnet_fconv": ("alexnet_fconv", {"init": "he"}),  # as published its logits hardly depend on the image
    "fconv_mnist": ("fconv_mnist", {}),
    "alexnet_fconv_invariant": ("alexnet_fconv_invariant", {}),
}
# Relative to the largest output.  A layer norm subtracts two large means of squares, in whatever order XLA adds: here
# a network differs as much from itself on rotated images.
TOLERANCE, LAYER_NORM_TOLERANCE, ONNX_TOLERANCE = 1e-6, 1e-4, 1e-5
VECTOR_TOLERANCE = 2e-5  # vectors are differences of fields that are a hundred times as large


def trained(model, seed=1):
    """In evaluation, with statistics, scales and biases as after training, not the zeros and ones of the start."""
    random = np.random.default_rng(seed)
    for path, leaf in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        limits = {"var": (0.5, 2), "mean": (-0.1, 0.1), "scale": (0.5, 1.5), "bias": (-0.1, 0.3)}.get(path[-1])
        if limits is not None:
            leaf[...] = jnp.asarray(random.uniform(*limits, leaf.shape), leaf.dtype)
    model.eval()
    return model


def made(name):
    kind, options = (MODELS | LARGE)[name]
    return trained(fc.models.create(kind, rngs=nnx.Rngs(0), **options))


def images_for(model, batch=3, size=32, seed=0):
    height, width, channel = model.input_shape
    random = np.random.default_rng(seed)
    return jnp.asarray(random.uniform(size=(batch, height or size, width or size, channel)), jnp.float32)


def call(model, images):
    return nnx.jit(lambda model, images: model(images))(model, images)


def error(actual, expected):
    assert actual.shape == expected.shape
    return float(np.abs(np.asarray(actual) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max())


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": np.asarray(images)})[0]


def padded(padding, scale=1.0):
    init = nnx.initializers.constant(scale)
    return nnx.Conv(1, 8, (3, 3), padding=padding, kernel_init=init, rngs=nnx.Rngs(0))
