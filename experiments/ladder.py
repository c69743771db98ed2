"""Trains the ladder of fixes: what each cause of F-Conv's loss costs, one change at a time.

python -m experiments.ladder --model lenet_fconv
python -m experiments.ladder --model alexnet_fconv --seeds 0,1,2 --epochs 5 --batch-size 14

The AlexNet has a quarter of the report's widths. Rungs that are in the folder are kept. The page why-fconv-lost.md is
written again from all of them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.rules import Parser, one_of, path
from experiments.runs import config
from experiments.runs.exit_codes import guarded
from experiments.settings import DATASETS, LADDER_DATASET, MODELS, NAMED
from experiments.training import devices

NUM_UPRIGHT = DATASETS[LADDER_DATASET].num_train
FIXED = one_of([name for name in NAMED if MODELS[name].ladder])


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("ladder", __doc__)
    result.add_argument("--model", type=FIXED, metavar=FIXED.shown, required=True, help="the network that is fixed")
    config.add_options(result, "seeds", default=(0, 1, 2, 3, 4), help="train these seeds (default 0 to 4)")
    config.add_options(
        result, "epochs", default=15,
        help="on upright digits; on rotated ones, five times as many digits, a fifth as many (default 15)",
    )  # fmt: skip
    config.add_options(result, "batch_size", default=50, help="default 50")
    config.add_options(result, "learning_rate", default=1e-3, help="of Adam (1e-3)")
    config.add_data_dir(result)
    result.add_argument(
        "--output", metavar="DIR", type=path, default=Path("results"), help="holds ladder/ and the page (results)"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    if options.epochs % 5:
        command.error(f"--epochs (={options.epochs}) must be a multiple of 5, to make as many steps on rotated digits")
    if NUM_UPRIGHT % options.batch_size:
        command.error(f"--batch-size (={options.batch_size}) must divide {NUM_UPRIGHT}, for the same reason")
    devices.configure(options.model, len(options.seeds))
    line = config.command_line("experiments.ladder", argv)
    return guarded(command, lambda: _climb(options, line), again="the same command continues")


def _climb(options, line):
    from experiments.reporting import ladder_page, plots
    from experiments.runs import ladder  # imports jax, after its flags are set

    protocol = {name: getattr(options, name) for name in ladder.PROTOCOL}
    ladder.climb(options.model, protocol, options.output / "ladder", options.data_dir, line, plots.plot_curves)
    print(f"saved in {options.output}/: {', '.join(ladder_page.write(options.output))}")


if __name__ == "__main__":
    sys.exit(main())
