"""Accuracy of the authors' trained network, converted: `python -m benchmarks.converted_network CHECKPOINT`.

Loads a checkpoint of `fconv_mnist_simple` or `fconv_mnist` (`.pt` with PyTorch installed, or `.npz`) and
classifies the 5,000 embedded digits. The authors' data, rotated MNIST, holds digits transposed, so theirs
are transposed here, then rotated by an angle drawn uniformly from 0..360 degrees (cubic spline, zero outside).
Expected for `SimpleNet_Model_best.pt`: 0.987 upright and 0.989 rotated; about a minute on two cores.
"""

import argparse
import sys

import jax
import numpy as np
from flax import nnx

import fconv_jax
from experiments.data import rotate_images
from experiments.data.sources import read_embedded
from experiments.settings import DATASETS

BATCH = 500


def main() -> int:
    """Measures one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--model", default="fconv_mnist_simple", choices=("fconv_mnist_simple", "fconv_mnist"))
    parser.add_argument("--seed", type=int, default=0, help="of the angles")
    arguments = parser.parse_args()
    model = fconv_jax.models.create(arguments.model, rngs=nnx.Rngs(0))
    try:
        fconv_jax.torch_reference.load_weights(model, fconv_jax.torch_reference.read_checkpoint(arguments.checkpoint))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    images, labels = embedded_digits()
    digits = images.transpose(0, 2, 1)
    print(f"digits as they are   {accuracy(model, images, labels):.4f}")
    print(f"transposed           {accuracy(model, digits, labels):.4f}")
    angles = np.random.default_rng(arguments.seed).uniform(0.0, 360.0, len(digits))
    rotated = np.concatenate([rotate_images(digit[None], angle) for digit, angle in zip(digits, angles, strict=True)])
    print(f"transposed, rotated  {accuracy(model, rotated, labels):.4f}")
    return 0


def embedded_digits() -> tuple[np.ndarray, np.ndarray]:
    """All 5,000 digits, float32 `[5000, 28, 28]` in 0..1, and their labels."""
    images, labels = zip(*read_embedded(DATASETS["mnist_5k"]).values(), strict=True)
    return np.concatenate(images).astype(np.float32) / 255.0, np.concatenate(labels)


def accuracy(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Returns the part of the images that the model reads right, in evaluation mode."""
    model.eval()
    graph, state = nnx.split(model)
    classify = jax.jit(lambda state, x: nnx.merge(graph, state)(x).argmax(-1))
    guesses = [classify(state, images[i : i + BATCH, ..., None]) for i in range(0, len(images), BATCH)]
    return float(np.mean(np.concatenate(guesses) == labels))


if __name__ == "__main__":
    sys.exit(main())
