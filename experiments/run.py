"""Trains one network in one of the report's settings, all seeds at once.

python -m experiments.run --setting 4 --model lenet_fconv
"""

import sys
from collections.abc import Sequence

from experiments.rules import Parser, path
from experiments.runs import config
from experiments.runs.exit_codes import guarded
from experiments.training import devices


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("run", __doc__)
    config.add_options(result, "setting", "model", required=True)
    config.add_data_options(result)
    config.add_training_options(result)
    result.add_argument(
        "--output", metavar="DIR", type=path, help="default: checkpoints/settingN_MODEL_DATASET, with _he for --init he"
    )
    config.add_start(result, "continue from the last save", "start anew in a folder that holds a run")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    devices.configure(options.model, config.num_seeds_of(options))
    line = config.command_line("experiments.run", argv)
    return guarded(command, lambda: _run(options, line), again="continue with --resume")


def _run(options, line):
    from experiments.reporting.plots import plot_curves
    from experiments.runs import train  # imports jax, after its flags are set

    train.run(options, line, plot_curves)


if __name__ == "__main__":
    sys.exit(main())
