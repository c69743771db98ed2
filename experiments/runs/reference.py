"""Checkpoints of the PyTorch reference as runs' folders."""

from pathlib import Path

import jax
import numpy as np
from flax import nnx

import fconv_jax
from experiments.rules import InputError
from experiments.runs import config as configs
from experiments.runs import folder as folders
from experiments.runs.best import write_best
from experiments.settings import RunConfig
from experiments.training.network import build


def convert(checkpoint: Path, model_name: str, output: Path) -> None:
    """Writes the folder, or nothing.

    Raises:
      InputError: a checkpoint that cannot be read or does not fit the network, or a folder that is not empty.
    """
    folders.check(output, resume=False, overwrite=False)
    network = build(model_name)
    model = network.create(rngs=nnx.Rngs(0))
    try:
        fconv_jax.load_reference_weights(model, fconv_jax.read_reference_checkpoint(checkpoint))
    except ValueError as error:
        raise InputError(f"{checkpoint}: {' '.join(str(error).split())}") from error
    _, params, rest = nnx.split(model, nnx.Param, ...)
    arrays = {"params": nnx.to_pure_dict(params), "stats": nnx.to_pure_dict(rest)}
    arrays = jax.tree.map(lambda x: np.asarray(x)[None], arrays)
    # Not trained here: no data set of ours, no epoch; evaluate then asks for data as `run` does.
    config = RunConfig(model_name, 1, "auto", 0, (0,), 0, 1, 0.0, "report", "float32", "auto")
    with folders.locked(output):
        configs.write(output, config, "")
        write_best(output, config, network, arrays, [0])
