"""Every layer, pool, rotation and model, each with a fitting input: rows of the tables of behaviour."""

import functools

import jax
from flax import nnx

import fconv_jax as fc
from fconv_jax.transforms import inside_disk
from tests.fconv_jax.arrays import noise
from tests.fconv_jax.layer_cases import EVERY, make, noise_for

POOLS = {
    "corner_max": fc.torch_reference.corner_max_pool,
    "corner_max_padded": functools.partial(fc.torch_reference.corner_max_pool, window=2, padding=1),
    "corner_blur": functools.partial(fc.torch_reference.corner_blur_pool, window=3),
    "max_tiled": fc.spatial_max_pool,
    "max": functools.partial(fc.spatial_max_pool, window=3, strides=2, padding=1),
    "mean": functools.partial(fc.spatial_mean_pool, window=3, strides=2, padding=1),
    "blur": fc.blur_pool,
}
OVER_ROTATIONS = {"max_over_group": fc.max_over_group, "mean_over_group": fc.mean_over_group}
ROTATIONS = {
    "rotate_image_90": (functools.partial(fc.rotate_image, angle=90), 4),
    "rotate_image_30": (functools.partial(fc.rotate_image, angle=30), 4),
    "rotate_features_90": (functools.partial(fc.rotate_field, angle=90), 5),
    "rotate_features_45": (functools.partial(fc.rotate_field, angle=45), 5),
    "rotate_vector": (functools.partial(fc.rotate_field, angle=45), 3),
    "rotate_vectors_30": (lambda x: fc.rotate_vectors(x[..., :2, :], 30), 5),
    "disk": (functools.partial(inside_disk, margin=10), 5),
}
SHAPES = {3: (8, 2), 4: (8, 8, 2), 5: (8, 8, 8, 2)}

FUNCTIONS = {
    **{f"{name}_{axes}": (pool, axes) for name, pool in POOLS.items() for axes in (4, 5)},
    **{name: (pool, 5) for name, pool in OVER_ROTATIONS.items()},
    **ROTATIONS,
    "dropout": (lambda x: fc.FieldDropout(0.5)(x, rngs=jax.random.key(0)), 5),
}


D4 = fc.Group(4, reflections=True)
LAYERS = {
    **{cls.__name__: functools.partial(make, cls, num_rotations=8) for cls in EVERY},
    **{f"{cls.__name__} of D4": functools.partial(make, cls, num_rotations=D4) for cls in EVERY[:3]},
    "ResidualBlock": lambda **options: fc.ResidualBlock(2, 2, rngs=nnx.Rngs(0), **{"norm": "batch", **options}),
}
"""{name: what makes a small layer of that kind, with options}."""


def layer_input(layer, batch, **options):
    """White noise that a layer of `LAYERS` takes."""
    if isinstance(layer, fc.ResidualBlock):
        return noise(batch, 8, 8, 8, 2, **options)
    return noise_for(layer, batch, 8, 8).astype(options.get("dtype", "float32"))


def function_input(axes, batch):
    """White noise with so many axes."""
    return noise(batch, *SHAPES[axes])
