"""Trains all cells of the report's table, one after another; settings that train on the same images share a training.

python -m experiments.sweep --settings 1,2,3,4 --models lenet,lenet_fconv
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arguments, backends
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
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    backends.configure(options.models[0], arguments.num_seeds(options))
    from experiments import session  # imports jax, after its flags are set

    line = arguments.command_line("experiments.sweep", argv)
    return session.guarded(command, lambda: session.sweep(options, line))


def shares(settings: Sequence[int], models: Sequence[str], shard: tuple[int, int]) -> list[tuple[str, tuple[int, ...]]]:
    """Returns the trainings of one shard: (model, settings that train on the same images)."""
    pairs = {SETTINGS[n].train_rotated: [] for n in settings}
    for n in settings:
        pairs[SETTINGS[n].train_rotated].append(n)
    trainings = [(model, tuple(pair)) for model in models for pair in pairs.values()]
    index, count = shard
    return trainings[index::count]


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


if __name__ == "__main__":
    sys.exit(main())
