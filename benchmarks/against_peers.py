"""Group convolutions of many channels: ours against what a user would take instead.

    python -m benchmarks.against_peers --reference DIR --torch-python PEERS/bin/python

DIR holds the `F_Conv.py` of F-Conv's authors.  Two layouts: `six` (that of `fconv_mnist_simple`: six C8 layers, 7 x 7
and then 5 x 5, 10 features, batch norm, two pools) and `invariant` (that of `lenet_fconv_invariant`).  The sides are
ours, `nnx.Conv` of the same channels, the PyTorch reference, escnn and `torch.nn.Conv2d` of the same channels.  Each
has a process of its own; they alternate in each round, on all cores, and a ratio is that of one round.
The environment of the PyTorch sides: benchmarks/requirements-peers.txt.
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
from experiments.training.devices import cpu_and_cores

LAYOUTS = {
    "six": {
        "layers": [{"features": 10, "kernel_size": 7, "padding": 1, "frequencies": 5}]
        + [
            {"features": 10, "kernel_size": 5, "padding": padding, "frequencies": 4, "pool": pool}
            for padding, pool in ((2, "max"), (2, None), (2, "max"), (2, None), (1, None))
        ],
        "disk": False,
        "power": None,
    },
    "invariant": {
        "layers": [
            {"features": 8, "kernel_size": 9, "padding": 4, "frequencies": 5, "pool": "blur"},
            {"features": 12, "kernel_size": 7, "padding": 3, "frequencies": 4, "pool": "blur"},
            {"features": 24, "kernel_size": 5, "padding": 2, "frequencies": 3},
            {"features": 32, "kernel_size": 5, "padding": 2, "frequencies": 3},
        ],
        "disk": True,
        "power": 16.0,
    },
}
MODELS = {"six": "fconv_mnist_simple", "invariant": "lenet_fconv_invariant"}
JAX_SIDES, TORCH_SIDES = ("ours", "nnx"), ("reference", "escnn", "plain")
KINDS = ("train", "evaluate", "evaluate_expanded")


def main() -> None:
    """Runs the sides alternately and writes what they measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, metavar="DIR", help="folder with F_Conv.py")
    parser.add_argument("--torch-python", required=True, metavar="PYTHON", help="of the PyTorch environment")
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--batches", default="16,64,256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/against_peers.json"))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return
    rows, built = [], {}
    for layout in options.layouts.split(","):
        sides = {name: Side(name, layout, options) for name in JAX_SIDES + TORCH_SIDES}
        built[layout] = {name: side.build_seconds for name, side in sides.items()}
        for kind in KINDS:
            if kind == "evaluate_expanded":
                for side in sides.values():
                    side.ask(kind="export")
            for batch in map(int, options.batches.split(",")):
                rows.append(measure(sides, layout, kind, batch, options))
                print(line(rows[-1]), flush=True)
        for side in sides.values():
            side.close()
    command = f"python -m benchmarks.against_peers --reference DIR --torch-python PYTHON --layouts {options.layouts}"
    command += f" --batches {options.batches} --rounds {options.rounds} --seconds {options.seconds:g}"
    contents = {"command": command, "device": cpu_and_cores()}
    contents |= {"commit": commit(), "build_seconds": built, "rows": rows}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(contents, indent=1) + "\n")
    print(f"saved in {options.output}")


class Side:
    """A worker process that measures when asked, and sleeps meanwhile."""

    def __init__(self, name: str, layout: str, options):
        if name in JAX_SIDES:
            command = [sys.executable, "-m", "benchmarks.against_peers", "--reference", "-", "--torch-python", "-"]
            command += ["--worker", name, layout]
        else:
            command = [options.torch_python, "benchmarks/torch_peers.py", "--side", name]
            command += ["--layout", json.dumps(LAYOUTS[layout]), "--reference", str(options.reference)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.build_seconds = json.loads(self.process.stdout.readline())["build_seconds"]

    def ask(self, **command) -> dict:
        """One command and its answer."""
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def measure(sides: dict, layout: str, kind: str, batch: int, options) -> dict:
    """One row: each side's images a second, and medians of our ratio to each."""
    speeds = {name: [] for name in sides}
    first = {}
    for number in range(options.rounds):
        for name, side in sides.items():
            time.sleep(0.1)  # threads of the last one spin for a while
            answer = side.ask(kind=kind.split("_")[0], batch=batch, seconds=options.seconds)
            speeds[name].append(answer["images_per_second"])
            if number == 0:
                first[name] = answer["first_seconds"]
    ratios = {}
    for name in sides:
        values = [a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)]
        ratios[name] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    row = {"layout": layout, "kind": kind, "batch": batch, "images_per_second": medians, "ratios": ratios}
    return row | {"first_call_seconds": first}


def line(row: dict) -> str:
    """A row of measurements as a row of a Markdown table."""
    cells = [row["layout"], row["kind"].replace("_", " "), str(row["batch"])]
    cells += [f"{row['images_per_second'][name]:,.0f}" for name in JAX_SIDES + TORCH_SIDES]
    cells += [f"{row['ratios'][name]['median']:.2f}" for name in (*JAX_SIDES[1:], *TORCH_SIDES)]
    return "| " + " | ".join(cells) + " |"


def work(side: str, layout: str) -> None:
    """A worker with jax: builds the network, then answers commands until standard input ends."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    started = time.perf_counter()
    network = Network(side, layout)
    print(json.dumps({"build_seconds": time.perf_counter() - started}), flush=True)
    for text in sys.stdin:
        command = json.loads(text)
        if command["kind"] == "export":
            network.export()
            print(json.dumps({}), flush=True)
        else:
            print(json.dumps(network.measure(command)), flush=True)


class Network:
    """One network in jax, as a user trains it: `nnx.Optimizer` and `nnx.jit`, nothing of `experiments`."""

    def __init__(self, side: str, layout: str):
        import jax
        import optax
        from flax import nnx

        import fconv_jax

        if side == "ours":
            self.model = fconv_jax.models.create(MODELS[layout], rngs=nnx.Rngs(0))
        else:
            from benchmarks.plain_networks import PlainStack

            self.model = PlainStack(LAYOUTS[layout], rngs=nnx.Rngs(0))
        self.optimizer = nnx.Optimizer(self.model, optax.adam(1e-3), wrt=nnx.Param)
        jax.block_until_ready(nnx.state(self.model))

        def loss(model, images, labels):
            logits = model(images, rngs=jax.random.key(0))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        @nnx.jit
        def step(model, optimizer, images, labels):
            value, gradient = nnx.value_and_grad(loss)(model, images, labels)
            optimizer.update(model, gradient)
            return value

        self.step, self.apply = step, nnx.jit(lambda model, images: model(images))

    def export(self) -> None:
        """The quickest network for use that the library makes."""
        import fconv_jax

        self.model.eval()
        self.model = fconv_jax.expand_filters(self.model)

    def measure(self, command: dict) -> dict:
        """Images a second, and the seconds of the first call, compilation included."""
        import jax
        import jax.numpy as jnp

        batch = command["batch"]
        images, labels = jax.random.uniform(jax.random.key(0), (batch, 28, 28, 1)), jnp.arange(batch) % 10
        if command["kind"] == "train":
            self.model.train()
            call = lambda: self.step(self.model, self.optimizer, images, labels)  # noqa: E731
        else:
            self.model.eval()
            call = lambda: self.apply(self.model, images)  # noqa: E731
        started = time.perf_counter()
        jax.block_until_ready(call())
        first, steps, started = time.perf_counter() - started, 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - started < command["seconds"]:
            jax.block_until_ready(call())
            steps += 1
        return {"first_seconds": first, "images_per_second": steps * batch / (time.perf_counter() - started)}


if __name__ == "__main__":
    main()
