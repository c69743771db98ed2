"""Training speed of one network, five seeds at once, against another checkout of this repository.

    git worktree add ../before df6a010
    python -m benchmarks.against_checkout ../before --model lenet_fconv_invariant --batch-size 16

Each measurement is a process of its own that starts in one of the two; they alternate, and the median of the rounds'
ratios counts.  It knows the modules of version 0.1 as well.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments.training.devices import cpu_and_cores

PROCESS = """
import sys, time
model, batch_size, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
try:
    from experiments.training import devices
except ImportError:  # version 0.1
    from experiments import backends as devices
devices.configure(model, 5)
import jax
try:
    from experiments.training.network import build
    from experiments.training.programs import Programs
    layout = devices.layout
except ImportError:
    from experiments.trainer import Trainer as Programs
    from experiments.training import build
    layout = devices.plan
from experiments.data import load
network, seeds = build(model), tuple(range(5))
how = layout(model, 5, batch_size, has_stats=network.has_stats)
programs = Programs(network, how, seeds, (), batch_size=batch_size, learning_rate=1e-3)
data = programs.place(load("mnist_5k", 1, splits=("train",))["train"])
states, orders, steps = programs.init(), programs.orders(data, 0), -1
while steps < 1 or time.monotonic() - began < seconds:
    states, losses, _ = programs.steps(states, orders, data, 0, 0, 1)
    jax.block_until_ready(losses)
    steps += 1
    began = time.monotonic() if steps == 0 else began
print("IMAGES", 5 * batch_size * steps / (time.monotonic() - began))
"""


def main() -> None:
    """Measures alternately and writes what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="folder of the other checkout")
    parser.add_argument("--model", default="lenet_fconv_invariant")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/against_checkout.json"))
    options = parser.parse_args()
    commit = subprocess.check_output(["git", "-C", options.checkout, "rev-parse", "--short", "HEAD"], text=True).strip()
    speeds = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        for side, folder in (("theirs", options.checkout), ("ours", Path.cwd())):
            speeds[side].append(images_per_second(folder, options.model, options.batch_size))
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["theirs"], strict=True)]
    contents = {"model": options.model, "batch_size": options.batch_size, "commit": commit}
    contents["command"] = f"python -m benchmarks.against_checkout CHECKOUT --model {options.model}"
    contents["command"] += f" --batch-size {options.batch_size} --rounds {options.rounds}"
    contents |= {"device": cpu_and_cores(), "images_per_second": speeds}
    contents["ratio"] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    print(contents["images_per_second"], contents["ratio"])
    options.output.write_text(json.dumps(contents, indent=1) + "\n")


def images_per_second(folder: Path, model: str, batch_size: int, seconds: float = 8.0) -> float:
    """Images a second in a checkout, without compilation."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(PROCESS)
        file.flush()
        command = [sys.executable, file.name, model, str(batch_size), str(seconds)]
        environment = os.environ | {"PYTHONPATH": str(folder.resolve())}
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    return float(done.split("IMAGES")[1])


if __name__ == "__main__":
    main()
