"""Converts a trained network of the PyTorch reference into a run's folder that `experiments.evaluate` loads.

python -m experiments.convert SimpleNet_Model_best.pt --model fconv_mnist_simple --output checkpoints/simple
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arguments, backends, folders
from experiments.arguments import InputError
from experiments.settings import RunConfig


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m experiments.convert", description=__doc__.splitlines()[0])
    result.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a .npz, or a .pt (needs fconv_jax[torch])")
    arguments.add_model_option(result, required=True)
    result.add_argument("--output", metavar="RUN_DIR", type=Path, required=True, help="an empty or new folder")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    command = parser()
    options = command.parse_args(sys.argv[1:] if argv is None else list(argv))
    backends.configure(options.model)
    from experiments import session  # imports jax, after its flags are set

    return session.guarded(command, lambda: convert(options.checkpoint, options.model, options.output))


def convert(checkpoint: Path, model_name: str, output: Path) -> None:
    """Writes the folder, or nothing.

    Raises:
      InputError: a checkpoint that cannot be read or does not fit the network, or a folder that is not empty.
    """
    import jax
    import numpy as np
    from flax import nnx

    import fconv_jax
    from experiments import training
    from experiments.cell import write_best

    folders.check(output, resume=False, overwrite=False)
    network = training.build(model_name)
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
        folders.write_config(output, config, "")
        write_best(output, config, network, arrays, [0])
    print(f"saved in {output}/: python -m experiments.evaluate {output} tests it")


if __name__ == "__main__":
    sys.exit(main())
