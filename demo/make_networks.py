"""Writes what the page needs of Python: both networks in ONNX, their curves, and ten digits to pick.

    python -m demo.make_networks

The networks are packaged ones, both trained on upright digits; the curves are those of these seeds, measured as by
`python -m experiments.evaluate RUN_DIR --angles`.  Needs `pip install onnx`; two minutes on a 2-core CPU.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from flax import nnx
from onnx import helper, numpy_helper

import fconv_jax as fc
from experiments.data.sources import read_embedded
from experiments.reporting.exporting import metadata
from experiments.runs.best import ANGLES, rotated
from experiments.settings import DATASETS

NETWORKS = {"plain": "setting1_lenet_mnist_5k", "invariant": "setting1_lenet_fconv_invariant_mnist_5k"}
"""Names in the page to those of packaged weights."""
ORDER = 8
"""Of the group of the invariant network."""
_EXACT = 1e-6  # of the largest weight: rounding of float32
_TOGETHER = 250  # digits answered at once


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser("demo.make_networks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("networks"), help="default: %(default)s"
    )
    options = parser.parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    images, labels = read_embedded(DATASETS["mnist_5k"])["test"]
    curves = {}
    for name, weights in NETWORKS.items():
        model = fc.from_pretrained(weights)
        write_network(model, options.output / f"{name}.onnx", metadata(fc.pretrained.read_config(weights)))
        curves[name] = {"weights": weights, "angle": list(ANGLES), "accuracy": accuracies(model, images, labels)}
    samples = [{"label": label, "pixels": first(images, labels, label).tolist()} for label in range(10)]
    text = json.dumps({"curves": curves, "samples": samples}, separators=(",", ":"))
    (options.output / "data.json").write_text(text + "\n")
    for path in sorted(options.output.iterdir()):
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def first(images: np.ndarray, labels: np.ndarray, label: int) -> np.ndarray:
    """The first image of a class, uint8 `[784]`."""
    return images[np.flatnonzero(labels == label)[0]].reshape(-1)


def accuracies(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> list[float]:
    """The share of uint8 images `[n, 28, 28]` named rightly, at each of `ANGLES`."""
    graph, state = nnx.split(fc.expand_filters(model))
    answer = jax.jit(lambda state, images: nnx.merge(graph, state)(images.astype(jnp.float32) / 255).argmax(-1))
    found = []
    for angle in ANGLES:
        at_angle = rotated(images.reshape(-1, 28, 28, 1), angle)
        parts = [answer(state, at_angle[i : i + _TOGETHER]) for i in range(0, len(labels), _TOGETHER)]
        found.append(round(float(np.mean(np.concatenate(parts) == labels)), 4))
    return found


def write_network(model: nnx.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes a network in ONNX, the kernels of its group convolutions as coefficients (`shrink`)."""
    fc.export.to_onnx(model, path, (28, 28, 1), metadata=metadata)
    network = onnx.load(path)
    shrink(network.graph)
    onnx.checker.check_model(network)
    onnx.save(network, path)


def shrink(graph: onnx.GraphProto, order: int = ORDER) -> list[str]:
    """Replaces kernels that are one kernel moved by each element of C_t; returns their names.

    A kernel `W[o, m, a, n]` of k x k pixels, o and a the group's elements, is of a group convolution if there are
    functions `B[o]` and coefficients c with

        W[o, m, a, n] = sum_r B[o, r] c[a - o, m, n, r].

    The graph gets B and c, t k^2 / rank times smaller, and four nodes that make W of them: onnxruntime runs these once,
    when it loads the file.  B and c are found by a singular value decomposition of W[0].  Other kernels stay.
    """
    kernels = [x for x in graph.initializer if len(x.dims) == 4 and not any(size % order for size in x.dims[:2])]
    replaced = []
    for tensor in kernels:
        found = _factors(numpy_helper.to_array(tensor), order)
        if found is None:
            continue
        graph.initializer.remove(tensor)
        nodes, constants = _expansion(tensor.name, tuple(tensor.dims), *found)
        graph.initializer.extend(constants)
        for node in reversed(nodes):
            graph.node.insert(0, node)
        replaced.append(tensor.name)
    return replaced


def _factors(kernel, order):
    """(B `[t, r, k k]`, c `[t, m, n, r]`), or `None`."""
    out, into, height, width = kernel.shape
    whole = kernel.astype(np.float64).reshape(order, out // order, order, into // order, height * width)
    moved = [np.roll(whole[o].swapaxes(0, 1), -o, axis=0) for o in range(order)]  # [a - o, m, n, k k]
    rows = [x.reshape(-1, height * width) for x in moved]
    left, values, right = np.linalg.svd(rows[0], full_matrices=False)
    rank = int(np.sum(values > 1e-5 * values[0]))
    coefficients = left[:, :rank] * values[:rank]
    functions = np.stack([right[:rank], *(np.linalg.lstsq(coefficients, x, rcond=None)[0] for x in rows[1:])])
    most = max(np.abs(coefficients @ b - x).max() for b, x in zip(functions, rows, strict=True))
    if most > _EXACT * np.abs(whole).max():
        return None
    return functions.astype(np.float32), coefficients.reshape(*moved[0].shape[:-1], rank).astype(np.float32)


def _expansion(name, shape, functions, coefficients):
    """The nodes that make a kernel, and their constants."""
    order = len(functions)
    o, a = np.ogrid[:order, :order]
    constants = {
        "coefficients": coefficients,
        "elements": (a - o) % order,
        "functions": functions[:, None, None],
        "shape": np.array(shape, np.int64),
    }
    names = {key: f"{name}.{key}" for key in (*constants, "gathered", "moved", "ordered")}
    nodes = [
        helper.make_node("Gather", [names["coefficients"], names["elements"]], [names["gathered"]], axis=0),
        helper.make_node("MatMul", [names["gathered"], names["functions"]], [names["moved"]]),
        helper.make_node("Transpose", [names["moved"]], [names["ordered"]], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", [names["ordered"], names["shape"]], [name]),
    ]
    return nodes, [numpy_helper.from_array(np.asarray(x), names[key]) for key, x in constants.items()]


if __name__ == "__main__":
    sys.exit(main())
