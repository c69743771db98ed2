"""Trains the rungs of a ladder by a sweep's own loop, each in the four settings with the same number of steps."""

import argparse
import shutil
from pathlib import Path

import numpy as np
from rich.console import Console

from experiments.data import DataError
from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs import reading
from experiments.runs.exit_codes import BusyError
from experiments.runs.folder import write_json
from experiments.runs.plan import planned
from experiments.runs.results import versions, with_last
from experiments.runs.train import Draw, train_planned
from experiments.settings import FIELDS, LADDER_DATASET, MODELS, RUNGS, SETTINGS
from experiments.training.devices import are_several, device_name

PROTOCOL = ("seeds", "epochs", "batch_size", "learning_rate")
"""What the rungs of a ladder have in common."""


def file_of(folder: Path, name: str) -> Path:
    """Where a ladder's numbers are."""
    return folder / f"{name.replace(' ', '_')}.json"


def climb(model: str, protocol: dict, folder: Path, data_dir: str | None, command: str, draw: Draw) -> None:
    """Trains the rungs that the folder does not have yet, the plain network first; each is written when it is done.

    `model` is the network that is fixed; `protocol`: `seeds`, `epochs` on upright digits (a fifth of that on five times
    as many), `batch_size` and `learning_rate`.

    Raises:
      InputError: a folder that cannot be written, or holds rungs of another protocol.
    """
    if are_several():
        raise InputError("a ladder is made by one process, and this is one of several")
    name = MODELS[model].ladder or model
    file = file_of(folder, name)
    contents = _started(file, name, protocol, command)
    made = (folder, folder.parent / "figures")
    for each in made:  # before hours of training, not after
        folders.check_no_run(each)
    rungs = {row: spec.rung for row, spec in MODELS.items() if spec.ladder == name and spec.rung}
    for number, (row, rung) in enumerate(rungs.items(), 1):
        if rung in contents["rungs"]:
            continue
        work = file.with_suffix(".runs")
        # A ladder may be continued on another machine.
        contents["device"] = "; ".join(with_last(contents["device"].split("; "), device_name()))
        contents["rungs"][rung] = found = _train(row, protocol, work, data_dir, command, draw)
        accuracy, seconds = found["test_accuracy"], found["seconds"]
        means = ", ".join(f"{setting}: {np.mean(accuracy[setting]):.4f}" for setting in sorted(accuracy))
        print(f"{number}/{len(rungs)} {rung}: test accuracy in setting {means} ({seconds:.0f} s)", flush=True)
        for each in made:
            each.mkdir(parents=True, exist_ok=True)
        write_json(file, contents)
        shutil.rmtree(work)


def read(file: Path) -> dict:
    """Returns a ladder's numbers.

    Raises:
      InputError: a file that is not a ladder's.
    """
    try:
        contents = folders.read_json(file)
        _check(contents, file)
    except (OSError, argparse.ArgumentTypeError, *reading.DENIALS) as error:
        raise InputError(f"{file} is damaged ({error}): remove it, or choose another --output") from error
    return contents


def _check(contents, file):
    """Checks names, ranges and numbers of seeds."""
    protocol = {name: FIELDS[name].metadata["rule"].check(contents[name]) for name in PROTOCOL}
    if file_of(file.parent, contents["name"]) != file or contents["dataset"] != LADDER_DATASET:
        raise ValueError("it is of another ladder")
    if not (isinstance(contents["command"], str) and isinstance(contents["device"], str)):
        raise ValueError("command and device must be texts")
    for rung, found in contents["rungs"].items():
        if rung not in RUNGS:
            raise ValueError(f"there is no rung {rung!r:.40}")
        reading.check_numbers(found, "num_parameters", (), 1, 1e15, whole=True)
        reading.check_numbers(found, "seconds", (), 0, 1e15)
        if found["test_accuracy"].keys() != {str(setting) for setting in SETTINGS}:
            raise ValueError("test_accuracy must have the settings")
        for setting in found["test_accuracy"]:
            reading.check_numbers(found["test_accuracy"], setting, (len(protocol["seeds"]),), 0, 1)


def _started(file, name, protocol, command):
    fresh = {"name": name, "dataset": LADDER_DATASET, **protocol, "seeds": list(protocol["seeds"])}
    if file.exists():
        contents = read(file)
        different = [key for key, value in fresh.items() if contents.get(key) != value]
        if different:
            raise InputError(f"{file} was made with another {different[0]}: remove it, or choose another --output")
        return contents
    return {**fresh, "command": command, "device": device_name(), "versions": versions(), "rungs": {}}


def _train(row, protocol, output, data_dir, command, draw):
    """A rung's number of parameters, its test accuracy {setting: of each seed} and the seconds it took."""
    console, found, results, seconds = Console(quiet=True), {}, {}, 0.0
    for training in planned(tuple(SETTINGS), (row,)):
        epochs = protocol["epochs"]
        if SETTINGS[training.settings[0]].train_rotated:
            epochs //= 5  # five times as many images
        given = {**protocol, "epochs": epochs, "dataset": LADDER_DATASET}
        try:
            train_planned(console, training, output, given, data_dir, command, draw)
        except (BusyError, DataError):
            raise
        except InputError as error:
            raise InputError(f"{error} (of a ladder: remove {output})") from error
        for setting, name in zip(training.settings, training.folder_names(LADDER_DATASET, None), strict=True):
            results = reading.read(output / name)
            found[str(setting)] = results["test_accuracy"]
        seconds += results["wall_seconds"]
    return {"num_parameters": results["num_parameters"], "test_accuracy": found, "seconds": seconds}
