"""Trains one network in one of the report's settings, all seeds at once.

python -m experiments.run --setting 4 --model lenet_fconv
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arguments, backends, settings
from experiments.settings import RunConfig


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m experiments.run", description=__doc__.splitlines()[0])
    arguments.add_setting_option(result, required=True)
    arguments.add_model_option(result, required=True)
    arguments.add_data_options(result, dataset=None)
    arguments.add_training_options(result)
    result.add_argument("--output", metavar="DIR", type=Path, help="default: checkpoints/settingN_MODEL_DATASET")
    start = result.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from the last save")
    start.add_argument("--overwrite", action="store_true", help="start anew in a folder that holds a run")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    backends.configure(options.model, arguments.num_seeds(options))
    from experiments import session  # imports jax, after its flags are set

    return session.guarded(command, lambda: session.run(options, arguments.command_line("experiments.run", argv)))


def configuration(options: argparse.Namespace, dataset: str, saved: dict | None) -> RunConfig:
    """The run's configuration: options, else those of the run that is resumed, else the protocol."""
    protocol = settings.protocol(options.model, dataset)
    seeds = options.seeds or (tuple(range(options.num_seeds)) if options.num_seeds else None)
    defaults = {
        "data_seed": 0,
        "seeds": tuple(range(arguments.DEFAULT_NUM_SEEDS)),
        **dataclasses.asdict(protocol),
        "init": "report",
        "precision": "float32",
        "seed_map": "auto",
    }
    given = {name: seeds if name == "seeds" else getattr(options, name) for name in defaults}
    chosen = {name: (saved or defaults)[name] if value is None else value for name, value in given.items()}
    return RunConfig(model=options.model, setting=options.setting, dataset=dataset, **chosen)


if __name__ == "__main__":
    sys.exit(main())
