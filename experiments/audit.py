"""Says where a network loses rotations: each stage's equivariance error, and the first that breaks quarter turns.

python -m experiments.audit --model alexnet_fconv
python -m experiments.audit checkpoints/setting3_lenet_fconv_mnist_5k
"""

import sys
from collections.abc import Sequence

from experiments.rules import Parser, path
from experiments.runs import config
from experiments.runs.exit_codes import guarded
from experiments.training import devices


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("audit", __doc__)
    result.add_argument(
        "run_dir", metavar="RUN_DIR", nargs="?", type=path, help="folder of a finished run (first seed)"
    )
    config.add_options(result, "model")
    config.add_options(result, "init", help="initial weights of --model (default report)")
    config.add_data_dir(result)
    result.add_argument(
        "--output", metavar="DIR", type=path, help="for audit.json and audit.png (default: RUN_DIR; none with --model)"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    if (options.run_dir is None) == (options.model is None):
        command.error("name either a run's folder or --model NAME")
    if options.run_dir is not None and options.init is not None:
        command.error("--init goes with --model: a run has its own weights")
    devices.configure(options.model or config.model_of(options.run_dir))
    line = config.command_line("experiments.audit", argv)
    return guarded(command, lambda: _audit(options, line))


def _audit(options, line):
    from experiments.reporting import evaluation  # imports jax, after its flags are set

    evaluation.audit(options, line)


if __name__ == "__main__":
    sys.exit(main())
