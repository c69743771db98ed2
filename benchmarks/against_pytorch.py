"""Training and evaluation speed of the report's networks: ours, five seeds at once, against the PyTorch reference.

    python -m benchmarks.against_pytorch --reference DIR

PyTorch trains one seed after another, so its images a second are those of one seed.  The two alternate in one process,
round by round; quote the medians of the ratios, since machines are noisy.  Each network has a process
of its own, because jax reads its flags once.
"""

import argparse
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from experiments.runs.results import commit
from experiments.training import devices
from experiments.training.devices import cpu_and_cores

MODELS = ("lenet", "lenet_fconv", "alexnet", "alexnet_fconv")
BATCHES = {"lenet": (256, 4096), "lenet_fconv": (256, 4096), "alexnet": (256,), "alexnet_fconv": (256,)}
SEEDS = tuple(range(5))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--reference", type=Path, required=True, metavar="DIR", help="folder of the PyTorch reference")
    result.add_argument("--models", default=",".join(MODELS), help="default: all four")
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--output", type=Path, default=Path("results/benchmarks/against_pytorch.json"))
    result.add_argument("--worker", nargs=2, metavar=("MODEL", "BATCH"), help=argparse.SUPPRESS)
    return result


def main() -> None:
    """Runs a worker for each network and batch size, and writes what they measured."""
    options = parser().parse_args()
    if options.worker:
        print(json.dumps(measure(options.reference, options.worker[0], int(options.worker[1]), options.rounds)))
        return
    rows = []
    for model in options.models.split(","):
        for batch in BATCHES[model]:
            command = [sys.executable, "-m", "benchmarks.against_pytorch", "--reference", str(options.reference)]
            command += ["--rounds", str(options.rounds), "--worker", model, str(batch)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(line(rows[-1]), flush=True)
    command = ["python", "-m", "benchmarks.against_pytorch", "--reference", "DIR", "--models", options.models]
    contents = {"command": shlex.join([*command, "--rounds", str(options.rounds)]), "commit": commit(), "rows": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(contents, indent=1) + "\n")
    print(f"saved in {options.output}")


def line(row: dict) -> str:
    """A row of measurements as a row of a Markdown table."""
    cells = [row["model"], str(row["batch_size"])]
    for kind in ("train", "evaluate"):
        ours, theirs, ratio = (row[kind][name] for name in ("ours", "pytorch", "ratio"))
        cells += [f"{ours:,.0f}", f"{theirs:,.0f}", f"{ratio:.2f}", f"{row[kind]['low']:.2f}-{row[kind]['high']:.2f}"]
    return "| " + " | ".join([*cells, f"{row['peak_gflops']:.0f}"]) + " |"


def measure(reference: Path, model: str, batch_size: int, rounds: int) -> dict:
    """Times both sides alternately: images a second in training and evaluation, and the matrix-product peak."""
    devices.configure(model, len(SEEDS))
    import jax
    import torch

    data = _digits(max(batch_size, 1000))  # as many as the test images of mnist_5k
    sides = {"pytorch": _pytorch(reference, model, batch_size, data), "ours": _ours(model, batch_size, data)}
    row = {"model": model, "batch_size": batch_size, "rounds": rounds, "peak_gflops": _peak(torch)}
    for kind in ("train", "evaluate"):
        speeds = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                time.sleep(0.3)  # the other side's threads spin for a while
                speeds[name].append(_images_per_second(side[kind]))
        ratios = [a / b for a, b in zip(speeds["ours"], speeds["pytorch"], strict=True)]
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        row[kind] = {**medians, "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    row["versions"] = {"python": platform.python_version(), "jax": jax.__version__, "torch": torch.__version__}
    row["device"] = cpu_and_cores()
    return row


def _images_per_second(work, seconds: float = 3.0) -> float:
    """`work` does some images and returns their number; repeated for about `seconds`."""
    images, began = 0, time.monotonic()
    while images == 0 or time.monotonic() - began < seconds:
        images += work()
    return images / (time.monotonic() - began)


def _digits(count):
    from experiments.data import Split, load

    train = load("mnist_5k", 1, splits=("train",))["train"]
    rows = np.arange(count) % len(train.labels)
    return Split(train.images[rows], train.labels[rows], train.angles[rows])


def _ours(model, batch_size, split):
    import jax

    from experiments.training.network import build
    from experiments.training.programs import Programs

    network = build(model)
    plan = devices.layout(model, len(SEEDS), batch_size)
    trainer = Programs(network, plan, SEEDS, (), batch_size=batch_size, learning_rate=2e-4)
    data = trainer.place(split)
    held = {"states": trainer.init(), "orders": trainer.orders(data, 0)}

    def train():
        held["states"], losses, _ = trainer.steps(held["states"], held["orders"], data, 0, 0, 1)
        jax.block_until_ready(losses)
        return batch_size * len(SEEDS)

    def evaluate():
        trainer.confusion(held["states"]["params"], held["states"]["stats"], data)
        return len(split.labels) * len(SEEDS)

    train(), evaluate()  # compile
    return {"train": train, "evaluate": evaluate}


def _pytorch(reference, model, batch_size, split):
    import torch

    from benchmarks import train_reference as theirs

    network = theirs.network_builder(reference, model)()
    tensors = theirs.Tensors.of(split)
    batch = theirs.Tensors(tensors.images[:batch_size], tensors.labels[:batch_size])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)

    def train():
        theirs.train_epoch(network, optimizer, batch, batch_size)
        return batch_size

    def evaluate():
        theirs.predict(network, tensors.images)
        return len(tensors.labels)

    train(), evaluate()  # warm up
    return {"train": train, "evaluate": evaluate}


def _peak(torch, size=2048, rounds=5):
    """The machine's matrix-product peak, GFLOP/s of float32."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    torch.mm(a, b)
    times = []
    for _ in range(rounds):
        began = time.monotonic()
        torch.mm(a, b)
        times.append(time.monotonic() - began)
    return 2 * size**3 / min(times) / 1e9


if __name__ == "__main__":
    main()
