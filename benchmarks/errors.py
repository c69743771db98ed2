"""Where an invariant network is wrong: which digits, at which angles, and what it takes them for.

    python -m benchmarks.errors [RUN_DIR] [--dataset mnist] [--data-dir DIR]

All test digits are rotated by every 5 degrees of a quarter turn; the network does not see whole quarter turns.  All
seeds of a finished run are asked.  Writes results/errors.md and results/figures/errors.png: the pairs of digits that
are confused most, 6 and 9, how far the probabilities can be trusted, and the twelve digits that one seed has wrong at
the most angles, each at the angle where it is surest of its error.  The test digits are looked at here, and nothing is
chosen by them.
"""

import argparse
import functools
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
from experiments.runs.best import Evaluator, rotated
from experiments.settings import DATASETS

ROOT = pathlib.Path(__file__).parents[1] / "results"
ANGLES = tuple(range(-45, 45, 5))
RUN = pathlib.Path("checkpoints/setting3_lenet_fconv_invariant_mnist")
TOGETHER, SHOWN, BINS = 250, 12, 15
QUARTER_TURNS, NUM_ROTATED = (90, 180, 270), 1_000
SAME = 1e-4
"""Rounding, through a network."""


def probabilities(model: nnx.Module, images: np.ndarray) -> np.ndarray:
    """`[angle, image, class]`, of uint8 images `[n, 28, 28, 1]`."""
    graph, state = nnx.split(fc.expand_filters(model))
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
    for where, at in (("upright", [ANGLES.index(0)]), ("all angles", range(len(ANGLES)))):
        for digit, other in ((6, 9), (9, 6)):
            said = found[:, at].argmax(-1)[..., labels == digit]
            is_right, is_other = said == digit, said == other
            shares = [case.mean((1, 2)) for case in (is_right, is_other, ~is_right & ~is_other)]
            rows.append(f"| {digit}, {where} | {' | '.join(spread(share, '.2%') for share in shares)} |")
    return rows


def spread(of_seeds, form: str) -> str:
    """Mean and standard deviation over the seeds, as text."""
    mean = f"{np.mean(of_seeds):{form}}"
    return mean + (f" ± {np.std(of_seeds, ddof=1):{form}}" if len(of_seeds) > 1 else "")


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


def quarter_turns(models: list[nnx.Module], images: np.ndarray) -> float:
    """The largest |f(R x) - f(x)| / |f(x)| of the logits f of all networks; R: one, two and three quarter turns."""
    call = nnx.jit(lambda model, x: model(x))
    x = jnp.asarray(images, jnp.float32) / 255
    return max(
        float(fc.equivariance_error(functools.partial(call, model), x, angle))
        for model in models
        for angle in QUARTER_TURNS
    )


def page(command: str, name: str, found: np.ndarray, labels: np.ndarray, moved: float) -> str:
    """results/errors.md, of probabilities `[seed, angle, image, class]`; `moved`: see `quarter_turns`."""
    wrong, seeds, upright = found.argmax(-1) != labels, range(len(found)), ANGLES.index(0)
    always, new = [], []
    for each in wrong:
        always.append(int(np.sum(each.sum(0) == len(ANGLES))))
        new.append(int(each[:, ~each[upright]].any(0).sum()))  # of the digits that are right upright
    of_all = [count * len(ANGLES) / max(each.sum(), 1) for count, each in zip(always, wrong, strict=True)]
    errors = [[calibration_error(each[at], labels) for each in found] for at in (upright, slice(None))]
    by_angle = wrong.mean(2)
    lines = [
        "# Where the invariant network is wrong",
        "",
        f"`{command}` ({origin()}): {len(seeds)} seed{'s' * (len(seeds) > 1)} of `{name}`, {len(labels):,} test "
        f"digits, each at {len(ANGLES)} angles, every 5 degrees of a quarter turn. The network does not see whole "
        "quarter turns." + " Mean and standard deviation over the seeds." * (len(seeds) > 1),
        "",
        f"- One, two and three quarter turns of {NUM_ROTATED:,} test digits move the logits of no seed by more than "
        f"{moved:.1e} of their norm (goal: 1e-5).",
        f"- Wrong at a given angle: {spread(by_angle.mean(1), '.2%')} of the digits (upright "
        f"{spread(by_angle[:, upright], '.2%')}, at a seed's worst angle {spread(by_angle.max(1), '.2%')}).",
        f"- {spread(always, '.1f')} digits are wrong at every angle: rotation is not the cause. They make "
        f"{spread(of_all, '.0%')} of a seed's errors. {int(wrong.all((0, 1)).sum())} are wrong at every angle for "
        "every seed.",
        f"- Of the digits that are right when upright, {spread(new, '.0f')} are wrong at some other angle.",
        f"- Expected calibration error ({BINS} bins): {spread(errors[0], '.3f')} upright, {spread(errors[1], '.3f')} "
        f"over all angles. The mean of the highest probability is {spread(found.max(-1).mean((1, 2)), '.3f')}, the "
        f"accuracy {spread(1 - wrong.mean((1, 2)), '.3f')}.",
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
        *_pairs([dict(pairs(each, labels)) for each in found]),
        "",
        "![twelve of the digits that are wrong at the most angles, for one seed](figures/errors.png)",
    ]
    return "\n".join(lines) + "\n"


def _pairs(of_seeds):
    """Rows of the table of pairs."""
    mean = {pair: np.mean([each.get(pair, 0.0) for each in of_seeds]) for pair in set().union(*of_seeds)}
    most = sorted(mean, key=lambda pair: (-mean[pair], pair))[:5]
    most += [pair for pair in ((6, 9), (4, 7), (2, 5)) if pair not in most]
    return [f"| {a} and {b} | {spread([each.get((a, b), 0.0) for each in of_seeds], '.1%')} |" for a, b in most]


def _check(trained, dataset):
    """The page is of upright test digits that the network was not trained on."""
    if dataset not in DATASETS or DATASETS[dataset].is_rotated:
        raise SystemExit(f"--dataset {dataset}: name a data set of upright images")
    if overlap(trained, dataset):
        raise SystemExit(f"the run was trained on digits that are among the test digits of {dataset}")


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser("benchmarks.errors")
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=pathlib.Path, default=RUN)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    evaluator = Evaluator(options.run_dir)
    _check(evaluator.config.dataset, options.dataset)
    test = data.load(options.dataset, 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    models = [evaluator.model(int(row)) for row in np.flatnonzero(evaluator.good)]
    moved = quarter_turns(models, test.images[:NUM_ROTATED])
    if moved > SAME:
        raise SystemExit(f"{options.run_dir} sees quarter turns: this page is of networks that do not")
    found = np.stack([probabilities(model, test.images) for model in models])
    command = f"python -m benchmarks.errors {options.run_dir} --dataset {options.dataset}"
    text = page(command, options.run_dir.name, found, test.labels, moved)
    print(text)
    (ROOT / "errors.md").write_text(text, encoding="utf-8")
    style.save(draw(found[0], test.images, test.labels), ROOT / "figures" / "errors.png")


if __name__ == "__main__":
    main()
