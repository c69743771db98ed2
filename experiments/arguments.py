"""Options and errors that the command lines share.

A bad argument or input is one line on stderr beside the usage, exit code 2, and nothing written.
"""

import argparse
import math
from collections.abc import Sequence

from experiments.backends import SEED_MAPS
from experiments.settings import DATASETS, MODELS, SCHEDULES, SETTINGS

DEFAULT_NUM_SEEDS = 5
INTERRUPTED = 130  # exit code: stopped by a signal, resumable
BUSY = 75  # exit code of one training of a sweep: another process is at work on it


class InputError(ValueError):
    """Something that the user can mend, in one line."""


class BusyError(InputError):
    """Another process is at work in the folder."""


def add_data_options(parser: argparse.ArgumentParser, dataset: str | None) -> None:
    """Adds --dataset, --data-dir and --data-seed."""
    names = ["auto", *DATASETS]
    parser.add_argument(
        "--dataset",
        choices=names,
        default=dataset,
        help="auto: mnist if it is prepared, placed or can be downloaded within seconds, else the embedded mnist_5k",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where data are kept (default: TFDS's own folder)")
    parser.add_argument("--data-seed", type=whole(0), metavar="N", help="decides the angles of turned images (0)")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide how a network is trained; None stands for the protocol's value."""
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--num-seeds", type=whole(1), metavar="N", help="train seeds 0..N-1 (default 5)")
    seeds.add_argument("--seeds", type=seed_list, metavar="A,B,...", help="train these seeds")
    parser.add_argument("--epochs", type=whole(1), metavar="N", help="default: 200; invariant networks 8")
    parser.add_argument(
        "--batch-size", type=whole(1), metavar="N", help="default: 4096; 256 on mnist_5k; invariant networks 16"
    )
    parser.add_argument(
        "--learning-rate", type=positive, metavar="X", help="of Adam (default 2e-4; invariant networks 5e-3)"
    )
    parser.add_argument(
        "--schedule", choices=SCHEDULES, help="of the learning rate (default constant; invariant networks cosine)"
    )
    parser.add_argument("--weight-decay", type=not_negative, metavar="X", help="of weights, as in AdamW (default 0)")
    parser.add_argument(
        "--label-smoothing",
        type=below_one,
        metavar="X",
        help="the share of a label that is spread over all classes (default 0; invariant networks 0.1)",
    )
    parser.add_argument("--init", choices=["report", "he"], help="initial weights (default report, as published)")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="of the arithmetic (default float32)")
    parser.add_argument("--seed-map", choices=SEED_MAPS, help="how seeds share one program (default auto)")


def num_seeds(options: argparse.Namespace) -> int:
    """How many seeds the options ask for."""
    return len(options.seeds) if options.seeds else options.num_seeds or DEFAULT_NUM_SEEDS


def add_model_option(parser: argparse.ArgumentParser, **options) -> None:
    """Adds --model."""
    parser.add_argument("--model", choices=MODELS, metavar="NAME", help=f"one of: {', '.join(MODELS)}", **options)


def add_setting_option(parser: argparse.ArgumentParser, **options) -> None:
    """Adds --setting."""
    parser.add_argument(
        "--setting",
        type=int,
        choices=list(SETTINGS),
        help="1: all upright; 2: trained on turned digits; 3: tested on turned digits; 4: both",
        **options,
    )


def whole(least: int):
    """An argparse type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return value

    return parse


def positive(text: str) -> float:
    """An argparse type: a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def not_negative(text: str) -> float:
    """An argparse type: a number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least 0")
    return value


def below_one(text: str) -> float:
    """An argparse type: a number from 0 to below 1."""
    value = not_negative(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be below 1")
    return value


def seed_list(text: str) -> tuple[int, ...]:
    """An argparse type: different whole numbers from 0 to 2^32 - 1, separated by commas."""
    seeds = tuple(whole(0)(part.strip()) for part in text.split(","))
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} names a seed twice")
    if max(seeds) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r}: seeds must be below 2^32")
    return seeds


def command_line(module: str, argv: Sequence[str]) -> str:
    """The command as it was given, for results.json."""
    import shlex

    return shlex.join(["python", "-m", module, *argv])
