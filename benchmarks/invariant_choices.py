"""What each choice in `lenet_fconv_invariant` brings: small networks trained on upright digits, all by one protocol.

    python -m benchmarks.invariant_choices --output results [--dataset mnist --data-dir DIR] [--choice NAME]...

On mnist_5k one seed, 4 epochs, tested on test digits: it explains the choices.  On MNIST three seeds, 1 epoch, tested
on the 5,000 validation digits, which no run trains on: it may choose.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

from benchmarks import choices_page
from experiments.training import devices

LEARNING_RATE = 5e-3
ANGLES = (0.0, 11.0, 22.0, 34.0, 45.0)
_SIZES = ((7, 8), (5, 8), (5, 12), (5, 16))  # kernel, features; the first two are pooled
_FEW = (5, 3, 3, 3)
_SQUARE = {"mask": "adaptive", "margin": None, "blur": None}
_TWICE = {"input_turns": (0.0, 22.5)}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How the networks of a data set are trained, and on which split they are tested."""

    epochs: int
    seeds: tuple[int, ...]
    split: str
    file: str


PROTOCOLS = {
    "mnist_5k": Protocol(4, (0,), "test", "invariant_choices"),
    "mnist": Protocol(1, (0, 1, 2), "validation", "invariant_choices_mnist"),
}


@dataclasses.dataclass(frozen=True)
class Choice:
    """Frequencies and kernels of the layers, options of the network, its group, and how it is trained.

    `pools`: how many layers, from the first, are pooled.  `pixels`: the images, rotated or not, are resized to as many
    (cubic, the frame stays the frame).  `averaged`: the share of the steps, the last ones, whose parameters and batch
    statistics are averaged after each call (stochastic weight averaging, Izmailov et al., UAI 2018, under the cosine).
    """

    frequencies: tuple[int | None, ...] = _FEW
    kernels: tuple[int, ...] = tuple(kernel for kernel, _ in _SIZES)
    features: tuple[int, ...] = tuple(features for _, features in _SIZES)
    options: dict = dataclasses.field(default_factory=dict)
    reflections: bool = False
    batch_size: int = 64
    times: int = 1
    pools: int = 2
    pixels: int = 28
    averaged: float = 0.0


_ALL, _BLURRED = (None,) * 4, {"power": 16.0, "power_blur": 5}
_HALF = (4, 4, 6, 8)  # features, where the group has twice the elements
CHOICES = {
    "all frequencies, square masks, mean pools": Choice(_ALL, options=_SQUARE),
    "+ a disk over the features": Choice(_ALL, options={**_SQUARE, "margin": 2.0}),
    "+ few frequencies": Choice(options={**_SQUARE, "margin": 2.0}),
    "+ filters that fade": Choice(options={"margin": 2.0, "blur": None}),
    "+ blurred pools": Choice(),
    "blurred pools, and a power mean (p = 8) over space beside the mean": Choice(options={"power": 8.0}),
    "blurred pools, and a power mean (p = 8) of blurred features": Choice(options={"power": 8.0, "power_blur": 5}),
    "blurred pools, and a power mean (p = 16) of blurred features": Choice(options=_BLURRED),
    "blurred pools, and kernels of 9 and 7 in the first layers": Choice((5, 4, 3, 3), (9, 7, 5, 5)),
    "blurred pools, and initial weights `he`": Choice(options={"init": "he"}),
    "blurred pools, 4 rotations, inputs at 0, 22.5, 45, 67.5": Choice(
        options={"num_rotations": 4, "input_turns": (0.0, 22.5, 45.0, 67.5)}
    ),
    "all frequencies, square masks, mean pools, inputs at 0 and 22.5": Choice(_ALL, options={**_SQUARE, **_TWICE}),
    "blurred pools, inputs at 0 and 22.5": Choice(options=_TWICE),
    "power mean (p = 16), 16 rotations, half the features": Choice(
        features=_HALF, options={**_BLURRED, "num_rotations": 16}
    ),
    "power mean (p = 16), D8 (mirror images too), half the features": Choice(
        features=_HALF, options=_BLURRED, reflections=True
    ),
    "power mean (p = 16), 4 rotations, twice the features": Choice(
        features=(16, 16, 24, 32), options={**_BLURRED, "num_rotations": 4}
    ),
    "power mean (p = 16), batches of 16": Choice(options=_BLURRED, batch_size=16),
    "power mean (p = 16), batches of 256": Choice(options=_BLURRED, batch_size=256),
    "power mean (p = 16), twice the epochs": Choice(options=_BLURRED, times=2),
    "power mean (p = 16), twice the features": Choice(features=(16, 16, 24, 32), options=_BLURRED),
    "power mean (p = 16), weights averaged over the last quarter": Choice(options=_BLURRED, averaged=0.25),
    "power mean (p = 16), images of 29 pixels": Choice(options=_BLURRED, pixels=29),
    "power mean (p = 16), images of 56 pixels, three pools": Choice(options=_BLURRED, pixels=56, pools=3),
}


def main() -> None:
    """Trains the choices that the folder does not have and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dataset", choices=PROTOCOLS, default="mnist_5k")
    parser.add_argument("--data-dir")
    parser.add_argument("--choice", action="append", choices=CHOICES, help="train these only (default: all)")
    options = parser.parse_args()
    devices.configure("lenet_fconv_invariant", 1)
    from benchmarks.origin import origin  # imports jax, after its flags are set
    from experiments.data import load
    from experiments.runs.folder import write_json
    from experiments.runs.results import versions

    protocol = PROTOCOLS[options.dataset]
    file = options.output / "benchmarks" / f"{protocol.file}.json"
    contents = _read(file)
    more = "" if options.dataset == "mnist_5k" else f" --dataset {options.dataset}"
    contents |= {"command": f"python -m benchmarks.invariant_choices --output results{more}"}
    contents |= {"versions": versions()}
    splits = load(options.dataset, 1, data_dir=options.data_dir, progress=print)
    for name in options.choice or CHOICES:
        if name in contents["choices"]:
            continue
        contents["choices"][name] = _train(CHOICES[name], protocol, splits) | {"device": origin()}
        print(name, contents["choices"][name], flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, contents)
        write_page(options.output)
    write_page(options.output)


def write_page(output: Path) -> None:
    """Writes OUTPUT/invariant-choices.md from the files that there are."""
    found = [(name, one, _read(output / "benchmarks" / f"{one.file}.json")) for name, one in PROTOCOLS.items()]
    text = choices_page.text([each for each in found if each[2]["choices"]], list(CHOICES))
    (output / "invariant-choices.md").write_text(text, encoding="utf-8")


def _read(file):
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"choices": {}}


def _train(choice, protocol, splits):
    import jax
    import numpy as np

    from experiments.data import Split
    from experiments.runs.best import rotated
    from experiments.training.network import network as network_of
    from experiments.training.network import num_parameters
    from experiments.training.programs import Programs
    from fconv_jax import Group
    from fconv_jax.models.invariant import InvariantFConv, Layer

    sizes = zip(choice.kernels, choice.features, choice.frequencies, strict=True)
    layers = tuple(Layer(*size, pool=i < choice.pools) for i, size in enumerate(sizes))
    options = {"num_rotations": 8, "hidden": 64, **choice.options}
    options["num_rotations"] = Group(options["num_rotations"], choice.reflections)

    def create(**more):
        model = InvariantFConv(layers, **options, **more)
        model.input_shape = (choice.pixels, choice.pixels, 1)
        return model

    network = network_of(create)
    train, test = splits["train"], splits[protocol.split]
    plan = devices.layout("lenet_fconv_invariant", len(protocol.seeds), choice.batch_size, has_stats=True)
    epochs = protocol.epochs * choice.times
    steps = epochs * -(-len(train.labels) // choice.batch_size)
    trainer = Programs(network, plan, protocol.seeds, (), batch_size=choice.batch_size, learning_rate=LEARNING_RATE,
                       schedule="cosine", num_steps=steps)  # fmt: skip
    data = trainer.place(dataclasses.replace(train, images=_resized(train.images, choice.pixels)))
    began = time.monotonic()
    params, stats = jax.block_until_ready(_weights(trainer, data, epochs, choice.averaged))
    seconds = time.monotonic() - began
    accuracy, deviation = {}, {}
    for angle in ANGLES:
        images = _resized(rotated(test.images, angle), choice.pixels)
        split = trainer.place(Split(images, test.labels, np.full_like(test.labels, angle)))
        counts = trainer.confusion(params, stats, split)
        of_seeds = np.trace(counts, axis1=1, axis2=2) / len(test.labels)
        accuracy[f"{angle:g}"] = float(np.mean(of_seeds))
        if len(of_seeds) > 1:
            deviation[f"{angle:g}"] = float(np.std(of_seeds, ddof=1))
    return {"accuracy": accuracy, "deviation": deviation, "num_parameters": num_parameters(network), "seconds": seconds}


def _weights(trainer, data, epochs, averaged):
    """Parameters and batch statistics after training: the last ones, or the mean over a share of the steps."""
    steps, states = trainer.num_steps(data), trainer.init()
    mean, count = None, 0
    for epoch in range(epochs):
        orders, step = trainer.orders(data, epoch), 0
        while step < steps:
            states, _, done = trainer.steps(states, orders, data, epoch, step, trainer.layout.steps_per_call)
            step += done
            if epoch * steps + step > epochs * steps * (1 - averaged):
                count += 1
                mean = _mean(mean, (states["params"], states["stats"]), count)
    return mean or (states["params"], states["stats"])


def _mean(before, now, count):
    """The mean of `count` trees, of which `before` is the mean of all but the last."""
    import jax
    import jax.numpy as jnp

    if before is None:
        return jax.tree.map(jnp.copy, now)  # the next step takes its memory
    return jax.tree.map(lambda mean, x: mean + (x - mean) / count, before, now)


def _resized(images, pixels):
    """uint8 images of another size, by cubic interpolation."""
    import jax
    import numpy as np

    if pixels == images.shape[1]:
        return images
    shape = (len(images), pixels, pixels, images.shape[-1])
    found = jax.image.resize(images.astype(np.float32), shape, "cubic", antialias=False)
    return np.asarray(found.round().clip(0, 255)).astype(np.uint8)


if __name__ == "__main__":
    main()
