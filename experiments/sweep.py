"""Trains all cells of the report's table, one after another; settings that train on the same images share a training.

python -m experiments.sweep --settings 1,2,3,4 --models lenet,lenet_fconv

Finished cells are skipped, interrupted ones continued: give the same command again, without --overwrite. Cells on which
another process works are left to it. Trainings that fail are named at the end; the others are done nevertheless.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.rules import Parser, path, share, some_of
from experiments.runs import config, exit_codes, plan
from experiments.settings import DATASETS, NAMED, REPORT_MODELS, SETTINGS
from experiments.training import devices


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("sweep", __doc__, of_run=("--overwrite",))
    settings = {"type": some_of(SETTINGS, int), "default": tuple(SETTINGS), "help": "default 1,2,3,4"}
    result.add_argument("--settings", metavar="N,N,...", **settings)
    models = {"type": some_of(NAMED), "default": REPORT_MODELS, "help": f"default {','.join(REPORT_MODELS)}"}
    result.add_argument("--models", metavar="A,B,...", **models)
    result.add_argument("--shard", type=share, default=(0, 1), metavar="I/N", help="the share of machine I of N")
    config.add_data_options(result)
    config.add_training_options(result)
    result.add_argument("--output", metavar="DIR", type=path, default=Path("checkpoints"), help="of the runs' folders")
    config.add_start(result, "what a sweep does without it, too", "start each cell anew in its turn, finished ones too")
    result.add_argument("--child", help=argparse.SUPPRESS)  # "NUMBER,DATASET": the training this process runs
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    if set(options.settings) - set(DATASETS.get(options.dataset, DATASETS["mnist"]).settings):
        command.error(f"the images of {options.dataset} are rotated already: use --settings 1 (as they are)")
    planned = plan.planned(options.settings, options.models, options.shard)
    if options.child is None and not devices.are_several():
        from experiments.runs import child_processes  # imports TFDS, which --help need not wait for

        return child_processes.sweep(command, options, argv, planned)
    numbers = range(1, len(planned) + 1)
    if options.child:
        number, options.dataset = options.child.split(",")
        numbers, argv = [int(number)], argv[:-2]
    devices.configure(planned[numbers[0] - 1].model if planned else "", config.num_seeds(options))
    line = config.command_line("experiments.sweep", argv)
    busy, again = exit_codes.BUSY if options.child else exit_codes.BAD_INPUT, config.again(options)
    return exit_codes.guarded(command, lambda: _train(options, planned, numbers, line), again=again, busy=busy)


def _train(options, planned, numbers, line):
    from experiments.reporting.plots import plot_curves
    from experiments.runs import train  # imports jax, after its flags are set

    train.sweep(options, planned, numbers, line, plot_curves)


if __name__ == "__main__":
    sys.exit(main())
