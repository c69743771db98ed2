"""One 28 x 28 image through a packaged network on one core: onnxruntime against JAX with expanded filters.

    python -m benchmarks.onnx_speed

Interleaved rounds of 50 calls each; medians.  Both are given NumPy arrays and give NumPy arrays back.
"""

import os
import statistics
import tempfile
import time

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before either starts its threads

import jax
import numpy as np
import onnxruntime
from flax import nnx

import fconv_jax as fc

NAME, CALLS, ROUNDS = "lenet_fconv_invariant_mnist_5k", 50, 9


def main():
    """Prints milliseconds of each and the ratio."""
    model = fc.from_pretrained(NAME)
    with tempfile.TemporaryDirectory() as folder:
        fc.export.to_onnx(model, f"{folder}/model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
    graph, state = nnx.split(fc.expand_filters(model))
    call = jax.jit(lambda state, images: nnx.merge(graph, state)(images))
    image = np.random.default_rng(0).uniform(size=(1, 28, 28, 1)).astype(np.float32)
    ways = {
        "onnxruntime": lambda: session.run(None, {"images": image})[0],
        "JAX": lambda: np.asarray(call(state, image)),
    }
    first = {name: way() for name, way in ways.items()}
    difference = np.abs(first["onnxruntime"] - first["JAX"]).max() / np.abs(first["JAX"]).max()
    seconds = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                way()
            seconds[name].append((time.perf_counter() - start) / CALLS)
    onnx, jax_time = (1e3 * statistics.median(values) for values in seconds.values())
    print(f"{NAME}: onnxruntime {onnx:.2f} ms, JAX {jax_time:.2f} ms an image: {jax_time / onnx:.2f} times as fast; "
          f"logits differ by {difference:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
