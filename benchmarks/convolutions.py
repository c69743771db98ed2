"""Which way of convolving is the fastest on a CPU, shape by shape: what `fconv_jax/_convolve_cpu.py` goes by.

    python -m benchmarks.convolutions

For each shape, GFLOP/s of XLA's own convolution forward, of its input's gradient and of its kernel's gradient as
jax writes them, and of the kernel's gradient in the canonical layout; then the forward pass and the kernel's gradient
inside of a `lax.scan`, in the settings "direct", "auto" and "loops".  Each figure is the best
of a few calls.
"""

import argparse
import functools
import json
import platform
import time
from pathlib import Path

import jax
import jax.numpy as jnp

import fconv_jax as fc
from experiments.runs.results import commit
from experiments.training.devices import cpu_and_cores
from fconv_jax import _convolve_cpu as cpu

IN_A_LOOP = 8
"""At most so many images are convolved there: XLA's own way takes seconds for them."""

SHAPES = (  # batch, size, kernel size, input and output channels, strides
    (64, 24, 5, 80, 80, 1),
    (64, 13, 5, 80, 80, 1),
    (256, 24, 5, 80, 80, 1),
    (64, 24, 5, 80, 16, 1),
    (64, 24, 5, 80, 64, 1),
    (64, 24, 5, 80, 128, 1),
    (16, 32, 3, 128, 128, 1),
    (8, 64, 3, 64, 64, 1),
    (8, 32, 3, 32, 32, 1),
    (1, 256, 3, 16, 16, 1),
    (64, 14, 7, 64, 96, 1),
    (16, 7, 5, 192, 256, 1),
    (8, 32, 11, 16, 16, 1),
    (64, 28, 9, 1, 64, 1),
    (256, 28, 5, 1, 16, 1),
    (64, 14, 3, 192, 384, 1),
    (32, 16, 1, 128, 128, 1),
    (32, 32, 3, 64, 128, 2),
    (32, 32, 4, 64, 128, 2),
    (8, 4, 7, 32, 32, 1),
)


def main() -> None:
    """Prints a row for each shape and writes them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/convolutions.json"))
    options = parser.parse_args()
    contents = {"command": "python -m benchmarks.convolutions"}
    contents |= {"device": cpu_and_cores(), "commit": commit()}
    contents |= {"versions": {"python": platform.python_version(), "jax": jax.__version__}, "rows": []}
    for shape in SHAPES:
        contents["rows"].append(measure(*shape))
        print(line(contents["rows"][-1]), flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(contents, indent=1) + "\n")


def measure(batch: int, size: int, k: int, inputs: int, outputs: int, strides: int) -> dict:
    """GFLOP/s of each way for one shape, and of a matrix product."""
    width = (k - 1) // 2
    x = jax.random.normal(jax.random.key(0), (batch, size, size, inputs))
    kernel = jax.random.normal(jax.random.key(1), (k, k, inputs, outputs)) / k
    direct = functools.partial(cpu.direct, strides=strides, width=width)
    canonical = functools.partial(cpu.along_kernel, strides=strides, width=width)
    y = direct(x, kernel)
    matrix = jax.random.normal(jax.random.key(2), (2048, 2048))

    def gradient(way):
        transpose = jax.linear_transpose(lambda kernel: way(x, kernel), kernel)
        return jax.jit(lambda y: transpose(y)[0]).lower(y).compile()

    some = x[:IN_A_LOOP]
    share = len(some) / batch

    def looped(algorithm):
        def step(kernel, x):
            def loss(kernel):
                return jnp.sum(jnp.tanh(fc.convolve(x, kernel, strides=strides, padding=width)))

            return kernel - 1e-6 * jax.grad(loss)(kernel), None

        with fc.convolution_algorithm(algorithm):
            return jax.jit(lambda x: jax.lax.scan(step, kernel, x[None])[0]).lower(some).compile()

    ways = {
        "forward": (jax.jit(direct).lower(x, kernel).compile(), (x, kernel), 1),
        "input": (jax.jit(lambda y: jax.vjp(lambda x: direct(x, kernel), x)[1](y)[0]).lower(y).compile(), (y,), 1),
        "kernel": (gradient(direct), (y,), 1),
        "kernel, canonical": (gradient(canonical), (y,), 1),
        "in a loop, direct": (looped("direct"), (some,), 2 * share),
        "in a loop, auto": (looped("auto"), (some,), 2 * share),
        "in a loop, loops": (looped("loops"), (some,), 2 * share),
    }
    operations = 2 * y.size * k * k * inputs
    row = {"shape": [batch, size, k, inputs, outputs, strides]}
    row["product"] = 2 * 2048**3 / best(jax.jit(jnp.matmul).lower(matrix, matrix).compile(), (matrix, matrix)) / 1e9
    row |= {name: times * operations / best(way, arguments) / 1e9 for name, (way, arguments, times) in ways.items()}
    return row


def best(call, arguments, seconds: float = 0.3) -> float:
    """The shortest of some calls."""
    jax.block_until_ready(call(*arguments))
    times = []
    while not times or (sum(times) < seconds and len(times) < 50):
        started = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        times.append(time.perf_counter() - started)
    return min(times)


def line(row: dict) -> str:
    """A row of a Markdown table."""
    batch, size, k, inputs, outputs, strides = row["shape"]
    cells = [f"{k} x {k}, {inputs} -> {outputs}" + (", stride 2" if strides == 2 else ""), f"{size} px, {batch}"]
    cells += [f"{value:.0f}" for name, value in row.items() if name != "shape"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
