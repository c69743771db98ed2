"""Draws what equivariance looks like: the basis and its rotations, features of a rotated digit, errors of layers.

python -m experiments.figures --output results/figures

Two more are drawn from the runs that `experiments.report` gathered: accuracy against the angle of networks trained on
upright digits, and what becomes of sixes and nines.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.rules import Parser, path
from experiments.runs import config
from experiments.runs.exit_codes import guarded
from experiments.training import devices


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("figures", __doc__)
    result.add_argument("--output", metavar="DIR", type=path, required=True, help="holds the PNG files and errors.json")
    result.add_argument(
        "--results", metavar="DIR", type=path, default=Path("results"), help="what `report` wrote (default: results)"
    )
    config.add_data_dir(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    devices.configure("")  # layers alone, all of them small
    line = config.command_line("experiments.figures", argv)
    return guarded(command, lambda: _draw(options, line))


def _draw(options, line):
    from experiments.reporting import measurements  # imports jax, after its flags are set

    measurements.draw(options, line)


if __name__ == "__main__":
    sys.exit(main())
