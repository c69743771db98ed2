"""Rotation- and reflection-equivariant 2-D convolutions for JAX and Flax NNX: filters as Fourier series (F-Conv)."""

from fconv_jax import export, initializers, models, torch_reference
from fconv_jax.audit import audit
from fconv_jax.basis import Bicubic, Fourier, FourierBasis, bicubic_basis, fourier_basis
from fconv_jax.blocks import ConvBlock, DownBlock, ResidualBlock, UpBlock, field_norm
from fconv_jax.convolve import conv_general_dilated, convolution_algorithm, convolve, convolve_fields
from fconv_jax.dropout import FieldDropout
from fconv_jax.expanded import ExpandedFConv, expand_filters
from fconv_jax.filters import group_filter, lifting_filter, projecting_filter
from fconv_jax.group import Group, restrict
from fconv_jax.layers import EquivarianceWarning, GroupFConv, LiftingFConv, ProjectingFConv
from fconv_jax.pooling import (
    blur_pool,
    disk_mask,
    max_over_group,
    mean_over_group,
    spatial_max_pool,
    spatial_mean_pool,
)
from fconv_jax.pretrained import from_pretrained, save_pretrained
from fconv_jax.resampling import upsample
from fconv_jax.symmetry import assert_equivariant, equivariance_error
from fconv_jax.transforms import (
    mirror_field,
    mirror_image,
    mirror_vectors,
    rotate_field,
    rotate_image,
    rotate_vectors,
)
from fconv_jax.vectors import from_vectors, to_vectors

__version__ = "0.2.0"

__all__ = [
    "Bicubic",
    "ConvBlock",
    "DownBlock",
    "EquivarianceWarning",
    "ExpandedFConv",
    "FieldDropout",
    "Fourier",
    "FourierBasis",
    "Group",
    "GroupFConv",
    "LiftingFConv",
    "ProjectingFConv",
    "ResidualBlock",
    "UpBlock",
    "assert_equivariant",
    "audit",
    "bicubic_basis",
    "blur_pool",
    "conv_general_dilated",
    "convolution_algorithm",
    "convolve",
    "convolve_fields",
    "disk_mask",
    "equivariance_error",
    "expand_filters",
    "export",
    "field_norm",
    "fourier_basis",
    "from_pretrained",
    "from_vectors",
    "group_filter",
    "initializers",
    "lifting_filter",
    "max_over_group",
    "mean_over_group",
    "mirror_field",
    "mirror_image",
    "mirror_vectors",
    "models",
    "projecting_filter",
    "restrict",
    "rotate_field",
    "rotate_image",
    "rotate_vectors",
    "save_pretrained",
    "spatial_max_pool",
    "spatial_mean_pool",
    "to_vectors",
    "torch_reference",
    "upsample",
]
