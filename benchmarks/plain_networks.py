"""Networks of stock `nnx.Conv` with the channels of ours: what a user has before changing to F-Conv."""

import jax
import jax.numpy as jnp
from flax import nnx

import fconv_jax as fc

ROTATIONS = 8


class PlainStack(nnx.Module):
    """The layouts of `benchmarks.against_peers` with `nnx.Conv`: as many channels, the same pools and head."""

    def __init__(self, layout: dict, *, rngs: nnx.Rngs):
        self.pools, self.disk = [layer.get("pool") for layer in layout["layers"]], layout["disk"]
        convs, norms, before = [], [], 1
        for layer in layout["layers"]:
            channels, k, w = layer["features"] * ROTATIONS, layer["kernel_size"], layer["padding"]
            convs.append(nnx.Conv(before, channels, (k, k), padding=((w, w), (w, w)), use_bias=False, rngs=rngs))
            norms.append(nnx.BatchNorm(channels, rngs=rngs))
            before = channels
        self.convs, self.norms, self.power = nnx.List(convs), nnx.List(norms), layout["power"]
        last = layout["layers"][-1]["features"]
        self.dense1 = nnx.Linear(last * (2 if self.power else 1), 64, rngs=rngs)
        self.dense2 = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array, rngs=None) -> jax.Array:
        """Images -> logits."""
        del rngs
        for conv, norm, pool in zip(self.convs, self.norms, self.pools, strict=True):
            x = nnx.relu(norm(conv(x)))
            if self.disk:
                x = x * fc.disk_mask(x.shape[1])[..., None]
            if pool == "max":
                x = nnx.max_pool(x, (2, 2), (2, 2), ((1, 1), (1, 1)))
            elif pool == "blur":
                x = fc.blur_pool(x, 5)
        if self.power is None:
            x = fc.blur_pool(x, 5, strides=1, padding=0)
        x = x.reshape(*x.shape[:3], ROTATIONS, -1).max(axis=3)
        if self.power is None:
            x = x.reshape(x.shape[0], -1)
        else:
            x = jnp.maximum(fc.blur_pool(x, 5, strides=1), 1e-6)
            power = (x**self.power).mean(axis=(1, 2)) ** (1 / self.power)
            x = jnp.concatenate([x.mean(axis=(1, 2)), power], axis=-1)
        return self.dense2(nnx.relu(self.dense1(x)))
