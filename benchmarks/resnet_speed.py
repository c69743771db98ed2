"""ResNet-18 of F-Conv layers against two of nnx.Conv, with the same channels and with about the same parameters.

    python -m benchmarks.resnet_speed

Width 8 x C8 against width 64 and against the plain twin, forward and backward, images of 32 x 32 x 3; medians of 5
rounds, of the three networks in turn.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from flax import nnx

import fconv_jax as fc

BATCHES, ROUNDS = (16, 64), 5


def step_of(model):
    """A compiled function that computes the gradients of a batch's mean loss, and its state."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def step(params, images):
        def loss(params):
            return jnp.mean(nnx.merge(graph, params, rest, copy=True)(images) ** 2)

        return jax.grad(loss)(params)

    return step, params


def main():
    """Prints seconds of each network and the ratio, for each batch."""
    networks = {
        "F-Conv, 8 x C8": fc.models.create("resnet18_fconv", in_features=3, width=8, group=8, rngs=nnx.Rngs(0)),
        "the same channels": fc.models.create("resnet18_fconv", in_features=3, width=64, group=None, rngs=nnx.Rngs(0)),
        "about the same parameters": fc.models.plain_twin(
            "resnet18_fconv", in_features=3, width=8, group=8, rngs=nnx.Rngs(0)
        ),
    }
    steps = {name: step_of(model) for name, model in networks.items()}
    for batch in BATCHES:
        images = jax.random.normal(jax.random.key(0), (batch, 32, 32, 3))
        seconds = {name: [] for name in steps}
        for number in range(ROUNDS + 1):
            for name, (step, params) in steps.items():
                start = time.perf_counter()
                jax.block_until_ready(step(params, images))
                if number:  # the first compiles
                    seconds[name].append(time.perf_counter() - start)
        fconv, *plain = (statistics.median(values) for values in seconds.values())
        for name, found in zip(list(steps)[1:], plain, strict=True):
            print(f"{batch} images: F-Conv {fconv:.2f} s a step, nnx.Conv with {name} {found:.2f} s, "
                  f"ratio {found / fconv:.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
