"""What the default basis costs and brings after training: against all frequencies and against plain convolutions.

    python -m benchmarks.preset_trained [--kernels 3 5] [--epochs 6] [--seeds 3]

The network: three F-Conv layers of C8 with batch norm, ReLU and blurred pools, maximum over the group, mean over space,
dense; trained on the 3,500 upright digits of mnist_5k, Adam along half a cosine, batches of 32, and tested on the 1,000
test digits upright, at 45 and at 22.5 degrees.  Each kind has two learning rates, a usual one and the better of two,
chosen by the upright validation digits (seed 0).  "error" is the relative error of the last field on test digits in a
wide margin.  No choice is made on the test digits.  Appends its table to results/preset.md.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import fconv_jax as fc
from benchmarks.origin import origin
from experiments.data.sources import read_embedded
from experiments.runs.best import rotated
from experiments.settings import DATASETS

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "preset.md"
MARK = "## After training"
BATCH, RATES = 32, (3e-3, 1e-2)
ALL = {"basis": fc.Fourier("all", mask="adaptive"), "coefficient_init": fc.initializers.he()}
FEATURES = (8, 12, 16)
KINDS = {
    "default": ({}, FEATURES),
    "default, `smooth=False`": ({"basis": fc.Fourier(smooth=False)}, FEATURES),
    "all frequencies, equal features": (ALL, FEATURES),
    "all frequencies, equal parameters": (ALL, None),
    "plain, equal parameters": (None, None),
}


class Net(nnx.Module):
    """Three layers; `features` of each, `options` of F-Conv layers, `None` for plain ones."""

    def __init__(self, kernel_size, features, options, rngs):
        def layer(number, n, m):
            if options is None:
                return nnx.Conv(n, m, (kernel_size, kernel_size), rngs=rngs)
            kind = fc.GroupFConv if number else fc.LiftingFConv
            return kind(n, m, kernel_size, 8, **options, rngs=rngs)

        self.plain = options is None
        pairs = zip((1, *features), features, strict=False)
        self.convs = nnx.List([layer(number, *pair) for number, pair in enumerate(pairs)])
        self.norms = nnx.List([nnx.BatchNorm(n, momentum=0.9, rngs=rngs) for n in features])
        self.dense = nnx.Linear(features[-1], 10, rngs=rngs)

    def field(self, x):
        """Returns the last field; that of a plain network is the same for all elements, as if it were invariant."""
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = nnx.relu(norm(conv(fc.blur_pool(x) if number else x)))
        return jnp.repeat(x[..., None, :], 8, axis=-2) if self.plain else x

    def __call__(self, x):
        """Returns the logits."""
        return self.dense(fc.max_over_group(self.field(x)).mean(axis=(1, 2)))


def equal(kernel_size, options):
    """The features, near FEATURES' proportion, whose network's number of parameters is closest to the default one's."""
    wanted = size(Net(kernel_size, FEATURES, {}, nnx.Rngs(0)))
    shares = np.arange(1, 33) / (32 if options is not None else 8)
    candidates = {tuple(max(1, round(share * n)) for n in FEATURES) for share in shares}
    return min(candidates, key=lambda n: abs(size(Net(kernel_size, n, options, nnx.Rngs(0))) - wanted))


def size(model):
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def train(model, images, labels, epochs, seed, rate):
    """Trains it."""
    steps = epochs * (len(labels) // BATCH)
    optimizer = nnx.Optimizer(model, optax.adam(optax.cosine_decay_schedule(rate, steps)), wrt=nnx.Param)

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


def accuracy(model, images, labels, angle=0):
    """The share of rotated digits that are read."""
    answer = nnx.jit(lambda model, x: model(x).argmax(-1))
    pixels = jnp.asarray(rotated(images[..., None], angle), jnp.float32) / 255
    answers = np.concatenate([answer(model, pixels[i : i + 250]) for i in range(0, len(labels), 250)])
    return float(np.mean(answers == labels))


def measure(model, images, labels):
    """Accuracy upright, at 45 and at 22.5 degrees, and the last field's error at 45 and 22.5 degrees."""
    found = [accuracy(model, images, labels, angle) for angle in (0, 45, 22.5)]
    wide = np.pad(images[::100], ((0, 0), (10, 10), (10, 10)))[..., None].astype(np.float32) / 255
    field = nnx.jit(lambda model, x: model.field(x))
    pooled = nnx.jit(lambda model, x: fc.max_over_group(model.field(x)))
    found.append(float(fc.equivariance_error(lambda x: field(model, x), wide, 45, margin=2)))
    found.append(float(fc.equivariance_error(lambda x: pooled(model, x), wide, 22.5, margin=2)))
    return found


def rows(kernel_size, name, source, epochs, seeds):
    """The table's lines of one kind: at the usual rate, and at the better one if that is another."""
    options, features = KINDS[name]
    features = features or equal(kernel_size, options)
    images, labels = map(jnp.asarray, source["train"])

    def trained(rate, seed):
        model = Net(kernel_size, features, options, nnx.Rngs(seed))
        train(model, images, labels, epochs, seed, rate)
        return model

    firsts = {rate: trained(rate, 0) for rate in RATES}
    best = max(RATES, key=lambda rate: accuracy(firsts[rate], *source["validation"]))
    for rate in dict.fromkeys((RATES[0], best)):
        models = [firsts[rate], *(trained(rate, seed) for seed in range(1, seeds))]
        found = zip(*(measure(model, *source["test"]) for model in models), strict=True)
        cells = " | ".join(f"{np.mean(x):.3f} ± {np.std(x, ddof=1) if seeds > 1 else 0:.3f}" for x in found)
        which = f"{rate:g}{', chosen' if rate == best else ''}"
        shown = ", ".join(map(str, features))
        yield f"| {kernel_size} x {kernel_size} | {name} | {shown} | {size(models[0]):,} | {which} | {cells} |"


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser("benchmarks.preset_trained")
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    source = read_embedded(DATASETS["mnist_5k"])
    lines = [
        MARK,
        "",
        f"`python -m benchmarks.preset_trained --kernels {' '.join(map(str, options.kernels))} "
        f"--epochs {options.epochs} --seeds {options.seeds}`, mnist_5k, "
        f"{origin()}: mean and standard deviation over seeds. Learning rates are "
        'of Adam; "chosen" is the better one on the upright validation digits (seed 0).',
        "",
        "| kernel | layers | features | parameters | rate | upright | at 45 | at 22.5 | error at 45 | error at 22.5 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kernel_size in options.kernels:
        for name in KINDS:
            for line in rows(kernel_size, name, source, options.epochs, options.seeds):
                lines.append(line)
                print(line, flush=True)
    before = RESULTS.read_text(encoding="utf-8").split(MARK)[0].rstrip()
    RESULTS.write_text(before + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
