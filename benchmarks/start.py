"""From the command to the first step, and the memory of a run at full size.

    python -m benchmarks.start --files DIR

The first steps are those of `experiments.run` on the embedded digits, twice: with an empty compilation cache and with
the one that the first call left.  Memory and speed at full size are those of two epochs of setting 4 (275,000 training
images, five seeds) on files in MNIST's format that are placed by hand.  Writes JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.data.files import placed_directory
from experiments.runs.results import commit
from experiments.training.devices import cpu_and_cores

# Runs a command line of experiments.run; prints when the first step was done (time.time()), and megabytes.
PROCESS = """
import resource, sys, time
from experiments import run
from experiments.training import devices
devices.configure(sys.argv[sys.argv.index("--model") + 1], 5)
from experiments.training.programs import Programs
steps, ends = Programs.steps, []
def timed(self, *args):
    states, losses, done = steps(self, *args)
    if not ends:
        losses.block_until_ready()
        ends.append(time.time())
    return states, losses, done
Programs.steps = timed
code = run.main(sys.argv[1:])
print("MEASURED", ends[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
sys.exit(code)
"""


def main() -> None:
    """Measures and writes results/benchmarks/start.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/start.json"))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "cache")
        for model in ("lenet", "lenet_fconv"):
            command = ["--setting", "1", "--model", model, "--dataset", "mnist_5k", "--epochs", "1"]
            run(root, command)  # prepares the data
            shutil.rmtree(root / "cache", ignore_errors=True)
            for cache in ("empty", "warm"):
                seconds, _, _ = run(root, command)
                rows.append({"model": model, "what": "start", "cache": cache, "seconds": seconds})
                rows[-1]["command"] = shown(command)
                print(rows[-1], flush=True)
        placed = placed_directory(root / "data", "fashion_mnist")
        placed.mkdir(parents=True)
        for file in options.files.iterdir():
            shutil.copy(file, placed)
        for model in ("lenet", "lenet_fconv"):
            command = ["--setting", "4", "--model", model, "--dataset", "fashion_mnist", "--epochs", "2"]
            _, megabytes, results = run(root, command)
            row = {"model": model, "what": "full size", "megabytes": megabytes, "command": shown(command)}
            names = ("train_images_per_second", "wall_seconds", "mean", "std")
            rows.append(row | {name: results[name] for name in names})
            print(rows[-1], flush=True)
    contents = {"command": "python -m benchmarks.start --files DIR", "rows": rows}
    contents |= {"device": cpu_and_cores(), "commit": commit()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(contents, indent=1) + "\n")


def run(root: Path, command: list[str]) -> tuple[float, float, dict]:
    """Runs a command; returns seconds to the first step, peak megabytes and its results.json."""
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    began = time.time()
    command = [sys.executable, "-c", PROCESS, *command, "--data-dir", str(root / "data"), "--output", str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    first, megabytes = map(float, done.stdout.split("MEASURED")[1].split())
    return first - began, megabytes, json.loads((out / "results.json").read_text())


def shown(command: list[str]) -> str:
    """The command as a user types it."""
    return " ".join(["python -m experiments.run", *command])


if __name__ == "__main__":
    main()
