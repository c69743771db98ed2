"""Where an invariant network is wrong: which digits, at which angles, and what it takes them for.

    python -m benchmarks.errors [--weights NAME] [--dataset mnist_5k] [--data-dir DIR]

All test digits are rotated by every 15 degrees.  Writes results/errors.md and results/figures/errors.png: the pairs of
digits that are confused most, and the twelve digits that are wrong at the most angles, each at the angle where the
network is surest of its error.  The test digits are looked at here, and nothing is chosen by them.
"""

import argparse
import pathlib
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib import pyplot

import fconv_jax as fc
from experiments import data
from experiments.reporting import style
from experiments.runs.best import rotated

ROOT = pathlib.Path(__file__).parents[1] / "results"
ANGLES = tuple(range(-180, 180, 15))
TOGETHER, SHOWN = 250, 12


def probabilities(name: str, images: np.ndarray) -> np.ndarray:
    """`[angle, image, class]`, of uint8 images `[n, 28, 28, 1]`."""
    graph, state = nnx.split(fc.expand_filters(fc.from_pretrained(name)))
    ask = jax.jit(lambda state, x: jax.nn.softmax(nnx.merge(graph, state)(x.astype(jnp.float32) / 255)))
    found = []
    for angle in ANGLES:
        at = rotated(images, angle)
        found.append(np.concatenate([ask(state, at[i : i + TOGETHER]) for i in range(0, len(at), TOGETHER)]))
    return np.stack(found)


def pairs(found: np.ndarray, labels: np.ndarray) -> list[tuple[tuple[int, int], float]]:
    """The share of all errors that confuses two digits, most first."""
    said = found.argmax(-1)
    wrong = said != labels
    truth = np.broadcast_to(labels, said.shape)[wrong]
    counts = Counter(tuple(sorted((int(a), int(b)))) for a, b in zip(truth, said[wrong], strict=True))
    total = sum(counts.values())
    return [((a, b), count / total) for (a, b), count in counts.most_common()]


def draw(found: np.ndarray, images: np.ndarray, labels: np.ndarray) -> pyplot.Figure:
    """The digits that are wrong at the most angles, each where the network is surest of its error."""
    wrong = found.argmax(-1) != labels
    worst = np.argsort(-wrong.sum(0), kind="stable")[:SHOWN]
    figure, axes = pyplot.subplots(2, SHOWN // 2, figsize=(9, 3.9), layout="constrained")
    for axis, digit in zip(axes.flat, worst, strict=True):
        sureness = np.where(wrong[:, digit], found[:, digit].max(-1), 0)
        angle = ANGLES[int(sureness.argmax())]
        said = int(found[sureness.argmax(), digit].argmax())
        axis.imshow(rotated(images[digit : digit + 1], angle)[0, ..., 0], cmap="gray")
        axis.set_title(
            f"{labels[digit]} at {angle}°: {said}, {sureness.max():.0%}\nwrong at {wrong[:, digit].sum()} of 24"
        )
        axis.axis("off")
    return figure


def page(command: str, name: str, found: np.ndarray, labels: np.ndarray) -> str:
    """results/errors.md."""
    wrong = found.argmax(-1) != labels
    by_angle, by_digit = wrong.mean(1), wrong.sum(0)
    always = int(np.sum(by_digit == len(ANGLES)))
    shares = pairs(found, labels)
    upright = wrong[ANGLES.index(0)]
    new = wrong[:, ~upright]  # digits that are right upright
    lines = [
        "# Where the invariant network is wrong",
        "",
        f"`{command}`: the packaged network `{name}`, {len(labels):,} test digits, each at {len(ANGLES)} angles.",
        "",
        f"- Wrong at a given angle: {by_angle.mean():.2%} of the digits (upright {by_angle[ANGLES.index(0)]:.2%}, "
        f"worst angle {by_angle.max():.2%}).",
        f"- {always} digits are wrong at every angle: rotation is not the cause. They make "
        f"{always * len(ANGLES) / wrong.sum():.0%} of all errors.",
        f"- Of the {int((~upright).sum()):,} digits that are right when upright, {int(np.sum(new.any(0)))} are wrong "
        f"at some other angle, on average at {new.sum(0)[new.any(0)].mean():.1f} of {len(ANGLES)}.",
        "",
        "Pairs of digits, in either direction:",
        "",
        "| pair | share of all errors |",
        "|---|---|",
    ]
    listed = dict(shares)
    most = [pair for pair, _ in shares[:5]] + [pair for pair in ((6, 9), (4, 7), (2, 5)) if pair not in listed]
    most += [pair for pair in ((6, 9), (4, 7), (2, 5)) if pair in listed and pair not in most]
    lines += [f"| {a} and {b} | {listed.get((a, b), 0):.1%} |" for a, b in most]
    lines += ["", "![the digits that are wrong at the most angles](figures/errors.png)"]
    return "\n".join(lines) + "\n"


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser("benchmarks.errors")
    parser.add_argument("--weights", default="setting3_lenet_fconv_invariant_mnist_5k")
    parser.add_argument("--dataset", default="mnist_5k")
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    test = data.load(options.dataset, 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    found = probabilities(options.weights, test.images)
    command = f"python -m benchmarks.errors --weights {options.weights} --dataset {options.dataset}"
    text = page(command, options.weights, found, test.labels)
    print(text)
    (ROOT / "errors.md").write_text(text, encoding="utf-8")
    style.save(draw(found, test.images, test.labels), ROOT / "figures" / "errors.png")


if __name__ == "__main__":
    main()
