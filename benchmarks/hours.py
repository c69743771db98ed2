"""How many operations the report's whole protocol needs, and the hours that these take at a stated rate.

    python -m benchmarks.hours

Counts the operations of one training step as JAX lowers it for CUDA (XLA's cost analysis of the unoptimized program:
the products of each convolution, forward and backward, without those with padding), for each of the report's networks:
200 epochs, five seeds, settings 1 and 3 (one training) and 2 and 4.  Each epoch ends with a validation, whose images
cost a third of a training image's operations.  The rates are assumptions: nothing here was timed.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.settings import DATASETS, NUM_SEEDS, REPORT_MODELS, protocol
from experiments.training.network import build

RATES = (5, 20)
"""Assumed rates, in 10^12 operations a second, that a training keeps up."""
BATCH = 64


def operations(model: str) -> float:
    """Of training on one image."""
    network = build(model).create(rngs=nnx.Rngs(0))
    graph, state = nnx.split(network)

    def loss(state, images, labels):
        logits = nnx.merge(graph, state)(images, rngs=nnx.Rngs(0))
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    step = jax.jit(jax.value_and_grad(loss, allow_int=True))
    arguments = (state, jnp.zeros((BATCH, 28, 28, 1)), jnp.zeros(BATCH, int))
    return step.trace(*arguments).lower(lowering_platforms=("cuda",)).cost_analysis()["flops"] / BATCH


def main():
    """Prints a table."""
    rates = " | ".join(f"hours at {rate} TFLOP/s" for rate in RATES)
    print(f"| network | settings | images | GFLOP an image | {rates} |")
    print("|---|---|---|---|" + "---|" * len(RATES))
    for model in REPORT_MODELS:
        each = operations(model)
        for settings in ((1, 3), (2, 4)):
            epochs, count = protocol(model, "mnist").epochs * NUM_SEEDS, DATASETS["mnist"].num_images
            images = count("train", settings[0]) * epochs
            checked = sum(count("validation", setting) for setting in settings) * epochs
            hours = [f"{(images + checked / 3) * each / rate / 1e12 / 3600:.2g}" for rate in RATES]
            row = [f"`{model}`", f"{settings[0]}, {settings[1]}", f"{images / 1e6:.0f} million", f"{each / 1e9:.2g}"]
            print(f"| {' | '.join([*row, *hours])} |", flush=True)


if __name__ == "__main__":
    main()
