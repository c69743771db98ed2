"""Trains all cells of the report's table, one after another; settings that train on the same images share a training.

python -m experiments.sweep --settings 1,2,3,4 --models lenet,lenet_fconv

Finished cells are skipped, interrupted ones are continued: give the same command again. Cells that another process
works on are left to it. A training that fails is named at the end; the others are done all the same.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arguments, backends, schedule
from experiments.settings import MODELS, SETTINGS

REPORT_MODELS = ("lenet", "lenet_fconv", "alexnet", "alexnet_fconv")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m experiments.sweep", description=__doc__.splitlines()[0])
    result.add_argument(
        "--settings", type=_settings, default=tuple(SETTINGS), metavar="N,N,...", help="default 1,2,3,4"
    )
    result.add_argument(
        "--models", type=_models, default=REPORT_MODELS, metavar="A,B,...", help=f"default {','.join(REPORT_MODELS)}"
    )
    result.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N", help="the I-th (from 1) of N machines' share"
    )
    arguments.add_data_options(result, dataset=None)
    arguments.add_training_options(result)
    result.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("checkpoints"), help="holds the runs' folders"
    )
    result.add_argument("--child", type=_child, help=argparse.SUPPRESS)  # the training that this process makes
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    planned = schedule.trainings(options.settings, options.models, options.shard)
    if options.child is None and not backends.are_several():
        from experiments import children

        return children.sweep(command, options, argv, planned)
    if options.child:
        number, options.dataset = options.child
        numbers, argv = [number], argv[:-2]
    else:
        numbers = range(1, len(planned) + 1)
    backends.configure(planned[numbers[0] - 1].model if planned else "", arguments.num_seeds(options))
    from experiments import session  # imports jax, after its flags are set

    line = arguments.command_line("experiments.sweep", argv)
    return session.guarded(
        command,
        lambda: session.sweep(options, planned, numbers, line),
        again="the same command continues",
        busy=arguments.BUSY if options.child else 2,
    )


def _settings(text):
    return _list(text, {str(n): n for n in SETTINGS})


def _models(text):
    return _list(text, {name: name for name in MODELS})


def _list(text, known):
    names = [part.strip() for part in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names one twice")
    return tuple(known[name] for name in names)


def _shard(text):
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        index, count = 0, 0
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"{text!r} must be I/N with 1 <= I <= N")
    return index - 1, count


def _child(text):
    number, dataset = text.split(",")
    return int(number), dataset


if __name__ == "__main__":
    sys.exit(main())
