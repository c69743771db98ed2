"""What an invariant network gains if it sees its input at several angles: no training, the same weights.

    python -m benchmarks.input_turns RUN_DIR [--data-dir DIR] [--split test]

Before the first layer the image is rotated by each angle (cubic spline), and the pooled features are averaged over them
(`input_turns` of `fconv_jax.models.invariant.InvariantFConv`), so that what is lost at one angle is shared by all.  A
forward pass takes as many times as long.  Writes results/input-turns.md from test digits; the angles were chosen on
2,000 validation digits, with `--split validation`.
"""

import argparse
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fconv_jax as fc
from experiments import data
from experiments.data.rotation import INTERPOLATIONS, rotate_each, uniform_angles
from experiments.runs.best import Evaluator, rotated
from experiments.training.devices import device_name

PAGE = Path(__file__).parents[1] / "results" / "input-turns.md"
TURNS = ((0.0,), (0.0, 45.0), (0.0, 22.5, 45.0, 67.5))
ANGLES, TOGETHER, FEW = (0,), 100, 2_000


def networks(run: Evaluator, turns: tuple[float, ...]) -> list:
    """Functions from uint8 images to classes: the seeds of a run, whose network sees its input at some angles."""
    found = []
    for row in range(len(run.config.seeds)):
        model = fc.models.create(run.config.model, input_turns=turns, rngs=nnx.Rngs(0))
        nnx.update(model, nnx.state(run.model(row), (nnx.Param, nnx.BatchStat)))
        model.eval()
        graph, state = nnx.split(fc.expand_filters(model))
        found.append(functools.partial(classes, graph, state))
    return found


def classes(graph, state, images):
    """The network's answers."""
    parts = [images[i : i + TOGETHER] for i in range(0, len(images), TOGETHER)]
    return np.concatenate([_classes(graph, state, part) for part in parts])


@functools.partial(jax.jit, static_argnums=0)
def _classes(graph, state, images):
    return jnp.argmax(nnx.merge(graph, state)(images.astype(jnp.float32) / 255), -1)


def tests(images: np.ndarray) -> dict[str, np.ndarray]:
    """The images as each column of the table has them."""
    columns = {f"{angle}°": rotated(images, angle) for angle in ANGLES}
    angles = uniform_angles(0, len(images))
    for name, order in INTERPOLATIONS.items():
        columns[f"uniform, {name}"] = rotate_each(images[..., 0], angles, order)[..., None]
    return columns


def main():
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser("benchmarks.input_turns")
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    options = parser.parse_args()
    run = Evaluator(options.run_dir)
    split = data.load(run.config.dataset, 1, data_dir=options.data_dir, splits=(options.split,), progress=print)
    images, labels = split[options.split].images, split[options.split].labels
    if options.split == "validation":
        images, labels = images[:FEW], labels[:FEW]
    columns = tests(images)
    lines = [f"| input at | {' | '.join(columns)} |", "|" + "---|" * (1 + len(columns))]
    print("\n".join(lines))
    for turns in TURNS:
        asked = networks(run, turns)
        right = [_text([np.mean(ask(images) == labels) for ask in asked]) for images in columns.values()]
        lines.append(f"| {', '.join(f'{turn:g}°' for turn in turns)} | {' | '.join(right)} |")
        print(lines[-1], flush=True)
    if options.split == "test":
        command = f"python -m benchmarks.input_turns {options.run_dir}"
        PAGE.write_text(_PAGE.format(name=options.run_dir.name, table="\n".join(lines), command=command,
                                     seeds=", ".join(map(str, run.config.seeds)), number=len(labels),
                                     digest=run.digest, device=device_name()), encoding="utf-8")  # fmt: skip


def _text(accuracy):
    return f"{np.mean(accuracy):.4f}" + (f" ± {np.std(accuracy, ddof=1):.4f}" if len(accuracy) > 1 else "")


_PAGE = """# The input at several angles

Trained at one angle, `{name}` is a little worse between the quarter turns. If it sees the image at
several angles and averages the features, with the same weights and no training, it reads as many digits at uniform
angles as upright ones; a forward pass takes as many times as long:

{table}

Accuracy on {number:,} test digits: upright, or each rotated by its own angle, uniform over the circle (set 0).
Mean and standard deviation over the seeds {seeds}. The angles of the input were chosen on 2,000 validation digits,
which no run trained on. `{command}`, best epochs with the digest `{digest}`, {device}.

```python
import fconv_jax as fc
from flax import nnx

model = fc.models.create("lenet_fconv_invariant", input_turns=(0, 22.5, 45, 67.5), rngs=nnx.Rngs(0))
nnx.update(model, nnx.state(fc.from_pretrained("{name}"), (nnx.Param, nnx.BatchStat)))
model.eval()
```
"""


if __name__ == "__main__":
    main()
