"""How the training speed depends on seeds, devices, rotations and kernel size, and how long networks take to build.

    python -m benchmarks.scaling

Each row is measured in a process of its own (jax reads its flags once), the rows of one question alternately,
`--rounds` times; the medians count, and the range of the rounds is kept.  Writes JSON and a plot.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from experiments.runs.results import commit
from experiments.training import devices
from experiments.training.devices import cpu_and_cores

QUESTIONS = {
    "model": [{"model": name, "seeds": 1} for name in ("alexnet", "alexnet_fconv")],
    "seeds": [{"model": "lenet_fconv", "seeds": n} for n in (1, 2, 5, 10)],
    "devices": [{"model": "lenet_fconv", "devices": n} for n in (1, 2)],
    "rotations": [{"model": "lenet_fconv", "rotations": n} for n in (4, 8, 12, 16)],
    "kernel_size": [{"model": "lenet_fconv", "kernel_size": n} for n in (3, 5, 7)],
}
PLOTTED = ("seeds", "devices", "rotations", "kernel_size")
BUILT = ("lenet", "lenet_fconv", "alexnet", "alexnet_fconv")


def main() -> None:
    """Runs a worker for each row and writes what they measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/scaling.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(json.loads(options.worker))))
        return
    contents = {"command": f"python -m benchmarks.scaling --rounds {options.rounds}"}
    contents |= {"device": cpu_and_cores(), "commit": commit(), "rows": []}
    for question, rows in QUESTIONS.items():
        speeds = [[] for _ in rows]
        for _ in range(options.rounds):
            for row, measured in zip(rows, speeds, strict=True):
                measured.append(_worker(row)["images_per_second"])
        for row, measured in zip(rows, speeds, strict=True):
            value = {"question": question, **row, "images_per_second": statistics.median(measured)}
            value |= {"low": min(measured), "high": max(measured)}
            contents["rows"].append(value)
            print(value, flush=True)
    contents["build_seconds"] = {name: _worker({"build": name}) for name in BUILT}
    print(contents["build_seconds"])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(contents, indent=1) + "\n")
    plot(options.output.with_suffix(".png"), contents["rows"])
    print(f"saved in {options.output} and {options.output.with_suffix('.png')}")


def measure(row: dict) -> dict:
    """One row: images a second of all seeds in training (batch 256), or the seconds to build a network."""
    if "build" in row:
        return _build(row["build"])
    if row.get("devices", 1) > 1:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={row['devices']}"
    elif "devices" in row:
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    seeds = tuple(range(row.get("seeds", 5)))
    devices.configure(row["model"], len(seeds))
    import jax
    import numpy as np

    from experiments.data import load
    from experiments.training.network import build
    from experiments.training.programs import Programs

    network = build(row["model"])
    if "rotations" in row or "kernel_size" in row:
        network = _variant(network, row.get("rotations", 8), row.get("kernel_size", 5))
    trainer = Programs(
        network, devices.layout(row["model"], len(seeds), 256), seeds, (), batch_size=256, learning_rate=2e-4
    )
    data = trainer.place(load("mnist_5k", 1, splits=("train",))["train"])
    states, orders, images = trainer.init(), trainer.orders(data, 0), 0
    states, losses, _ = trainer.steps(states, orders, data, 0, 0, 1)
    np.asarray(losses)
    began = time.monotonic()
    while time.monotonic() - began < 3.0:
        states, losses, _ = trainer.steps(states, orders, data, 0, 0, 1)
        jax.block_until_ready(losses)
        images += 256 * len(seeds)

    return {"images_per_second": images / (time.monotonic() - began)}


def _variant(network, rotations, kernel_size):
    """`lenet_fconv` with another number of rotations (about 16 channels) or another kernel size."""
    import dataclasses

    from flax import nnx

    import fconv_jax
    from fconv_jax.basis import REFERENCE
    from fconv_jax.models.initial import plain_dense
    from fconv_jax.models.lenet import LeNet

    def create(*, rngs):
        model = LeNet(fconv=True, rngs=rngs)
        features = max(1, 16 // rotations)
        model.conv = fconv_jax.LiftingFConv(
            1, features, kernel_size, rotations, padding="VALID", basis=REFERENCE, rngs=rngs
        )
        size = (28 - kernel_size + 1) // 2
        model.dense1 = plain_dense(size * size * rotations * features, 120, init="report", rngs=rngs)
        return model

    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: create(rngs=nnx.Rngs(0))), nnx.Param, ...)
    return dataclasses.replace(network, graphdef=graphdef, create=create)


def _build(name):
    """Seconds to make a network with its parameters, the first time in a process and again."""
    devices.configure(name)
    import jax
    from flax import nnx

    import fconv_jax

    seconds = []
    for _ in range(4):
        began = time.monotonic()
        jax.block_until_ready(nnx.state(fconv_jax.models.create(name, rngs=nnx.Rngs(0))))
        seconds.append(time.monotonic() - began)
    return {"first": seconds[0], "again": statistics.median(seconds[1:])}


def _worker(row):
    command = [sys.executable, "-m", "benchmarks.scaling", "--worker", json.dumps(row)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def plot(path: Path, rows: list[dict]) -> None:
    """Writes one panel a question: images a second."""
    from experiments.reporting.style import pyplot, save

    figure, axes = pyplot.subplots(1, len(PLOTTED), figsize=(3 * len(PLOTTED), 3), sharey=True, layout="constrained")
    for axis, question in zip(axes, PLOTTED, strict=True):
        chosen = [row for row in rows if row["question"] == question]
        middle = [row["images_per_second"] for row in chosen]
        ends = [[row["images_per_second"] - row["low"] for row in chosen],
                [row["high"] - row["images_per_second"] for row in chosen]]  # fmt: skip
        axis.errorbar([row[question] for row in chosen], middle, ends, marker="o", capsize=3)
        axis.set(xlabel=question.replace("_", " "), xticks=[row[question] for row in chosen])
    axes[0].set_ylim(0, 1.1 * max(row["high"] for row in rows))
    axes[0].set_ylabel("images/s (lenet_fconv, batch 256)")
    save(figure, path)


if __name__ == "__main__":
    main()
