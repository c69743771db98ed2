"""What the default basis costs and brings after training: all frequencies against it, at equal features and parameters.

    python -m benchmarks.preset_trained [--kernels 5] [--epochs 6] [--seeds 3]

The network: three F-Conv layers of C8 with batch norm, ReLU and blurred pools, maximum over the group, mean over space,
dense; trained on the 3,500 upright digits of mnist_5k, Adam 3e-3 along half a cosine, batches of 32, and tested on the
1,000 test digits upright, at 45 and at 22.5 degrees.  "error" is the relative error of the last field on test digits in
a wide margin.  No choice is made on the test digits: one protocol for all.  Appends its table to results/preset.md.
"""

import argparse
import pathlib
import platform

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import fconv_jax as fc
from experiments.data.sources import read_embedded
from experiments.runs.best import rotated
from experiments.settings import DATASETS

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "preset.md"
MARK = "## After training"
BATCH, RATE = 32, 3e-3
ALL = {"basis": fc.Fourier("all", mask="adaptive"), "coefficient_init": fc.initializers.he()}
FEATURES = (8, 12, 16)
KINDS = {
    "default": ({}, FEATURES),
    "all frequencies, equal features": (ALL, FEATURES),
    "all frequencies, equal parameters": (ALL, None),
}


class Net(nnx.Module):
    """Three layers; `features` of each."""

    def __init__(self, kernel_size, features, options, rngs):
        options = {**options, "rngs": rngs}
        first, second, third = features
        self.convs = nnx.List(
            [
                fc.LiftingFConv(1, first, kernel_size, 8, **options),
                fc.GroupFConv(first, second, kernel_size, 8, **options),
                fc.GroupFConv(second, third, kernel_size, 8, **options),
            ]
        )
        self.norms = nnx.List([nnx.BatchNorm(n, momentum=0.9, rngs=rngs) for n in features])
        self.dense = nnx.Linear(third, 10, rngs=rngs)

    def field(self, x):
        """Returns the last field."""
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = nnx.relu(norm(conv(fc.blur_pool(x) if number else x)))
        return x

    def __call__(self, x):
        """Returns the logits."""
        return self.dense(fc.max_over_group(self.field(x)).mean(axis=(1, 2)))


def equal(kernel_size, options):
    """The features, near FEATURES' proportion, whose network's number of parameters is closest to the default one's."""
    wanted = size(Net(kernel_size, FEATURES, {}, nnx.Rngs(0)))
    shares = np.arange(1, 33) / 32
    candidates = {tuple(max(1, round(share * n)) for n in FEATURES) for share in shares}
    return min(candidates, key=lambda n: abs(size(Net(kernel_size, n, options, nnx.Rngs(0))) - wanted))


def size(model):
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def train(model, images, labels, epochs, seed):
    """Trains it."""
    steps = epochs * (len(labels) // BATCH)
    optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(RATE, steps)), wrt=nnx.Param)

    @nnx.jit
    def epoch(model, optimizer, order):
        def step(carry, chosen):
            model, optimizer = carry

            def loss(model):
                logits = model(images[chosen].astype(jnp.float32)[..., None] / 255)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]).mean()

            optimizer.update(model, nnx.grad(loss)(model))
            return (model, optimizer), None

        (model, optimizer), _ = nnx.scan(step, length=len(order))((model, optimizer), order)

    draw = np.random.default_rng(seed)
    model.train()
    for _ in range(epochs):
        order = draw.permutation(len(labels))[: len(labels) // BATCH * BATCH].reshape(-1, BATCH)
        epoch(model, optimizer, jnp.asarray(order))
    model.eval()


def measure(model, images, labels):
    """Accuracy upright, at 45 and at 22.5 degrees, and the last field's error at 45 and 22.5 degrees."""
    answer = nnx.jit(lambda model, x: model(x).argmax(-1))
    found = []
    for angle in (0, 45, 22.5):
        pixels = jnp.asarray(rotated(images[..., None], angle), jnp.float32) / 255
        answers = np.concatenate([answer(model, pixels[i : i + 250]) for i in range(0, len(labels), 250)])
        found.append(float(np.mean(answers == labels)))
    wide = np.pad(images[::100], ((0, 0), (10, 10), (10, 10)))[..., None].astype(np.float32) / 255
    field = nnx.jit(lambda model, x: model.field(x))
    pooled = nnx.jit(lambda model, x: fc.max_over_group(model.field(x)))
    found.append(float(fc.equivariance_error(lambda x: field(model, x), wide, 45, margin=2)))
    found.append(float(fc.equivariance_error(lambda x: pooled(model, x), wide, 22.5, margin=2)))
    return found


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser("benchmarks.preset_trained")
    parser.add_argument("--kernels", type=int, nargs="+", default=[5])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    source = read_embedded(DATASETS["mnist_5k"])
    train_images, train_labels = map(jnp.asarray, source["train"])
    lines = [
        MARK,
        "",
        f"`python -m benchmarks.preset_trained --kernels {' '.join(map(str, options.kernels))} "
        f"--epochs {options.epochs} --seeds {options.seeds}`, mnist_5k, "
        f"{platform.machine()} CPU, jax {jax.__version__}: mean and standard deviation over seeds.",
        "",
        "| kernel | basis | features | parameters | upright | at 45 degrees | at 22.5 | error at 45 | error at 22.5 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kernel_size in options.kernels:
        for name, (basis, features) in KINDS.items():
            features = features or equal(kernel_size, basis)
            rows = []
            for seed in range(options.seeds):
                model = Net(kernel_size, features, basis, nnx.Rngs(seed))
                train(model, train_images, train_labels, options.epochs, seed)
                rows.append(measure(model, *source["test"]))
            cells = [f"{np.mean(x):.3f} ± {np.std(x, ddof=1):.3f}" for x in zip(*rows, strict=True)]
            shown = ", ".join(map(str, features))
            lines.append(
                f"| {kernel_size} x {kernel_size} | {name} | {shown} | {size(model):,} | {' | '.join(cells)} |"
            )
            print(lines[-1], flush=True)
    before = RESULTS.read_text(encoding="utf-8").split(MARK)[0].rstrip()
    RESULTS.write_text(before + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
