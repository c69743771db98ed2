"""The filter bases that a checkpoint's coefficients are expressed in: a short digest, and whether it is ours."""

from pathlib import Path

import numpy as np
from flax import nnx

from experiments.runs.checkpoints import CheckpointError

# Bases of two machines differ by rounding only; another basis differs by much more.
_BASIS_TOLERANCE, _SKETCH_TOLERANCE = 1e-5, 1e-6
_SKETCH_NUMBERS = 8


def basis_record(model) -> dict:
    """Returns a short digest of the bases that a model's coefficients are expressed in, {layer: digest}.

    A sha256 would change with the last bit, which depends on the machine. The digest of the n values b is their shape
    and sums that another basis changes and rounding does not, with fixed random signs s:

        sketch_i = sum_j s_ij b_j / sqrt(n),    i = 1 .. 8.
    """
    return {name: _sketch(values) for name, values in _bases(model).items()}


def check_basis(folder: Path, saved: dict, model) -> None:
    """Checks that coefficients saved with `basis_record` mean the same filters here.

    Checkpoints of before there were digests hold the bases themselves, as nested lists.

    Raises:
      CheckpointError: another basis.
    """
    here = _bases(model)
    if set(saved) != set(here) or not all(_is_same(saved[name], here[name]) for name in here):
        raise CheckpointError(f"{folder}: saved with another filter basis; use the version of fconv_jax that saved it")


def _bases(model):
    layers = ((".".join(map(str, path)), module) for path, module in nnx.iter_modules(model))
    return {name: module.fourier_basis.values for name, module in layers if hasattr(module, "fourier_basis")}


def _is_same(saved, values):
    tolerance = _BASIS_TOLERANCE
    if isinstance(saved, dict):
        if list(saved["shape"]) != list(values.shape):
            return False
        saved, values, tolerance = saved["sketch"], _sketch(values)["sketch"], _SKETCH_TOLERANCE
    return np.shape(saved) == np.shape(values) and np.allclose(saved, values, rtol=0, atol=tolerance)


def _sketch(values):
    # Philox's output is fixed for ever; 64 signs a number.
    words = np.random.Philox(key=0).random_raw(-(-_SKETCH_NUMBERS * values.size // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8))[: _SKETCH_NUMBERS * values.size]
    signs = 1.0 - 2.0 * bits.reshape(_SKETCH_NUMBERS, values.size)
    sketch = signs @ np.asarray(values, np.float64).reshape(-1) / np.sqrt(values.size)
    return {"shape": list(values.shape), "sketch": sketch.tolist()}
