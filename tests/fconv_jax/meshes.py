"""Layers and pools on a mesh of two CPU devices: `python -m tests.fconv_jax.meshes Explicit`.

A test calls it in a new process, with explicit axes, jax's default, and with automatic ones.  Values and gradients are
those of one device.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fconv_jax as fc
from fconv_jax.dropout import Dropout

FIELD, IMAGE = (4, 16, 16, 4, 4), (4, 16, 16, 4)

CASES = {
    "LiftingFConv": (lambda rngs: fc.LiftingFConv(4, 4, 3, rngs=rngs), IMAGE),
    "GroupFConv": (lambda rngs: fc.GroupFConv(4, 4, 3, 4, rngs=rngs), FIELD),
    "GroupFConv, many channels": (lambda rngs: fc.GroupFConv(16, 4, 3, 4, padding="SAME", rngs=rngs), (4, 8, 8, 4, 16)),
    "ProjectingFConv": (lambda rngs: fc.ProjectingFConv(4, 4, 3, 4, rngs=rngs), FIELD),
    "GroupFConv of 1 x 1": (lambda rngs: fc.GroupFConv(4, 4, 1, 4, rngs=rngs), FIELD),
    "LiftingFConv of 1 x 1": (lambda rngs: fc.LiftingFConv(4, 4, 1, 4, rngs=rngs), IMAGE),
    "GroupFConv of D2": (lambda rngs: fc.GroupFConv(4, 4, 3, fc.Group(2, True), rngs=rngs), FIELD),
    "GroupFConv, depthwise": (lambda rngs: fc.GroupFConv(4, 4, 3, 4, feature_group_count=4, rngs=rngs), FIELD),
    "GroupFConv, circular": (lambda rngs: fc.GroupFConv(4, 4, 3, 4, padding="CIRCULAR", rngs=rngs), FIELD),
    "ResidualBlock": (lambda rngs: fc.ResidualBlock(4, 8, 3, 4, strides=2, rngs=rngs), FIELD),
    "upsample": (lambda rngs: fc.upsample, FIELD),
    "to_vectors": (lambda rngs: lambda x: fc.to_vectors(x, 4), FIELD),
    "from_vectors": (lambda rngs: lambda x: fc.from_vectors(fc.to_vectors(x, 4), 4), FIELD),
    "restrict": (lambda rngs: lambda x: fc.restrict(x, 4, 2), FIELD),
    "mirror_field": (lambda rngs: lambda x: fc.mirror_field(x, fc.Group(2, True)), FIELD),
    "FieldDropout": (lambda rngs: Dropped(fc.FieldDropout), FIELD),
    "Dropout": (lambda rngs: Dropped(Dropout), FIELD),
    "spatial_max_pool": (lambda rngs: fc.spatial_max_pool, FIELD),
    "spatial_max_pool of an image": (lambda rngs: fc.spatial_max_pool, IMAGE),
    "spatial_max_pool, widened": (lambda rngs: fc.spatial_max_pool, (4, 7, 7, 4, 4)),
    "spatial_mean_pool": (lambda rngs: fc.spatial_mean_pool, FIELD),
    "blur_pool": (lambda rngs: fc.blur_pool, IMAGE),
    "corner_max_pool": (lambda rngs: fc.torch_reference.corner_max_pool, (4, 17, 16, 4)),
    "corner_blur_pool": (lambda rngs: lambda x: fc.torch_reference.corner_blur_pool(x, 3), FIELD),
    "max_over_group": (lambda rngs: fc.max_over_group, FIELD),
    "mean_over_group": (lambda rngs: fc.mean_over_group, FIELD),
    "disk_mask": (lambda rngs: lambda x: x * fc.disk_mask(16)[..., None], IMAGE),
    "rotate_image": (lambda rngs: lambda x: fc.rotate_image(x, 30), IMAGE),
    "rotate_field": (lambda rngs: lambda x: fc.rotate_field(x, 90), FIELD),
}

TOLERANCE = 1e-5
"""Relative to the largest entry: a batch summed in two parts."""


class Dropped(nnx.Module):
    """Dropout with keys of its own, so that it can be repeated."""

    def __init__(self, kind):
        self.dropout = kind(0.5)

    def __call__(self, x):
        """The same shape."""
        return self.dropout(x, rngs=jax.random.key(1))


def gradients(module, x):
    """The value of a loss and its gradients along the input and, for a module, its parameters."""
    if not isinstance(module, nnx.Module):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(module(x)))))(x)
    loss = nnx.value_and_grad(lambda module, x: jnp.sum(jnp.sin(module(x))), argnums=(0, 1))
    return nnx.jit(loss)(module, x)


# Few and many images a device, with the batch spread; and the kernel's features.
SHARD_MAPPED = {
    "LiftingFConv": (fc.LiftingFConv, (8, 8, 8, 2)),
    "GroupFConv": (fc.GroupFConv, (80, 4, 4, 4, 2)),
    "kernel": (None, (40, 6, 6, 2)),
}


def in_shard_map() -> None:
    """Gradients inside `jax.shard_map`, which checks the types of what varies, are those outside."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    for name, (kind, shape) in SHARD_MAPPED.items():
        x = jnp.asarray(np.random.RandomState(0).normal(size=shape).astype(np.float32))
        loss, state, places = spread_kernel() if kind is None else spread_batch(kind)

        def together(state, x, loss=loss):
            return jax.lax.pmean(loss(state, x), "data")

        mapped = jax.shard_map(jax.grad(together), mesh=mesh, in_specs=places, out_specs=places[0])
        actual, expected = jax.jit(mapped)(state, x), jax.jit(jax.grad(loss))(state, x)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE, err_msg=name)
        print("shard_map", name, "equal")


def spread_batch(kind):
    """A layer's loss and state, and how state and images are spread."""
    graph, state = nnx.split(kind(2, 3, 3, 4, rngs=nnx.Rngs(0)))
    return lambda state, x: jnp.mean(nnx.merge(graph, state)(x) ** 2), state, (P(), P("data"))


def spread_kernel():
    """The same of a convolution whose output features are spread."""
    kernel = jnp.asarray(np.random.RandomState(1).normal(size=(3, 3, 2, 4)).astype(np.float32))
    return lambda kernel, x: jnp.mean(fc.convolve(x, kernel) ** 2), kernel, (P(None, None, None, "data"), P())


def main(kind: AxisType) -> None:
    """Compares each case, on a mesh of this kind of axes, with one device."""
    for name, (make, shape) in CASES.items():
        one = make(nnx.Rngs(0))
        x = jnp.asarray(np.random.RandomState(0).normal(size=shape).astype(np.float32))
        expected = jax.tree.leaves(gradients(one, x))
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            module = one
            if isinstance(module, nnx.Module):
                graph, state = nnx.split(module)
                module = nnx.merge(graph, jax.device_put(state, NamedSharding(mesh, P())))
            actual = jax.tree.leaves(gradients(module, jax.device_put(x, NamedSharding(mesh, P("data")))))
        for a, b in zip(actual, expected, strict=True):
            scale = max(float(jnp.max(jnp.abs(b))), 1.0)
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * scale, err_msg=f"{kind} {name}")
        print(kind, name, "equal")


if __name__ == "__main__":
    in_shard_map()
    main(AxisType[sys.argv[1]])
