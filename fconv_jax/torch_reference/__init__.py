"""For users of the PyTorch reference: its weights, its checkpoints and its asymmetric pools."""

from fconv_jax.pooling import corner_blur_pool, corner_max_pool
from fconv_jax.torch_reference.checkpoint import read_checkpoint
from fconv_jax.torch_reference.weights import load_weights

__all__ = ["corner_blur_pool", "corner_max_pool", "load_weights", "read_checkpoint"]
