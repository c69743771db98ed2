"""Super-resolution x 2 of photographs: EDSR with F-Conv layers (C4, C8) against plain ones of equal parameters.

    pip install -r requirements-examples.txt
    python -m examples.super_resolution            # five seeds of three networks: about 15 minutes on 2 cores
    python -m examples.super_resolution --quick    # a few steps, to see that it works
    python -m examples.super_resolution --choose   # each network's learning rate, on two photographs held out for it

All networks are trained on upright images, without rotated copies, and begin as bilinear interpolation.  The images
ship inside scikit-image and scikit-learn; those for testing are never trained on.

Measured: PSNR = -10 log10(mean squared error) of the luminance, 0 to 1, without a border of 4 pixels.  "45" are the
test images rotated by 45 degrees (cubic spline) before they are made small, cut so that no corner is empty.
"""

import argparse
import pathlib
import tempfile
import time
from importlib import resources

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import scipy.ndimage
import scipy.stats
from flax import nnx
from PIL import Image

import fconv_jax as fc

TRAIN = {
    "skimage.data": ("camera.png", "coffee.png", "chelsea.png", "motorcycle_left.png", "rocket.jpg", "brick.png",
                     "grass.png", "gravel.png", "moon.png", "hubble_deep_field.jpg", "ihc.png"),
}  # fmt: skip
HELD_OUT = {"skimage.data": ("coffee.png", "chelsea.png")}  # of TRAIN, to choose by
TEST = {"skimage.data": ("astronaut.png", "coins.png"), "sklearn.datasets.images": ("china.jpg", "flower.jpg")}
# All frequencies, none of them small at first: few, the layers' default, rotate better, but details count here.
ALL = {"basis": fc.Fourier("all", mask="adaptive"), "coefficient_init": fc.initializers.he()}
NETWORKS = {
    "plain": {"group": None},
    "F-Conv, C4": {"group": 4, "width": 6, **ALL},
    "F-Conv, C8": {"group": 8, "width": 4, **ALL},
}
ANGLES = ("upright", "90", "180", "270", "45")
RATES = (1e-3, 2e-3, 4e-3)
RATE = 1e-3  # by `--choose`: the largest at which all three train
PATCH, BATCH, STEPS, SEEDS, BORDER = 24, 8, 1000, (0, 1, 2, 3, 4), 4
INK = "#767676"  # readable on a white page and on a dark one
plt.rcParams.update({"savefig.transparent": True, **dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor"), INK
)})  # fmt: skip
RESULTS = pathlib.Path(__file__).parent / "results"


def load(names):
    """The luminance of images, 0 to 1, with even sides."""
    images = []
    for package, files in names.items():
        for file in files:
            with resources.files(package).joinpath(file).open("rb") as stream:
                image = np.asarray(Image.open(stream).convert("L"), np.float32) / 255
            images.append(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
    return images


def resized(image, factor):
    """Bicubic interpolation, with a wider kernel where the image becomes smaller."""
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def bilinear(image):
    """An image twice as large, as the networks enlarge it before they are trained."""
    return np.asarray(fc.upsample(image[None, ..., None], 2))[0, ..., 0]


def rotated(image, angle):
    """A test image as one of `ANGLES`."""
    if angle == "upright":
        return image
    if angle != "45":
        return np.ascontiguousarray(np.rot90(image, int(angle) // 90))
    side = min(image.shape) // 2 * 2
    whole = scipy.ndimage.rotate(image[:side, :side], 45, reshape=False, order=3)
    inside = int(side / np.sqrt(2)) // 2 * 2 - 8
    start = (side - inside) // 2
    return np.clip(whole[start : start + inside, start : start + inside], 0, 1)


def network(name, seed):
    """A network of `NETWORKS`, bilinear interpolation at first; the plain one has as many parameters as the C4 one."""
    options = {"in_features": 1, "scale": 2, "blocks": 2, "rngs": nnx.Rngs(seed)}
    if name == "plain":
        model = fc.models.plain_twin("edsr_fconv", **options, **NETWORKS["F-Conv, C4"])
    else:
        model = fc.models.create("edsr_fconv", **options, **NETWORKS[name])
    last = model.last.kernel if name == "plain" else model.last.coefficients
    last[...] = jnp.zeros_like(last[...])
    return model


def patches(pairs, random):
    """A batch of small patches and their large ones, at random places of random images."""
    chosen = []
    for _ in range(BATCH):
        small, large = pairs[random.integers(len(pairs))]
        i, j = (random.integers(side - PATCH + 1) for side in small.shape)
        chosen.append((small[i : i + PATCH, j : j + PATCH], large[2 * i : 2 * (i + PATCH), 2 * j : 2 * (j + PATCH)]))
    return tuple(jnp.asarray(np.stack(part))[..., None] for part in zip(*chosen, strict=True))


def train(name, seed, pairs, steps, rate=RATE):
    """A network, trained on the mean absolute error, as EDSR was."""
    graph, params = nnx.split(network(name, seed))
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def step(params, state, small, large):
        def loss(params):
            return jnp.abs(nnx.merge(graph, params)(small) - large).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state, random = optimizer.init(params), np.random.default_rng(seed)
    for _ in range(steps):
        params, state = step(params, state, *patches(pairs, random))
    return nnx.merge(graph, params)


def psnr(actual, expected):
    """Decibels, inside the border."""
    inside = (slice(BORDER, -BORDER),) * 2
    return -10 * np.log10(np.mean((np.clip(actual, 0, 1) - expected)[inside] ** 2))


def evaluate(model, tests):
    """{angle: mean PSNR of the test images}."""
    model = fc.expand_filters(model)
    enlarge = nnx.jit(lambda model, x: model(x))
    return {
        angle: float(np.mean([psnr(np.asarray(enlarge(model, small[None, ..., None]))[0, ..., 0], large)
                              for small, large in pairs]))
        for angle, pairs in tests.items()
    }  # fmt: skip


def mean(result, angles):
    """Of a network's results at these angles."""
    return np.mean([result[angle] for angle in angles])


def table(rows, floor, sizes, note):
    """The results as Markdown."""
    quarter = ("90", "180", "270")
    shown = {"upright": ("upright",), "quarter turns": quarter, "45 degrees": ("45",), "all rotated": (*quarter, "45")}
    lines = [f"| network | parameters | {' | '.join(shown)} |", "|---|---|" + "---|" * len(shown)]
    cells = " | ".join(f"{mean(floor, angles):.2f}" for angles in shown.values())
    lines.append(f"| bicubic interpolation | 0 | {cells} |")
    for name, results in rows.items():
        values = [[mean(result, angles) for result in results] for angles in shown.values()]
        cells = " | ".join(f"{np.mean(v):.2f} ± {np.std(v, ddof=1) if len(v) > 1 else 0:.2f}" for v in values)
        lines.append(f"| {name} | {sizes[name]:,} | {cells} |")
    lines += ["", "PSNR in dB, mean and standard deviation over seeds.", ""]
    for name in list(rows)[1:]:
        for title, angles in shown.items():
            gains = [mean(a, angles) - mean(b, angles) for a, b in zip(rows[name], rows["plain"], strict=True)]
            n = len(gains)
            half = scipy.stats.t.ppf(0.975, n - 1) * np.std(gains, ddof=1) / np.sqrt(n) if n > 1 else np.nan
            lines.append(f"- {name} minus plain, {title}: {np.mean(gains):+.2f} dB (95 % interval ± {half:.2f})")
    return "\n".join([*lines, "", note, ""])


def draw(path, rows, floor):
    """Gain over bicubic interpolation at each angle."""
    fig, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for (name, results), colour in zip(rows.items(), ("#777777", "#0072B2", "#D55E00"), strict=True):
        gains = np.array([[result[angle] - floor[angle] for angle in ANGLES] for result in results])
        axes.errorbar(range(len(ANGLES)), gains.mean(0), gains.std(0), fmt="o-", capsize=3, color=colour, label=name)
        axes.annotate(name, (len(ANGLES) - 0.9, gains.mean(0)[-1]), color=colour, va="center")
    axes.set_xticks(range(len(ANGLES)), ["upright", "90°", "180°", "270°", "45°"])
    axes.set_xlim(-0.3, len(ANGLES) + 0.6)
    axes.set_ylabel("PSNR above bicubic, dB")
    axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def choose():
    """Prints the PSNR of each network and learning rate on the photographs held out; those for testing stay unseen."""
    names = {
        package: tuple(name for name in files if name not in HELD_OUT[package]) for package, files in TRAIN.items()
    }
    pairs, held_out = ([(resized(image, 0.5), image) for image in load(some)] for some in (names, HELD_OUT))
    for name, enlarge in {"bicubic": lambda x: resized(x, 2), "bilinear": bilinear}.items():
        print(f"{name}: {np.mean([psnr(enlarge(small), large) for small, large in held_out]):.2f} dB")
    for name in NETWORKS:
        for rate in RATES:
            model = train(name, 0, pairs, STEPS // 2, rate)
            print(f"{name}, {rate:g}: {evaluate(model, {'held out': held_out})['held out']:.2f} dB", flush=True)


def main(argv=None):
    """Trains, prints and writes."""
    command = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command.add_argument("--quick", action="store_true", help="a few steps on two images, one seed")
    command.add_argument("--output", type=pathlib.Path, help="of the table and the figure (default: results/ here)")
    command.add_argument("--choose", action="store_true", help="compare learning rates; nothing is written")
    options = command.parse_args(argv)
    if options.output is None:  # what a quick run writes is no result
        options.output = pathlib.Path(tempfile.mkdtemp()) if options.quick else RESULTS
    if options.choose:
        return choose()
    names = {"sklearn.datasets.images": ("china.jpg",)} if options.quick else TRAIN
    tests = {"sklearn.datasets.images": ("flower.jpg",)} if options.quick else TEST
    seeds, steps = ((0,), 3) if options.quick else (SEEDS, STEPS)
    pairs = [(resized(image, 0.5), image) for image in load(names)]
    large = {angle: [rotated(image, angle) for image in load(tests)] for angle in ANGLES}
    tests = {angle: [(resized(image, 0.5), image) for image in images] for angle, images in large.items()}
    floor = {angle: float(np.mean([psnr(resized(s, 2), x) for s, x in two])) for angle, two in tests.items()}
    rows, sizes, started = {}, {}, time.monotonic()
    for name in NETWORKS:
        rows[name], sizes[name] = [], fc.models.num_parameters(network(name, 0))
        for seed in seeds:
            rows[name].append(evaluate(train(name, seed, pairs, steps), tests))
            print(f"{name}, seed {seed}: {rows[name][-1]}, {time.monotonic() - started:.0f} s gone", flush=True)
    note = f"{steps:,} steps of {BATCH} patches of {PATCH} x {PATCH}; seeds {', '.join(map(str, seeds))}."
    text = table(rows, floor, sizes, note)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "super_resolution.md").write_text(text, encoding="utf-8")
    draw(options.output / "super_resolution.png", rows, floor)


if __name__ == "__main__":
    main()
