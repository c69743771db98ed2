"""What the layers' default basis and initialiser do to rotations and to the variance: writes results/preset.md.

    python -m benchmarks.preset

Errors: two untrained layers (lifting, ReLU, group; 8 features) on the audit's smooth images, 33 x 33, margin 10, mean
of two seeds; of the field where the angle is a step of the group, else of its maximum over the group.  Variance: mean
square of white noise after twenty group layers with ReLU (C8, 3 x 3, 24 x 24) over that after the first, 16 seeds.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fconv_jax as fc
from benchmarks.origin import origin
from fconv_jax.audit import _smooth_images

GROUPS = (*map(fc.Group, (4, 5, 6, 8, 10, 12, 16)), fc.Group(4, reflections=True), fc.Group(8, reflections=True))
RESULTS = pathlib.Path(__file__).parents[1] / "results" / "preset.md"
KINDS = {
    "default": {},
    "default, `smooth=False`": {"basis": fc.Fourier(smooth=False)},
    "default basis, `he()`": {"coefficient_init": fc.initializers.he()},
    "all frequencies, adaptive, `he()`": {
        "basis": fc.Fourier("all", mask="adaptive"),
        "coefficient_init": fc.initializers.he(),
    },
}


class Two(nnx.Module):
    """Two layers."""

    def __init__(self, kernel_size, group, seed, options):
        padding = {"padding": kernel_size // 2} if kernel_size % 2 == 0 else {}
        options = {**options, **padding, "rngs": nnx.Rngs(seed)}
        self.lift = fc.LiftingFConv(1, 8, kernel_size, group, **options)
        self.group = fc.GroupFConv(8, 8, kernel_size, group, **options)

    def __call__(self, x):
        """Returns the field."""
        return self.group(nnx.relu(self.lift(x)))


def error(kernel_size, group, angle, options):
    """The mean error of two seeds."""
    images = _smooth_images((33, 33, 1))
    models = [Two(kernel_size, group, seed, options) for seed in (0, 1)]
    steps = angle * fc.group.as_group(group).num_rotations / 360
    call = nnx.jit(lambda model, x: model(x) if steps == round(steps) else fc.max_over_group(model(x)))
    errors = [
        fc.equivariance_error(lambda x, m=model: call(m, x), images, angle, margin=10, group=group) for model in models
    ]
    return np.mean([float(value) for value in errors])


def variance(options, features):
    """Mean squares after twenty layers over the first's: geometric mean, its factor of scatter, and how many keep."""
    call = nnx.jit(lambda layer, x: nnx.relu(layer(x)))
    logarithms = []
    for seed in range(16):
        x, squares = jax.random.normal(jax.random.key(seed), (2, 24, 24, 8, features)), []
        for number in range(20):
            layer = fc.GroupFConv(features, features, 3, 8, rngs=nnx.Rngs(100 * seed + number), **options)
            x = call(layer, x)
            squares.append(float(jnp.mean(x**2)))
        logarithms.append(np.log10(squares[-1] / squares[0]))
    kept = np.sum(np.abs(logarithms) <= 1)
    return f"{10 ** np.mean(logarithms):.2g} (x/÷ {10 ** np.std(logarithms, ddof=1):.1f}; {kept})"


def rank(kernel_size, options):
    """Number of functions."""
    return options.get("basis", fc.Fourier()).sampled(kernel_size, 8).rank


def main():
    """Measures, prints and writes."""
    lines = ["# The layers' default basis and initialiser", "", f"`python -m benchmarks.preset`, {origin()}.", ""]
    lines += [
        "Relative error of two untrained layers of C8 (8 features, mean of seeds 0 and 1, the audit's smooth images of",
        "33 x 33, inside a disk): of the field at 45 degrees / of its maximum over the group at 22.5 degrees, so the",
        "two do not compare (functions of the basis):",
        "",
    ]
    lines += [f"| kernel | {' | '.join(KINDS)} |", "|---|" + "---|" * len(KINDS)]
    for k in range(2, 12):
        cells = [f"{error(k, 8, 45, o):.3f} / {error(k, 8, 22.5, o):.3f} ({rank(k, o)})" for o in KINDS.values()]
        lines.append(f"| {k} x {k} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines += ["", "At one step of the group, kernels of 5 x 5:", "", f"| group | {' | '.join(KINDS)} |"]
    lines.append("|---|" + "---|" * len(KINDS))
    for t in (4, 5, 6, 8, 12, 16):
        lines.append(f"| C{t} | " + " | ".join(f"{error(5, t, 360 / t, o):.3f}" for o in KINDS.values()) + " |")
        print(lines[-1], flush=True)
    lines += ["", "The default at one step of each group:", "", f"| kernel | {' | '.join(map(str, GROUPS))} |"]
    lines.append("|---|" + "---|" * len(GROUPS))
    for k in range(2, 12):
        cells = [f"{error(k, group, 360 / group.num_rotations, {}):.3f}" for group in GROUPS]
        lines.append(f"| {k} x {k} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines += [
        "",
        "Mean square after twenty layers over that after the first, sixteen seeds: geometric mean (times or divided by "
        "the scatter of one seed; how many of the sixteen are from 0.1 to 10):",
        "",
        f"| features | {' | '.join(KINDS)} |",
        "|---|" + "---|" * len(KINDS),
    ]
    for features in (8, 16, 32):
        lines.append(f"| {features} | " + " | ".join(variance(o, features) for o in KINDS.values()) + " |")
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if RESULTS.exists():  # what `benchmarks.preset_trained` has written
        _, mark, rest = RESULTS.read_text(encoding="utf-8").partition("\n## After training")
        text += mark + rest
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
