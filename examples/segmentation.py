"""Segmentation of synthetic cells: a U-Net of F-Conv layers (C8, D8) against plain convolutions of equal parameters.

    python -m examples.segmentation            # three seeds of four networks: about 15 minutes on 2 cores
    python -m examples.segmentation --quick    # a few steps, to see that it works

Rod-shaped cells lie among rods of the same size that are no cells: a cell has a bright rim and a darker inside, the
others are filled.  In training all of them lie along the rows (within 8 degrees, as in a flow); in the rotated test set
each image has a direction of its own.  Images are drawn from a seed at their angle, so nothing is interpolated.

Measured: Dice = 2 |A and B| / (|A| + |B|) of the pixels called cell and those that are, over all images of a test set.
"""

import argparse
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import scipy.stats
from flax import nnx

import fconv_jax as fc

SIZE, RODS, NOISE = 48, 6, 0.15
TRAIN, TEST, BATCH, STEPS, SEEDS = 256, 128, 8, 500, (0, 1, 2)
ANGLES = (0, 15, 30, 45, 60, 75, 90)
# name: (options of `unet_fconv`, whether training images are rotated at random)
NETWORKS = {
    "plain": ({"group": None}, False),
    "plain, augmented": ({"group": None}, True),
    "F-Conv, C8": ({"group": 8, "width": 4}, False),
    "F-Conv, D8": ({"group": fc.Group(8, reflections=True), "width": 3}, False),
}
INK = "#767676"  # readable on a white page and on a dark one
plt.rcParams.update({"savefig.transparent": True, **dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor"), INK
)})  # fmt: skip
RESULTS = pathlib.Path(__file__).parent / "results"


def draw_image(random, direction):
    """An image `[SIZE, SIZE]` of rods along `direction` (radians), and the mask of those that are cells."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    image, mask = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    for number in range(RODS):
        angle = direction + np.radians(random.uniform(-8, 8))
        centre, half, radius = random.uniform(6, SIZE - 6, 2), random.uniform(4, 7), random.uniform(3.2, 4.2)
        along = (columns - centre[1]) * np.cos(angle) - (rows - centre[0]) * np.sin(angle)
        across = (columns - centre[1]) * np.sin(angle) + (rows - centre[0]) * np.cos(angle)
        distance = np.hypot(np.maximum(np.abs(along) - half, 0), across) - radius  # below 0 inside
        inside = np.clip(0.5 - distance, 0, 1)
        cell = number % 2 == 0
        value = np.where(distance > -1.5, 1.0, 0.45) if cell else np.full(rows.shape, 0.75)
        image = image * (1 - inside) + value * inside
        mask = np.where(distance < 0, float(cell), mask)
    return image + NOISE * random.normal(size=image.shape), mask


def data(count, seed, directions):
    """Images `[count, SIZE, SIZE, 1]` and masks; directions in degrees, one for each image or one for all."""
    random = np.random.default_rng(seed)
    drawn = [draw_image(random, np.radians(angle)) for angle in np.broadcast_to(directions, count)]
    return tuple(np.stack(part).astype(np.float32)[..., None] for part in zip(*drawn, strict=True))


def network(name, seed):
    """A network of `NETWORKS`; the plain ones have as many parameters as the C8 one."""
    options = {"num_classes": 1, "depth": 2, "rngs": nnx.Rngs(seed)}
    if NETWORKS[name][0]["group"] is None:
        return fc.models.plain_twin("unet_fconv", **options, **NETWORKS["F-Conv, C8"][0])
    return fc.models.create("unet_fconv", **options, **NETWORKS[name][0])


def train(name, seed, steps):
    """A network, trained on its seed's images; with augmentation each epoch draws new ones, at any direction."""
    graph, params, rest = nnx.split(network(name, seed), nnx.Param, ...)
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps))

    @jax.jit
    def step(params, rest, state, images, masks):
        def loss(params):
            model = nnx.merge(graph, params, rest, copy=True)
            value = optax.sigmoid_binary_cross_entropy(model(images), masks).mean()
            return value, nnx.state(model, nnx.Not(nnx.Param))

        gradients, rest = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), rest, state

    state, random = optimizer.init(params), np.random.default_rng(seed)
    images, masks = data(TRAIN, 100 + seed, 0)
    for number in range(steps):
        if NETWORKS[name][1] and number % (TRAIN // BATCH) == 0:
            images, masks = data(TRAIN, 100 + seed + 1000 * number, random.uniform(0, 360, TRAIN))
        chosen = random.integers(TRAIN, size=BATCH)
        params, rest, state = step(params, rest, state, jnp.asarray(images[chosen]), jnp.asarray(masks[chosen]))
    model = nnx.merge(graph, params, rest)
    model.eval()
    return fc.expand_filters(model)


def dice(model, images, masks):
    """Of all pixels together."""
    predict = nnx.jit(lambda model, images: model(images) > 0)
    found = np.concatenate([predict(model, images[i : i + 32]) for i in range(0, len(images), 32)])
    return float(2 * (found * masks).sum() / (found.sum() + masks.sum()))


def table(rows, sizes, note):
    """The results as Markdown."""
    lines = ["| network | parameters | upright | rotated |", "|---|---|---|---|"]
    for name, results in rows.items():
        cells = []
        for kind in ("upright", "rotated"):
            values = [result[kind] for result in results]
            cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}")
        lines.append(f"| {name} | {sizes[name]:,} | {' | '.join(cells)} |")
    lines += ["", "Dice, mean and standard deviation over seeds.", ""]
    for name in list(rows)[2:]:
        for other in list(rows)[:2]:
            gains = [a["rotated"] - b["rotated"] for a, b in zip(rows[name], rows[other], strict=True)]
            n = len(gains)
            half = scipy.stats.t.ppf(0.975, n - 1) * np.std(gains, ddof=1) / np.sqrt(n) if n > 1 else np.nan
            lines.append(f"- {name} minus {other}, rotated: {np.mean(gains):+.3f} (95 % interval ± {half:.3f})")
    return "\n".join([*lines, "", note, ""])


def draw(path, rows, models, sample):
    """Dice against the direction, and one rotated image with what each network finds."""
    colours = ("#999999", "#555555", "#0072B2", "#D55E00")
    fig = plt.figure(figsize=(9, 5), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.3, 1))
    axes = top.subplots()
    markers = ("o:", "s--", "^-.", "v-")
    for (name, results), colour, marker in zip(rows.items(), colours, markers, strict=True):
        values = np.array([[result[angle] for angle in ANGLES] for result in results])
        axes.plot(ANGLES, values.mean(0), marker, color=colour, label=name)
    axes.set(xlabel="direction of the rods, degrees (training: 0)", ylabel="Dice", xticks=ANGLES)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    images, masks = sample
    shown = {"image": images[0, ..., 0], "cells": masks[0, ..., 0]}
    shown |= {name: np.asarray(model(jnp.asarray(images)))[0, ..., 0] > 0 for name, model in models.items()}
    for (name, pixels), panel in zip(shown.items(), bottom.subplots(1, len(shown)), strict=True):
        panel.imshow(pixels, cmap="gray")
        panel.set_title(name, fontsize=8)
        panel.axis("off")
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main(argv=None):
    """Trains, prints and writes."""
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command.add_argument("--quick", action="store_true", help="a few steps, one seed")
    command.add_argument("--output", type=pathlib.Path, help="of the table and the figure (default: results/ here)")
    options = command.parse_args(argv)
    if options.output is None:  # what a quick run writes is no result
        options.output = pathlib.Path(tempfile.mkdtemp()) if options.quick else RESULTS
    seeds, steps, count = ((0,), 2, 8) if options.quick else (SEEDS, STEPS, TEST)
    directions = np.random.default_rng(1).uniform(0, 360, count)
    tests = {"upright": data(count, 1, 0), "rotated": data(count, 2, directions)}
    tests |= {angle: data(count, 3, angle) for angle in ANGLES}
    rows, sizes, models, started = {}, {}, {}, time.monotonic()
    for name in NETWORKS:
        rows[name], sizes[name] = [], fc.models.num_parameters(network(name, 0))
        for seed in seeds:
            models[name] = train(name, seed, steps)
            rows[name].append({kind: dice(models[name], *test) for kind, test in tests.items()})
            print(f"{name}, seed {seed}: {rows[name][-1]}, {time.monotonic() - started:.0f} s gone", flush=True)
    new = f"(augmented: of {TRAIN} new ones every {TRAIN // BATCH} steps)"
    note = f"{steps:,} steps of {BATCH} images of {TRAIN} {new}; {count} test images; "
    note += f"seeds {', '.join(map(str, seeds))}."
    text = table(rows, sizes, note)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "segmentation.md").write_text(text, encoding="utf-8")
    draw(options.output / "segmentation.png", rows, models, data(1, 5, 35))


if __name__ == "__main__":
    main()
