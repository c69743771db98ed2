"""A run's folder: its files, written whole or not at all, who works in it, and whether a run may start there."""

import contextlib
import csv
import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.rules import InputError
from experiments.runs.exit_codes import BusyError
from experiments.settings import DATASETS


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; the finished file takes its place."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text."""
    with replaced(path) as temporary:
        # The command may name a path whose bytes are not text.
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
EVALUATION, ANGLES, ANGLES_PLOT, UNIFORM, AUDIT, AUDIT_PLOT = (
    "evaluation.json", "angles.csv", "angles.png", "uniform.csv", "audit.json", "audit.png",
)  # fmt: skip
_FIXED = (CONFIG, RESULTS, CURVES, CURVES_PLOT, RESUME, BEST, AUDIT, AUDIT_PLOT)
_EVALUATED = rf"(_({'|'.join(DATASETS)})_setting\d(_seed\d+)?)?"
_OWN = re.compile(
    rf"{'|'.join(map(re.escape, _FIXED))}|evaluation{_EVALUATED}\.json|angles{_EVALUATED}\.(csv|png)|"
    rf"uniform{_EVALUATED}\.csv"
)
LOCK = ".lock"
_OF_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")
"""What file managers leave in any folder."""


def check(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Checks that a run may work in `folder`; writes nothing.

    Raises:
      InputError: not a folder, or one that is not empty and neither to be resumed nor overwritten,
        or one with files that are not a run's.
    """
    entries = {name for name in _entries(folder) if not (name.startswith(".") and _is_own(name))}
    if resume and CONFIG in entries and is_finished(folder):  # a finished run is left as it is
        return
    check_path(folder)
    check_outside(folder)
    if not entries:
        return
    if not resume and not overwrite:
        raise InputError(
            f"{folder} is not empty: --resume continues it, --overwrite starts it anew, or choose another --output"
        )
    foreign = sorted(name for name in entries if not _is_own(name))
    if foreign:
        raise InputError(f"{folder} holds {foreign[0]!r}, which no run wrote: choose another --output")
    for path in (folder / BEST, folder / RESUME):
        # Writing through a link would overwrite its target.
        if path.is_symlink() or path.is_file():
            raise InputError(f"{path} is a link or a file and not a folder of this run: remove it")
    if resume and CONFIG not in entries:
        raise InputError(f"{folder} has no {CONFIG}, so there is nothing to resume: use --overwrite to start it anew")


def check_path(folder: Path) -> None:
    """Checks that checkpoints can be saved below a path: Orbax reads its own files' paths as patterns.

    Raises:
      InputError: a path with brackets or a backslash, below which a save would be finished but not readable.
    """
    found = re.search(r"\[[^/]+\]|\\", str(folder.absolute()))
    if found:
        raise InputError(
            f"{folder.absolute()}: Orbax cannot save below a path that holds {found[0]!r}: choose another --output"
        )


def check_outside(folder: Path) -> None:
    """Checks that a folder lies in no run's folder, where its files would be taken for that run's, or in its way.

    Raises:
      InputError: it does.
    """
    for parent in folder.resolve().parents:
        if (parent / CONFIG).is_file() and any((parent / name).exists() for name in (BEST, RESUME, RESULTS)):
            raise InputError(f"{folder} lies in the run {parent}: choose another --output")


def check_no_run(folder: Path) -> None:
    """Checks that a folder for pages or figures can be written, and is not a run's, nor in one.

    Raises:
      InputError: it cannot, or it is.
    """
    check_writable(folder)
    if is_run(folder):
        raise InputError(f"{folder} holds a run: choose another --output")


def _is_own(name):
    """Whether runs, evaluations and audits write a file of that name, or leave it where it could not be written."""
    return bool(_OWN.fullmatch(re.sub(r"^\.(.+)\.part$", r"\1", name)))


def is_derived(name: str) -> bool:
    """Whether runs, evaluations and audits write a file of that name, not a folder of checkpoints."""
    return bool(_OWN.fullmatch(name)) and name not in (RESUME, BEST)


def is_finished(folder: Path) -> bool:
    """Whether a run has written its results."""
    return (folder / RESULTS).exists()


def evaluated(name: str, dataset: str, setting: int, data_seed: int | None) -> str:
    """A file's name for a test that is not the run's own; `data_seed` if that differs too."""
    stem, ending = name.split(".")
    return f"{stem}_{dataset}_setting{setting}" + ("" if data_seed is None else f"_seed{data_seed}") + f".{ending}"


def read_json(path: Path, *, nan: bool = False) -> dict:
    """Reads strict JSON that holds a dict; with `nan`, also NaN. Raises `OSError`, `ValueError` or `RecursionError`."""

    def refuse(word):
        raise ValueError(f"{word} is not a JSON number")

    contents = json.loads(path.read_text(encoding="utf-8"), parse_constant=None if nan else refuse)
    if not isinstance(contents, dict):
        raise ValueError("no fields")
    return contents


def best_record(folder: Path) -> dict | None:
    """The record of a run's `best/`, None if there is none; not checked against the arrays, and without jax.

    Its digest is the run's: what was made from these parameters carries it.

    Raises:
      InputError: one that cannot be read.
    """
    return _record(folder / BEST, "use another copy")


def resume_record(folder: Path) -> dict | None:
    """Like `best_record`, of the save that a resume continues."""
    return _record(folder / RESUME, "use --overwrite to start the run anew")


def _record(saves, remedy):
    steps = [path for path in saves.glob("[0-9]*") if path.name.isdecimal()] if saves.is_dir() else []
    if not steps:
        return None
    try:
        # The losses of a seed that diverged are NaN there.
        return read_json(max(steps, key=lambda path: int(path.name)) / "record" / "metadata", nan=True)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{saves}: the checkpoint's record is damaged ({error}); {remedy}") from error


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run, finished or not."""
    return any((folder / name).exists() for name in (CONFIG, RESULTS, BEST))


def clear(folder: Path) -> None:
    """Removes what runs write into their folder, and nothing else."""
    for name in sorted(_entries(folder), key=lambda name: name != RESULTS):  # first: it says that the run is finished
        path = folder / name
        if _is_own(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def locked(folder: Path, *, leave: bool = True) -> Iterator[None]:
    """Makes `folder` and holds it for this process; the lock dies with the process.

    `leave`: whether the lock's file stays where there was none.

    Raises:
      BusyError: another process holds it.
      InputError: it cannot be written.
    """
    path = folder / LOCK
    leave = leave or path.exists()
    lock = FileLock(path)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise BusyError(
                f"{folder}: another process is at work in it; wait for it, or name another folder"
            ) from error
    try:
        yield
    finally:
        if not leave:
            path.unlink(missing_ok=True)  # a waiting process notices, and makes a new one
        lock.release()


@contextlib.contextmanager
def held(*folders: Path) -> Iterator[None]:
    """Holds those of some folders that hold a run and can be written.

    Raises:
      BusyError: another process holds one of them.
    """
    with contextlib.ExitStack() as stack:
        for folder in {folder.resolve(): folder for folder in folders if is_run(folder)}.values():
            if os.access(folder, os.W_OK):
                stack.enter_context(locked(folder, leave=False))
        yield


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the system says about a folder into one line. Raises `InputError`: it cannot be written."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): choose another --output") from error


def check_writable(folder: Path) -> None:
    """Checks that a folder can be written, or made: a folder made there is removed.

    Raises:
      InputError: it cannot, or it lies in a run's folder.
    """
    check_outside(folder)
    with writing(folder):
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_symlink() or path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is no folder")
        tempfile.TemporaryDirectory(prefix=".", dir=there).cleanup()


def _entries(folder):
    try:
        return {entry.name for entry in folder.iterdir()} - {LOCK, *_OF_SYSTEMS}
    except FileNotFoundError:
        return set()
    except NotADirectoryError as error:
        raise InputError(f"{folder} is a file, or is below one: choose another --output") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): choose another --output") from error
