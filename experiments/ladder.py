"""Trains the ladder of repairs: what each cause of F-Conv's loss costs, one change at a time.

python -m experiments.ladder --model lenet_fconv --output results
python -m experiments.ladder --model alexnet_fconv --seeds 0,1,2 --epochs 5 --batch-size 14 --output results

The AlexNet has a quarter of the report's widths. Rungs that are in the folder already are kept. The page
why-fconv-lost.md is written anew from all there are.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arguments, backends
from experiments.settings import DATASETS

NUM_UPRIGHT = DATASETS["mnist_5k"].num_train
_BASES = {"lenet_fconv": "lenet_fconv", "alexnet_fconv": "narrow alexnet_fconv"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m experiments.ladder", description=__doc__.splitlines()[0])
    result.add_argument("--model", choices=list(_BASES), required=True, help="the network that is repaired")
    result.add_argument("--seeds", type=arguments.seed_list, default=(0, 1, 2, 3, 4), metavar="A,B,...")
    result.add_argument(
        "--epochs", type=arguments.whole(1), default=15, metavar="N",
        help="on upright digits; on turned ones, five times as many digits, a fifth as many (default 15)",
    )  # fmt: skip
    result.add_argument("--batch-size", type=arguments.whole(1), default=50, metavar="N", help="default 50")
    result.add_argument("--learning-rate", type=arguments.positive, default=1e-3, metavar="X", help="of Adam (1e-3)")
    result.add_argument("--data-dir", metavar="DIR", help="where data are kept (default: TFDS's own folder)")
    result.add_argument("--output", metavar="DIR", type=Path, required=True, help="holds ladder/ and the page")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    if options.epochs % 5:
        command.error(f"--epochs (={options.epochs}) must be a multiple of 5, to make as many steps on turned digits")
    if NUM_UPRIGHT % options.batch_size:
        command.error(f"--batch-size (={options.batch_size}) must divide {NUM_UPRIGHT}, for the same reason")
    backends.configure(options.model, len(options.seeds))
    from experiments import session  # imports jax, after its flags are set

    line = arguments.command_line("experiments.ladder", argv)
    return session.guarded(command, lambda: _climb(options, line), again="the same command continues")


def _climb(options, line):
    from experiments import climbing, ladder_page

    name = _BASES[options.model]
    protocol = climbing.Protocol(options.seeds, options.epochs, options.batch_size, options.learning_rate)
    climbing.climb(options.model, name, protocol, options.output / "ladder", options.data_dir, line)
    written = ladder_page.write(options.output)
    print(f"saved in {options.output}/: {', '.join(written)}")


if __name__ == "__main__":
    sys.exit(main())
