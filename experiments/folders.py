"""A run's folder: what is in it, who works in it, and whether a run may start, resume or overwrite it."""

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from experiments.arguments import BusyError, InputError
from experiments.backends import SEED_MAPS
from experiments.results import write_json
from experiments.settings import SCHEDULES, RunConfig

try:
    import fcntl
except ImportError:  # Windows: no lock
    fcntl = None

CONFIG, RESULTS, CURVES, PICTURE, RESUME, BEST = (
    "config.json", "results.json", "curves.csv", "curves.png", "resume", "best",
)  # fmt: skip
_OWN = {
    CONFIG,
    RESULTS,
    CURVES,
    PICTURE,
    RESUME,
    BEST,
    "evaluation.json",
    "angles.csv",
    "angles.png",
    "audit.json",
    "audit.png",
}
_LEFT = {f".{name}.part" for name in _OWN}  # of a file that could not be written to its end
_LOCK = ".lock"
# What runs did that were made before there was a choice.
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(RunConfig) if f.default is not dataclasses.MISSING}


def check(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Checks that a run may work in `folder`; writes nothing.

    Raises:
      InputError: not a folder, or one that is not empty and neither to be resumed nor overwritten,
        or one with files that are not a run's.
    """
    entries = _entries(folder) - _LEFT
    if not entries:
        return
    if not resume and not overwrite:
        raise InputError(
            f"{folder} is not empty: --resume continues it, --overwrite starts it anew, or choose another --output"
        )
    foreign = sorted(entries - _OWN)
    if foreign:
        raise InputError(f"{folder} holds {foreign[0]!r}, which no run wrote: choose another --output")
    if resume and CONFIG not in entries:
        raise InputError(f"{folder} has no {CONFIG}, so there is nothing to resume: use --overwrite to start it anew")


def read_config(folder: Path) -> dict | None:
    """Returns the contents of a run's config.json, or None if there is none.

    Raises:
      InputError: not JSON, or not a run's configuration.
    """
    path = folder / CONFIG
    try:
        contents = _DEFAULTS | json.loads(path.read_text(encoding="utf-8"))
        missing = {field.name for field in dataclasses.fields(RunConfig)} - set(contents)
        if missing:
            raise ValueError(f"{min(missing)!r} is missing")
        _check_types(contents)
        contents["seeds"] = tuple(contents["seeds"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}): use --overwrite to start the run anew") from error
    return contents


def _check_types(contents):
    """Checks that a configuration's values are such as the command line accepts."""
    least = {"setting": 1, "data_seed": 0, "epochs": 1, "batch_size": 1}
    seeds, rate, decay = contents["seeds"], contents["learning_rate"], contents["weight_decay"]
    smoothing = contents["label_smoothing"]
    right = {
        **{name: _is_whole(contents[name], low) for name, low in least.items()},
        **{name: isinstance(contents[name], str) for name in ("model", "dataset")},
        "init": contents["init"] in ("report", "he"),
        "precision": contents["precision"] in ("float32", "bfloat16"),
        "seed_map": contents["seed_map"] in SEED_MAPS,
        "learning_rate": isinstance(rate, float) and math.isfinite(rate) and rate > 0,
        "schedule": contents["schedule"] in SCHEDULES,
        "weight_decay": isinstance(decay, float) and math.isfinite(decay) and decay >= 0,
        "label_smoothing": isinstance(smoothing, float) and 0 <= smoothing < 1,
        "seeds": isinstance(seeds, list)
        and bool(seeds)
        and all(_is_whole(seed, 0) and seed < 2**32 for seed in seeds)
        and len(set(seeds)) == len(seeds),
    }
    for name, fine in right.items():
        if not fine:
            raise ValueError(f"{name} is {str(contents[name])[:40]!r}")


def _is_whole(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def write_config(folder: Path, config: RunConfig, data_digest: str) -> None:
    """Writes config.json."""
    write_json(folder / CONFIG, {**dataclasses.asdict(config), "seeds": list(config.seeds), "data_digest": data_digest})


def check_same(folder: Path, saved: dict, config: RunConfig, data_digest: str) -> None:
    """Checks that a run to be resumed has the options and data that it began with.

    Raises:
      InputError: the first that differs.
    """
    now = {**dataclasses.asdict(config), "data_digest": data_digest}
    for name, value in now.items():
        if saved.get(name) != value:
            was = saved.get(name)
            raise InputError(
                f"{folder} was begun with {name} {was!r}, now it is {value!r}: leave it as it was, or use --overwrite"
            )


def is_finished(folder: Path) -> bool:
    """Whether a run has written its results."""
    return (folder / RESULTS).exists()


def clear(folder: Path) -> None:
    """Removes what runs write into their folder, and nothing else."""
    for name in sorted(_entries(folder)):
        path = folder / name
        if name in _OWN | _LEFT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes `folder` and holds it for this process; the lock dies with the process.

    Raises:
      BusyError: another process holds it.
      InputError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / _LOCK, "a")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): choose another --output") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BusyError(
                    f"{folder}: another process is at work in it; wait for it or choose another --output"
                ) from error
        yield


def _entries(folder):
    try:
        return {entry.name for entry in folder.iterdir()} - {_LOCK}
    except FileNotFoundError:
        return set()
    except NotADirectoryError as error:
        raise InputError(f"{folder} is a file, or is below one: choose another --output") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): choose another --output") from error


def model_of(folder: Path) -> str:
    """The network that a run's folder names, or "" where it cannot be told; only backends are chosen by it."""
    try:
        return str(json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model", ""))
    except (OSError, ValueError, AttributeError):
        return ""
