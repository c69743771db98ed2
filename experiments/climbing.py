"""Trains the rungs of a ladder, each in the four settings with the same number of steps."""

import dataclasses
import functools
import json
import time
from pathlib import Path

import numpy as np

from experiments import backends, training
from experiments.arguments import InputError
from experiments.data import load
from experiments.results import device_name, versions, write_json
from experiments.rungs import LADDERS, PLAIN, RUNGS
from experiments.trainer import Trainer

DATASET = "mnist_5k"
_PAIRS = ((1, 3), (2, 4))  # settings that train on the same images
PLAIN_NAME = "plain network"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How each rung is trained; `epochs` on upright digits, a fifth of that on five times as many."""

    seeds: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float


def file_of(folder: Path, name: str) -> Path:
    """Where a ladder's numbers are."""
    return folder / f"{name.replace(' ', '_')}.json"


def climb(model: str, name: str, protocol: Protocol, folder: Path, data_dir: str | None, command: str) -> None:
    """Trains the rungs that the folder does not have yet, the plain network first; each is written when it is done.

    Args:
      model: the network that backends are chosen by.
      name: of the ladder, see `LADDERS`.

    Raises:
      InputError: a folder that cannot be written, or holds rungs of another protocol.
    """
    contents = _begun(file_of(folder, name), name, protocol, command)
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before hours of training, not after
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): choose another --output") from error
    rungs = {PLAIN_NAME: PLAIN[name]}
    rungs |= {rung: functools.partial(LADDERS[name], repairs) for rung, repairs in RUNGS.items()}
    splits = {setting: load(DATASET, setting, data_dir=data_dir, progress=print) for pair in _PAIRS for setting in pair}
    for number, (rung, create) in enumerate(rungs.items(), 1):
        if rung in contents["rungs"]:
            continue
        began = time.monotonic()
        accuracy, parameters = {}, 0
        for pair in _PAIRS:
            found, parameters = _train(model, create, protocol, pair, splits)
            accuracy |= {str(setting): values for setting, values in found.items()}
        seconds = time.monotonic() - began
        contents["rungs"][rung] = {"num_parameters": parameters, "test_accuracy": accuracy, "seconds": seconds}
        means = ", ".join(f"{setting}: {np.mean(accuracy[setting]):.4f}" for setting in sorted(accuracy))
        print(f"{number}/{len(rungs)} {rung}: test accuracy in setting {means} ({seconds:.0f} s)", flush=True)
        write_json(file_of(folder, name), contents)


def read(file: Path) -> dict:
    """Returns a ladder's numbers.

    Raises:
      InputError: a file that is not a ladder's.
    """
    try:
        contents = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(contents, dict) or not isinstance(contents.get("rungs"), dict):
            raise ValueError("no rungs")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged ({error}): remove it, or choose another --output") from error
    return contents


def _begun(file, name, protocol, command):
    fresh = {
        "name": name,
        "dataset": DATASET,
        **dataclasses.asdict(protocol),
        "seeds": list(protocol.seeds),
    }
    if file.exists():
        contents = read(file)
        different = [key for key, value in fresh.items() if contents.get(key) != value]
        if different:
            raise InputError(f"{file} was made with another {different[0]}: remove it, or choose another --output")
        return contents
    return {**fresh, "command": command, "device": device_name(), "versions": versions(), "rungs": {}}


def _train(model, create, protocol, settings, splits):
    """{setting: test accuracy of each seed at its best validation epoch} and the number of parameters."""
    network = training.network(create)
    plan = backends.plan(model, len(protocol.seeds), protocol.batch_size, has_stats=network.has_stats)
    trainer = Trainer(
        network, plan, protocol.seeds, settings, batch_size=protocol.batch_size, learning_rate=protocol.learning_rate
    )
    train = trainer.place(splits[settings[0]]["train"])
    validation = {setting: trainer.place(splits[setting]["validation"]) for setting in settings}
    rotated = len(splits[settings[0]]["train"].labels) > len(splits[1]["train"].labels)
    states, epochs = trainer.init(), protocol.epochs // 5 if rotated else protocol.epochs
    for epoch in range(epochs):
        states = trainer.epoch(states, train, epoch)
        correct = {setting: _right(trainer, states, data)[0] for setting, data in validation.items()}
        states = trainer.keep_best(states, correct, epoch + 1)
    accuracy = {}
    for setting in settings:
        right, number = _right(trainer, states["best"][str(setting)], trainer.place(splits[setting]["test"]))
        accuracy[setting] = (right / number).tolist()
    return accuracy, training.num_parameters(network)


def _right(trainer, arrays, data):
    confusion = trainer.confusion(arrays["params"], arrays["stats"], data)
    return np.trace(confusion, axis1=1, axis2=2), confusion[0].sum()
