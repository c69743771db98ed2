"""A run's folder: its files, written whole or not at all, who works in it, and whether a run may start there."""

import contextlib
import csv
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.rules import InputError
from experiments.runs.exit_codes import BusyError


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; the finished file takes its place."""
    temporary = path.with_name(f".{path.name}.part")
    yield temporary
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, contents: dict) -> None:
    """Writes strict JSON: NaN and infinities become null."""
    write_text(path, json.dumps(_strict(contents), indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, head: list[str], rows: Iterable[list]) -> None:
    """Writes a table."""
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _strict(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    return value


CONFIG, RESULTS, CURVES, CURVES_PLOT, RESUME, BEST = (
    "config.json",
    "results.json",
    "curves.csv",
    "curves.png",
    "resume",
    "best",
)
EVALUATION, ANGLES, ANGLES_PLOT, AUDIT, AUDIT_PLOT = (
    "evaluation.json", "angles.csv", "angles.png", "audit.json", "audit.png",
)  # fmt: skip
_OWN = {CONFIG, RESULTS, CURVES, CURVES_PLOT, RESUME, BEST, EVALUATION, ANGLES, ANGLES_PLOT, AUDIT, AUDIT_PLOT}
_LEFT = {f".{name}.part" for name in _OWN}  # of a file that could not be written to its end
_LOCK = ".lock"


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
    for path in (folder / BEST, folder / RESUME):
        # What is written through a link would harm what it leads to.
        if (path.is_symlink() or path.is_file()) and not (resume and is_finished(folder)):
            raise InputError(f"{path} is a link or a file and not a folder of this run: remove it")
    if resume and CONFIG not in entries:
        raise InputError(f"{folder} has no {CONFIG}, so there is nothing to resume: use --overwrite to start it anew")


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
    lock = FileLock(folder / _LOCK)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BusyError(
                f"{folder}: another process is at work in it; wait for it or choose another --output"
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the system says about a folder into one line. Raises `InputError`: it cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): choose another --output") from error


def _entries(folder):
    try:
        return {entry.name for entry in folder.iterdir()} - {_LOCK}
    except FileNotFoundError:
        return set()
    except NotADirectoryError as error:
        raise InputError(f"{folder} is a file, or is below one: choose another --output") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): choose another --output") from error
