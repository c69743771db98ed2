"""Converts a trained network of the PyTorch reference into a run's folder that `experiments.evaluate` loads.

python -m experiments.convert SimpleNet_Model_best.pt --model fconv_mnist_simple --output checkpoints/simple
"""

import sys
from collections.abc import Sequence

from experiments.rules import Parser, path
from experiments.runs import config
from experiments.runs.exit_codes import guarded
from experiments.training import devices


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("convert", __doc__)
    result.add_argument("checkpoint", metavar="CHECKPOINT", type=path, help="a .npz, or a .pt (needs torch)")
    config.add_options(result, "model", required=True)
    result.add_argument("--output", metavar="RUN_DIR", type=path, required=True, help="an empty or new folder")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    command = parser()
    options = command.parse_args(sys.argv[1:] if argv is None else list(argv))
    devices.configure(options.model)
    return guarded(command, lambda: _convert(options))


def _convert(options):
    from experiments.runs.best import convert  # imports jax, after its flags are set

    convert(options.checkpoint, options.model, options.output)
    print(f"saved in {options.output}/: {config.shown('evaluate', options.output)} tests it")


if __name__ == "__main__":
    sys.exit(main())
