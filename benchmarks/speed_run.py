"""Seconds of training to 99 % of upright digits, and to 98 % at any angle from upright digits alone.

    python -m benchmarks.speed_run [--runs 10] [--data-dir DIR] [--split test]

As in the speed runs on CIFAR-10, each run has another seed and a fixed number of steps, chosen so that the mean over
the runs is above the bar.  Needs MNIST.  The clock starts with the images in memory, as uint8, and ends with the
trained parameters; the programs of the training are compiled before (or taken from the user's cache, where an earlier
call left them), and the seconds of that stand beside.  Networks and steps are to be chosen
with `--split validation`: 5,000 digits of the training files that no run trains on.  In the second task the network
sees the input at four angles when it is tested (`input_turns` of `InvariantFConv`), which needs no training.
"""

import argparse
import dataclasses
import functools
import json
import time
from pathlib import Path

from experiments.training import devices

ROOT = Path(__file__).parents[1] / "results"
SEED_OF_ANGLES = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, how, the bar for the mean of the runs, and the goals for their seconds: at most, aim."""

    network: str
    rotated: bool
    bar: float
    images: int
    batch_size: int
    learning_rate: float
    turns: tuple[float, ...] = (0.0,)
    goals: tuple[float, ...] = ()


TASKS = (
    Task("lenet_classic", rotated=False, bar=0.99, images=165_000, batch_size=64, learning_rate=2e-3),
    Task(
        "a small lenet_fconv_invariant",
        rotated=True,
        bar=0.98,
        images=48_000,
        batch_size=32,
        learning_rate=8e-3,
        turns=(0.0, 22.5, 45.0, 67.5),
        goals=(360.0, 120.0),
    ),
)


def create(name: str, turns: tuple[float, ...] = (0.0,)):
    """The network's builder; `turns`: the angles at which an invariant network sees its input."""
    import fconv_jax
    from fconv_jax.models.invariant import InvariantFConv, Layer

    if name in fconv_jax.models.MODELS:
        return functools.partial(fconv_jax.models.create, name)
    layers = (Layer(9, 8, 5, pool=True), Layer(5, 8, 3, pool=True), Layer(5, 16, 3), Layer(5, 16, 3))
    options = {"num_rotations": 8, "power": 16.0, "power_blur": 5, "hidden": 64, "input_turns": turns}
    return functools.partial(InvariantFConv, layers, **options)


def tested_on(task: Task, split):
    """The split's images as the task tests them: upright, or each rotated by its own angle, uniform over the circle."""
    from experiments.data import Split
    from experiments.data.rotation import rotate_each, uniform_angles

    if not task.rotated:
        return split
    angles = uniform_angles(SEED_OF_ANGLES, len(split.labels))
    return Split(rotate_each(split.images[..., 0], angles, order=3)[..., None], split.labels, split.angles)


def race(task: Task, runs: int, splits, where: str) -> dict:
    """Trains and tests: seconds and accuracy of each run."""
    import jax
    import numpy as np

    from experiments.training.network import network as network_of
    from experiments.training.network import num_parameters
    from experiments.training.programs import Programs

    network = network_of(create(task.network), label_smoothing=0.1)
    layout = devices.layout("lenet_fconv_invariant", 1, task.batch_size, has_stats=network.has_stats)
    num_steps = task.images // task.batch_size

    def programs(seed, network=network):
        options = {"batch_size": task.batch_size, "learning_rate": task.learning_rate, "schedule": "cosine"}
        return Programs(network, layout, (seed,), (), num_steps=num_steps, **options)

    def train(made, data, count):
        states, step, epoch = made.init(), 0, 0
        in_epoch = data[1].shape[0] // task.batch_size
        orders = made.orders(data, 0)
        while step < count:
            if step and step % in_epoch == 0:
                epoch += 1
                orders = made.orders(data, epoch)
            states, _, done = made.steps(states, orders, data, epoch, step % in_epoch, 1)
            step += done
        return jax.block_until_ready(states)

    started = time.monotonic()
    first = programs(0)
    data = first.place(splits["train"])
    train(first, data, 2)
    compiling = time.monotonic() - started
    test = first.place(tested_on(task, splits[where]))
    tester = first if task.turns == (0.0,) else programs(0, network_of(create(task.network, task.turns)))
    seconds, accuracy = [], []
    for seed in range(runs):
        made = programs(seed)
        made._steps, made._orders, made._init = first._steps, first._orders, first._init
        started = time.monotonic()
        states = train(made, data, num_steps)
        seconds.append(time.monotonic() - started)
        count = tester.confusion(states["params"], states["stats"], test)[0]
        accuracy.append(float(np.trace(count) / count.sum()))
        print(f"{task.network}, seed {seed}: {seconds[-1]:.1f} s, {accuracy[-1]:.4f}", flush=True)
    return {
        **dataclasses.asdict(task), "tested_on": where, "num_parameters": num_parameters(network),
        "seconds": seconds, "accuracy": accuracy, "compile_seconds": compiling,
    }  # fmt: skip


def main() -> None:
    """Runs, prints and writes results/benchmarks/speed_run.json, which keeps both splits."""
    parser = argparse.ArgumentParser("benchmarks.speed_run")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--data-dir")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--task", type=int, choices=range(len(TASKS)), help="default: all")
    options = parser.parse_args()
    devices.configure("lenet_fconv_invariant", 1)
    from experiments import data
    from experiments.runs.folder import write_json
    from experiments.runs.results import commit, versions

    splits = data.load("mnist", 1, data_dir=options.data_dir, progress=print)
    file = ROOT / "benchmarks" / "speed_run.json"
    contents = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"tasks": {}}
    command = f"python -m benchmarks.speed_run --runs {options.runs} --split {options.split}"
    origin = {"command": command, "device": devices.device_name()}
    origin |= {"commit": commit(), "versions": versions()}
    for number, task in enumerate(TASKS):
        if options.task in (None, number):
            found = race(task, options.runs, splits, options.split)
            kept = contents.setdefault("tasks" if options.split == "test" else "validation", {})
            kept[task.network] = found | origin
            mean = sum(found["accuracy"]) / options.runs
            print(f"{task.network}: mean {mean:.4f} (bar {task.bar}), {sum(found['seconds']) / options.runs:.1f} s")
            write_json(file, contents)


if __name__ == "__main__":
    main()
