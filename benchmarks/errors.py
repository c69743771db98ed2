"""Where an invariant network is wrong: which digits, at which angles, and what it takes them for.

    python -m benchmarks.errors [--weights NAME] [--dataset mnist] [--data-dir DIR]

All test digits are rotated by every 5 degrees of a quarter turn; the network does not see whole quarter turns.  Writes
results/errors.md and results/figures/errors.png: the pairs of digits that are confused most, 6 and 9, how far the
probabilities can be trusted, and the twelve digits that are wrong at the most angles, each at the angle where the
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
from benchmarks.origin import origin
from experiments import data
from experiments.reporting import style
from experiments.reporting.evaluation import overlap
from experiments.runs.best import rotated
from experiments.settings import DATASETS

ROOT = pathlib.Path(__file__).parents[1] / "results"
ANGLES = tuple(range(-45, 45, 5))
TOGETHER, SHOWN, BINS = 250, 12, 15
SAME = 1e-4
"""Rounding, through a network."""


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


def calibration_error(found: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error over 15 bins of the highest probability p (Guo et al., ICML 2017, eq. 5).

    sum_b n_b / n |share of right answers in bin b - mean p in bin b|, of probabilities `[..., image, class]`.
    """
    highest, right = found.max(-1).ravel(), (found.argmax(-1) == labels).ravel()
    bins = np.minimum((highest * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, highest, BINS) - np.bincount(bins, right, BINS)
    return float(np.abs(gaps).sum() / highest.size)


def six_and_nine(found: np.ndarray, labels: np.ndarray) -> list[str]:
    """Rows of a table: what the sixes and the nines are taken for, upright and over all angles."""
    rows = []
    for where, answers in (("upright", found[ANGLES.index(0)][None]), ("all angles", found)):
        for digit, other in ((6, 9), (9, 6)):
            said = answers.argmax(-1)[:, labels == digit]
            shares = np.mean(said == digit), np.mean(said == other), np.mean((said != digit) & (said != other))
            rows.append(f"| {digit}, {where} | {' | '.join(f'{share:.2%}' for share in shares)} |")
    return rows


def draw(found: np.ndarray, images: np.ndarray, labels: np.ndarray) -> pyplot.Figure:
    """The digits that are wrong at the most angles, each where the network is surest of its error."""
    wrong = found.argmax(-1) != labels
    worst = np.argsort(-wrong.sum(0), kind="stable")[: min(SHOWN, np.count_nonzero(wrong.any(0)))]
    figure, axes = pyplot.subplots(2, SHOWN // 2, figsize=(9, 3.9), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, digit in zip(axes.flat, worst, strict=False):
        sureness = np.where(wrong[:, digit], found[:, digit].max(-1), 0)
        angle = ANGLES[int(sureness.argmax())]
        said = int(found[sureness.argmax(), digit].argmax())
        axis.imshow(rotated(images[digit : digit + 1], angle)[0, ..., 0], cmap="gray")
        often = f"wrong at {wrong[:, digit].sum()} of {len(ANGLES)}"
        axis.set_title(f"{labels[digit]} at {angle}°: {said}, {sureness.max():.0%}\n{often}")
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
        f"`{command}` ({origin()}): the packaged network `{name}` (one seed of five: "
        f"[which](../docs/deploy.md)), {len(labels):,} test digits, each at "
        f"{len(ANGLES)} angles, every 5 degrees of a quarter turn. The network does not see whole quarter turns.",
        "",
        f"- Wrong at a given angle: {by_angle.mean():.2%} of the digits (upright {by_angle[ANGLES.index(0)]:.2%}, "
        f"worst angle {by_angle.max():.2%}).",
        f"- {always} digits are wrong at every angle: rotation is not the cause. They make "
        f"{always * len(ANGLES) / max(wrong.sum(), 1):.0%} of all errors.",
        f"- Of the {int((~upright).sum()):,} digits that are right when upright, {int(np.sum(new.any(0)))} are wrong "
        f"at some other angle, on average at {new.sum() / max(new.any(0).sum(), 1):.1f} of {len(ANGLES)}.",
        f"- Expected calibration error ({BINS} bins): {calibration_error(found[ANGLES.index(0)], labels):.3f} upright, "
        f"{calibration_error(found, labels):.3f} over all angles. The mean of the highest probability is "
        f"{found.max(-1).mean():.3f}, the accuracy {1 - wrong.mean():.3f}.",
        "",
        "Sixes and nines, which a rotation by 180 degrees could make of each other:",
        "",
        "| digit | right | as the other | as a third |",
        "|---|---|---|---|",
        *six_and_nine(found, labels),
        "",
        "Pairs of digits, in either direction: the five confused most, then 6 and 9, 4 and 7, 2 and 5:",
        "",
        "| pair | share of all errors |",
        "|---|---|",
    ]
    listed = dict(shares)
    most = [pair for pair, _ in shares[:5]]
    most += [pair for pair in ((6, 9), (4, 7), (2, 5)) if pair not in most]
    lines += [f"| {a} and {b} | {listed.get((a, b), 0):.1%} |" for a, b in most]
    lines += ["", "![twelve of the digits that are wrong at the most angles](figures/errors.png)"]
    return "\n".join(lines) + "\n"


def _check(options):
    """The page is of upright test digits that the network was not trained on."""
    if options.dataset not in DATASETS or DATASETS[options.dataset].is_rotated:
        raise SystemExit(f"--dataset {options.dataset}: name a data set of upright images")
    trained = (fc.pretrained.read_config(options.weights).get("source") or {}).get("dataset")
    if trained in DATASETS and overlap(trained, options.dataset):
        raise SystemExit(f"{options.weights} was trained on digits that are among the test digits of {options.dataset}")


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser("benchmarks.errors")
    parser.add_argument("--weights", default="setting3_lenet_fconv_invariant_mnist")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    _check(options)
    test = data.load(options.dataset, 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    model, some = fc.from_pretrained(options.weights), test.images[:8].astype(np.float32) / 255
    if fc.equivariance_error(model, some) > SAME:
        raise SystemExit(f"{options.weights} sees quarter turns: this page is of networks that do not")
    found = probabilities(options.weights, test.images)
    command = f"python -m benchmarks.errors --weights {options.weights} --dataset {options.dataset}"
    text = page(command, options.weights, found, test.labels)
    print(text)
    (ROOT / "errors.md").write_text(text, encoding="utf-8")
    style.save(draw(found, test.images, test.labels), ROOT / "figures" / "errors.png")


if __name__ == "__main__":
    main()
