"""The ratios that matter, in under two minutes: run it before and after a change to the library's convolutions.

    python -m benchmarks.quick

Ours against `nnx.Conv` of the same channels (steps, compilation, memory of the compiled step) and the kernel's gradient
against one matrix product of the same machine.  Rounds are interleaved and medians of ratios printed; a ratio above 1
means that ours is faster, or needs less.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

import fconv_jax as fc
from experiments.runs.results import commit
from experiments.training.devices import cpu_and_cores
from fconv_jax.basis import REFERENCE

STACKS = {
    "6 layers 3x3, 8 x 4 channels, 32 px, batch 8": (6, 3, 8, 4, 32, 8),
    "6 layers 3x3, 8 x 8 channels, 64 px, batch 4": (6, 3, 8, 8, 64, 4),
    "1 layer 3x3, 16 x 8 channels, 32 px, batch 16": (1, 3, 16, 8, 32, 16),
    "2 layers 5x5, 8 x 10 channels, 24 px, batch 64": (2, 5, 8, 10, 24, 64),
    "20 layers 3x3, 8 x 8 channels, 32 px, batch 8": (20, 3, 8, 8, 32, 8),
}
"""Layers, kernel size, rotations, features, size of the image, batch."""

RESNET = "ResNet-18 of 4 x 8 channels, 32 px, batch 8, against XLA's convolution"

GRADIENTS = ((64, 24, 5, 80, 80), (64, 13, 5, 80, 80), (16, 32, 3, 128, 128))
"""Batch, size, kernel size, input and output channels."""


class Stack(nnx.Module):
    """Convolution, batch norm and ReLU, some times over; ours on fields, or `nnx.Conv` of the same channels."""

    def __init__(self, kind: str, layers: int, kernel_size: int, rotations: int, features: int):
        rngs = nnx.Rngs(0)
        sizes, channels = (features, features, kernel_size, rotations), rotations * features
        if kind == "ours":
            convs = [fc.GroupFConv(*sizes, basis=REFERENCE, rngs=rngs) for _ in range(layers)]
        else:
            convs = [nnx.Conv(channels, channels, (kernel_size,) * 2, rngs=rngs) for _ in range(layers)]
        self.convs = nnx.List(convs)
        self.norms = nnx.List([nnx.BatchNorm(features if kind == "ours" else channels, rngs=rngs) for _ in convs])

    def __call__(self, x: jax.Array) -> jax.Array:
        """The same shape."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return x


class ResNet(nnx.Module):
    """The layout of ResNet-18 for small images: a lifting layer and eight blocks of two group layers, on C8."""

    def __init__(self, features: int = 4):
        rngs, options = nnx.Rngs(0), {"padding": 1, "use_bias": False, "basis": REFERENCE}
        widths = [features * 2**stage for stage in (0, 0, 1, 1, 2, 2, 3, 3)]
        self.lift = fc.LiftingFConv(3, features, 3, 8, **options, rngs=rngs)
        self.blocks, before = nnx.List(), features
        for width in widths:
            down = 2 if width != before else 1
            size = 4 if down == 2 else 3
            first = fc.GroupFConv(before, width, size, 8, strides=down, **options, rngs=rngs)
            second = fc.GroupFConv(width, width, 3, 8, **options, rngs=rngs)
            skip = fc.GroupFConv(before, width, 1, 8, use_bias=False, rngs=rngs) if down == 2 else None
            norms = [nnx.BatchNorm(width, rngs=rngs) for _ in range(2)]
            self.blocks.append(nnx.Dict(first=first, second=second, skip=skip, norms=nnx.List(norms)))
            before = width
        self.dense = nnx.Linear(before, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images `[batch, height, width, 3]` -> logits."""
        x = self.lift(x)
        for block in self.blocks:
            y = block.norms[1](block.second(nnx.relu(block.norms[0](block.first(x)))))
            x = nnx.relu(y + (x if block.skip is None else block.skip(fc.spatial_mean_pool(x))))
        return self.dense(fc.max_over_group(x).mean(axis=(1, 2)))


def resnet_row(rounds: int) -> dict:
    """What the library's own choices cost or bring in an ordinary network: its first call and its step."""
    x, steps, compiles, megabytes = jax.random.normal(jax.random.key(0), (8, 32, 32, 3)), {}, {}, {}
    for _ in range(2):  # the first compilation in a process is slower than all others
        for kind, algorithm in (("nnx", "direct"), ("ours", "auto")):
            with fc.convolution_algorithm(algorithm):
                steps[kind], compiles[kind], megabytes[kind] = training_step(ResNet(), x)
            jax.clear_caches()
    ratios = ratios_of_seconds(steps["nnx"], steps["ours"], rounds)
    return {"what": RESNET, "step": ratios, "compile_seconds": compiles, "megabytes": megabytes}


def training_step(model: nnx.Module, x: jax.Array):
    """A compiled step of gradient descent, its seconds of compilation and megabytes of temporaries."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def step(params, rest, x):
        def loss(params):
            model = nnx.merge(graph, params, rest, copy=True)
            return jnp.mean(model(x) ** 2), nnx.state(model, nnx.BatchStat)

        (value, rest), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient), rest, value

    started = time.perf_counter()
    compiled = jax.jit(step).lower(params, rest, x).compile()
    seconds = time.perf_counter() - started
    megabytes = compiled.memory_analysis().temp_size_in_bytes / 1e6
    return (lambda: compiled(params, rest, x)), seconds, megabytes


def stack_row(name: str, rounds: int) -> dict:
    """One stack against `nnx.Conv`."""
    layers, kernel_size, rotations, features, size, batch = STACKS[name]
    steps, compiles, megabytes = {}, {"ours": [], "nnx": []}, {}
    for again in range(2):  # the first compilation in a process is slower than all others
        for kind in ("nnx", "ours"):
            model = Stack(kind, layers, kernel_size, rotations, features)
            axes = (rotations, features) if kind == "ours" else (rotations * features,)
            x = jax.random.normal(jax.random.key(0), (batch, size, size, *axes))
            steps[kind], seconds, megabytes[kind] = training_step(model, x)
            compiles[kind] += [seconds] if again else []
            jax.clear_caches()
    ratios = ratios_of_seconds(steps["nnx"], steps["ours"], rounds)
    row = {"what": name, "step": ratios, "compile_seconds": {kind: values[0] for kind, values in compiles.items()}}
    return row | {"megabytes": megabytes}


def gradient_row(case: tuple, rounds: int) -> dict:
    """The kernel's gradient of one convolution, in units of a matrix product of as many operations."""
    batch, size, k, inputs, outputs = case
    x = jax.random.normal(jax.random.key(0), (batch, size, size, inputs))
    g = jax.random.normal(jax.random.key(1), (batch, size, size, outputs))
    kernel = jnp.zeros((k, k, inputs, outputs))
    convolve = lambda kernel: fc.convolve(x, kernel, padding=(k - 1) // 2)  # noqa: E731
    gradient = jax.jit(lambda g: jax.vjp(convolve, kernel)[1](g)[0]).lower(g).compile()
    operations = 2 * g.size * k * k * inputs
    n = 2048
    matrix = jax.random.normal(jax.random.key(2), (n, n))
    product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    scale = operations / (2 * n**3)
    ratios = ratios_of_seconds(lambda: product(matrix, matrix), lambda: gradient(g), rounds)
    return {"what": f"kernel gradient {k}x{k}, {inputs} -> {outputs}, {size} px, batch {batch}, against a product"} | {
        "step": {name: value * scale for name, value in ratios.items()}
    }


def ratios_of_seconds(theirs, ours, rounds: int, seconds: float = 0.3) -> dict:
    """Their time over ours, round by round."""
    values = []
    for call in (theirs, ours):
        jax.block_until_ready(call())
    for _ in range(rounds):
        values.append(_seconds(theirs, seconds) / _seconds(ours, seconds))
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _seconds(call, seconds):
    calls, started = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - started < seconds:
        jax.block_until_ready(call())
        calls += 1
    return (time.perf_counter() - started) / calls


def main() -> None:
    """Prints a line for each row; `--output` keeps them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    rows = []
    for name in STACKS:
        rows.append(stack_row(name, options.rounds))
        print(line(rows[-1]), flush=True)
    rows.append(resnet_row(options.rounds))
    print(line(rows[-1]), flush=True)
    for case in GRADIENTS:
        rows.append(gradient_row(case, options.rounds))
        print(line(rows[-1]), flush=True)
    if options.output:
        contents = {"command": f"python -m benchmarks.quick --rounds {options.rounds}"}
        contents |= {"device": cpu_and_cores(), "commit": commit()}
        contents |= {"versions": {"python": platform.python_version(), "jax": jax.__version__}, "rows": rows}
        options.output.write_text(json.dumps(contents, indent=1) + "\n")


def line(row: dict) -> str:
    """A row of measurements as a row of a Markdown table."""
    step = row["step"]
    cells = [row["what"], f"{step['median']:.2f}", f"{step['low']:.2f}-{step['high']:.2f}"]
    for name in ("compile_seconds", "megabytes"):
        values = row.get(name)
        cells += [f"{values['ours']:.1f} / {values['nnx']:.1f}"] if values else [""]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
