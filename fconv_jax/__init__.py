"""Rotation-equivariant 2-D convolutions for JAX and Flax NNX: filters as Fourier series (F-Conv)."""

from fconv_jax import models
from fconv_jax.basis import FourierBasis, bicubic_basis, fourier_basis
from fconv_jax.convolve import conv_general_dilated, convolve, convolve_fields
from fconv_jax.filters import group_filter, lifting_filter, pointwise_filter, projecting_filter, rotation_shift
from fconv_jax.layers import GroupFConv, LiftingFConv, LiftingPointwiseFConv, PointwiseFConv, ProjectingFConv
from fconv_jax.pooling import FieldDropout, corner_max_pool

__all__ = [
    "FieldDropout",
    "FourierBasis",
    "GroupFConv",
    "LiftingFConv",
    "LiftingPointwiseFConv",
    "PointwiseFConv",
    "ProjectingFConv",
    "bicubic_basis",
    "conv_general_dilated",
    "convolve",
    "convolve_fields",
    "corner_max_pool",
    "fourier_basis",
    "group_filter",
    "lifting_filter",
    "models",
    "pointwise_filter",
    "projecting_filter",
    "rotation_shift",
]
