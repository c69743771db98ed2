"""Rotation-equivariant 2-D convolutions for JAX and Flax NNX: filters as Fourier series (F-Conv)."""

from fconv_jax import models
from fconv_jax.audit import audit
from fconv_jax.basis import FourierBasis, bicubic_basis, fourier_basis
from fconv_jax.blocks import ResidualBlock
from fconv_jax.convolve import conv_general_dilated, convolution_algorithm, convolve, convolve_fields
from fconv_jax.dropout import FieldDropout
from fconv_jax.expanded import ExpandedFConv, expand_filters
from fconv_jax.filters import group_filter, lifting_filter, pointwise_filter, projecting_filter, rotation_shift
from fconv_jax.layers import GroupFConv, LiftingFConv, LiftingPointwiseFConv, PointwiseFConv, ProjectingFConv
from fconv_jax.pooling import (
    blur_pool,
    corner_blur_pool,
    corner_max_pool,
    disk_mask,
    max_over_rotations,
    mean_over_rotations,
    spatial_max_pool,
    spatial_mean_pool,
)
from fconv_jax.pretrained import from_pretrained, save_pretrained
from fconv_jax.reference_checkpoint import read_reference_checkpoint
from fconv_jax.reference_weights import load_reference_weights
from fconv_jax.symmetry import assert_equivariant, equivariance_error
from fconv_jax.turns import rotate_features, rotate_image, rotate_vectors

__version__ = "0.1.0"

__all__ = [
    "ExpandedFConv",
    "FieldDropout",
    "FourierBasis",
    "GroupFConv",
    "LiftingFConv",
    "LiftingPointwiseFConv",
    "PointwiseFConv",
    "ProjectingFConv",
    "ResidualBlock",
    "assert_equivariant",
    "audit",
    "bicubic_basis",
    "blur_pool",
    "conv_general_dilated",
    "convolution_algorithm",
    "convolve",
    "convolve_fields",
    "corner_blur_pool",
    "corner_max_pool",
    "disk_mask",
    "equivariance_error",
    "expand_filters",
    "fourier_basis",
    "from_pretrained",
    "group_filter",
    "lifting_filter",
    "load_reference_weights",
    "max_over_rotations",
    "mean_over_rotations",
    "models",
    "pointwise_filter",
    "projecting_filter",
    "read_reference_checkpoint",
    "rotate_features",
    "rotate_image",
    "rotate_vectors",
    "rotation_shift",
    "save_pretrained",
    "spatial_max_pool",
    "spatial_mean_pool",
]
