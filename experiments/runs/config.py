"""From a command line or a config.json to a `RunConfig`, and back; each option is a field of it, with its rule."""

import argparse
import contextlib
import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments import AGAIN_ANEW, data
from experiments.rules import InputError, Parser, one_of, path, whole
from experiments.runs.folder import CONFIG, read_json, write_json
from experiments.runs.plan import cell_name
from experiments.settings import DATASETS, FIELDS, NAMED, NUM_SEEDS, RunConfig, protocol

_TRAINING = (
    "epochs", "batch_size", "learning_rate", "schedule", "weight_decay", "label_smoothing", "l2", "augmentation",
    "init", "precision", "seed_map",
)  # fmt: skip
MOST_SEEDS = 10_000
# A command line accepts other values here than a config.json.
_ON_COMMAND_LINES = {"model": one_of(NAMED, shown="NAME"), "dataset": one_of(("auto", *DATASETS))}


def new_parser(command: str, doc: str | None, **options) -> Parser:
    """The parser of a command, which says the first line of the command's docstring."""
    # `python -OO` removes docstrings.
    return Parser(prog=f"python -m experiments.{command}", description=(doc or "").partition("\n")[0], **options)


def add_options(parser, *names: str, **options) -> None:
    """Adds the options of some fields of `RunConfig`; None stands for what the protocol, or a saved run, says."""
    for name in names:
        metadata = FIELDS[name].metadata
        rule = _ON_COMMAND_LINES.get(name) or metadata["rule"]
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=rule, metavar=rule.shown, **{"help": metadata["help"], **options}
        )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Adds --data-dir."""
    parser.add_argument("--data-dir", metavar="DIR", type=path, help="where data are kept (default: TFDS's own folder)")


def add_data_options(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Adds --dataset, --data-dir and --data-seed; `default`: in words, where it is not the options' own."""
    said = {"help": default} if default else {}
    add_options(parser, "dataset", **said)
    add_data_dir(parser)
    add_options(parser, "data_seed", **said)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that decide how a network is trained."""
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--num-seeds", type=whole(1, MOST_SEEDS), metavar="N", help="train seeds 0..N-1 (default 5)")
    add_options(seeds, "seeds")
    add_options(parser, *_TRAINING)


def add_start(parser: argparse.ArgumentParser, resume: str, overwrite: str) -> None:
    """Adds the options that say what happens to what there is, with their help."""
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help=resume)
    start.add_argument("--overwrite", action="store_true", help=overwrite)


def num_seeds(options: argparse.Namespace) -> int:
    """How many seeds the options ask for."""
    return len(options.seeds) if options.seeds else options.num_seeds or NUM_SEEDS


def num_seeds_of(options: argparse.Namespace) -> int:
    """How many seeds `experiments.run` trains: where a run is continued, its own; only flags are chosen by it."""
    if options.seeds or options.num_seeds or not options.resume:
        return num_seeds(options)
    datasets = [options.dataset] if options.dataset in DATASETS else DATASETS
    folders = [Path("checkpoints") / cell_name(options.setting, options.model, one, options.init) for one in datasets]
    saved = {len(seeds) for seeds in map(_seeds, [options.output] if options.output else folders) if seeds}
    if len(saved) > 1:  # runs of several data sets: which one is meant takes TFDS to tell
        where = {"settings": [options.setting], "data_seed": options.data_seed or 0}
        with contextlib.suppress(data.DataError):  # said where the run starts
            dataset = data.resolve_dataset("auto", options.data_dir, **where)[0]
            saved = {len(_seeds(folders[list(datasets).index(dataset)]))}
    return max(saved, default=0) or NUM_SEEDS


def given(options: argparse.Namespace) -> dict:
    """What the options say of a run: {field: value}, without those that were not given."""
    seeds = options.seeds or (tuple(range(options.num_seeds)) if options.num_seeds else None)
    values = {name: getattr(options, name) for name in ("dataset", "data_seed", *_TRAINING)} | {"seeds": seeds}
    return {name: value for name, value in values.items() if value is not None}


def configuration(model: str, setting: int, dataset: str, given: dict, saved: dict | None = None) -> RunConfig:
    """The run's configuration: what is given, else that of the run that is resumed, else the protocol."""
    defaults = {"data_seed": 0, "seeds": tuple(range(NUM_SEEDS)), "init": "report", "precision": "float32"}
    defaults |= {"seed_map": "auto", **dataclasses.asdict(protocol(model, dataset))}
    return RunConfig.checked(
        {**defaults, **(saved or {}), **given, "model": model, "setting": setting, "dataset": dataset}
    )


def read(folder: Path) -> dict | None:
    """Returns the contents of a run's config.json, or None if there is none.

    Raises:
      InputError: not JSON, or not a run's configuration.
    """
    path = folder / CONFIG
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(contents, dict):
            raise ValueError("no configuration")
        if contents.get("trained") != "elsewhere":
            return contents | dataclasses.asdict(RunConfig.checked(contents))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}): use --overwrite to start the run anew") from error
    raise InputError(f"{folder} holds a network that was trained elsewhere: choose another --output")


def write(folder: Path, config: RunConfig, data_digest: str) -> None:
    """Writes config.json."""
    write_json(folder / CONFIG, {**config.to_json(), "data_digest": data_digest})


def check_same(folder: Path, saved: dict, config: RunConfig, data_digest: str | None = None) -> None:
    """Checks that a run to be resumed has the options and data that it started with.

    `data_digest`: None where the data are not loaded yet.

    Raises:
      InputError: the first that differs.
    """
    now = {**dataclasses.asdict(config), "data_digest": data_digest or saved.get("data_digest")}
    for name, value in now.items():
        if saved.get(name) != value:
            raise InputError(
                f"{folder} was started with {name} {saved.get(name)!r:.80}, now it is {value!r:.80}: leave it as it "
                "was, choose another --output, or start it anew by --overwrite"
            )


def of_save(configs: Sequence[RunConfig], data_digests: Sequence[str]) -> dict:
    """What a save says of its runs, which differ in the setting only: {field: value}."""
    shared = {name: value for name, value in configs[0].to_json().items() if name != "setting"}
    pairs = zip(configs, data_digests, strict=True)
    return {**shared, "data_digest": {str(config.setting): digest for config, digest in pairs}}


def of_older(saved: dict) -> dict:
    """What a save says of its runs, with the fields that came after it: they had their defaults."""
    later = {name: one.default for name, one in FIELDS.items() if one.default is not dataclasses.MISSING}
    return later | saved


def check_save(folder: Path, record: dict | None, config: RunConfig, data_digest: str) -> None:
    """Checks that a run has the configuration with which its save was made; those of version 0.1 say nothing of it.

    Raises:
      InputError: the first that differs.
    """
    saved = (record or {}).get("config")
    now = of_save([config], [data_digest])
    if not isinstance(saved, dict):
        return
    saved = of_older(saved)
    for name, value in now.items():
        was = saved.get(name)
        if name == "data_digest" and isinstance(was, dict) and str(config.setting) not in was:
            continue  # not a save for this setting: restoring it will say so
        if name == "data_digest" and isinstance(was, dict):
            was = {str(config.setting): was[str(config.setting)]}
        if was != value:
            raise InputError(
                f"{folder}: the save was made with {name} {was!r:.80}, {CONFIG} says {value!r:.80}: put {CONFIG} "
                "back as it was, choose another --output, or start anew by --overwrite"
            )


def model_of(folder) -> str:
    """The network that a run's folder names, or "" where it cannot be told; only flags are chosen by it."""
    return str(_said(folder).get("model", ""))


def _seeds(folder):
    """A run's seeds, or nothing where they cannot be told."""
    seeds = _said(folder).get("seeds")
    return seeds if isinstance(seeds, list) else []


def _said(folder):
    """A run's config.json, unchecked; empty where there is none."""
    try:
        return read_json(folder / CONFIG)
    except (OSError, ValueError, RecursionError):
        return {}


def shown(command: str, path: Path, *options: str) -> str:
    """A command that can be pasted."""
    return command_line(f"experiments.{command}", [str(path), *options])


def again(options: argparse.Namespace) -> str:
    """How to go on with a sweep that was stopped."""
    return AGAIN_ANEW if options.overwrite else "the same command continues"


def command_line(module: str, argv: Sequence[str]) -> str:
    """The command as it was given, for results.json."""
    return shlex.join(["python", "-m", module, *argv])
