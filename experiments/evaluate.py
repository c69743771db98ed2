"""Evaluates a run's best epochs, on its own setting and data or on others.

python -m experiments.evaluate checkpoints/setting4_lenet_fconv_mnist_5k --angles
"""

import sys
from collections.abc import Sequence

from experiments.rules import Parser, one_of, path
from experiments.runs import config
from experiments.runs.exit_codes import guarded
from experiments.training import devices

STEPS = tuple(step for step in range(1, 91) if not 180 % step)


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("evaluate", __doc__)
    result.add_argument("run_dir", metavar="RUN_DIR", type=path, help="folder of a finished run")
    config.add_options(result, "setting", help="whose test images (default: the run's)")
    config.add_data_options(result, default="default: the run's")
    result.add_argument("--angles", action="store_true", help="also accuracy against the angle, -180 to 180 degrees")
    text = "degrees between them (default 15)"
    result.add_argument("--angle-step", type=one_of(STEPS, int), metavar="N", help=text)
    text = "also each image rotated by its own angle, uniform over the circle: bilinear and cubic, three sets of angles"
    result.add_argument("--uniform", action="store_true", help=text)
    result.add_argument("--output", metavar="DIR", type=path, help="where evaluation.json goes (default: RUN_DIR)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    if options.angle_step and not options.angles:
        command.error("--angle-step is of --angles")
    devices.configure(config.model_of(options.run_dir))
    line = config.command_line("experiments.evaluate", argv)
    return guarded(command, lambda: _evaluate(options, line))


def _evaluate(options, line):
    from experiments.reporting import evaluation  # imports jax, after its flags are set

    evaluation.evaluate(options, line)


if __name__ == "__main__":
    sys.exit(main())
