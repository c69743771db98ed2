"""One cell of the table: its options and data, checked against its folder. Nothing is written.

Without jax, so that a sweep lists its finished cells without delay.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import data
from experiments.data import Split
from experiments.rules import InputError
from experiments.runs import config as configs
from experiments.runs import folder as folders
from experiments.runs import reading
from experiments.runs.exit_codes import BusyError
from experiments.runs.plan import Planned
from experiments.settings import SETTINGS, RunConfig

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the report's table: its configuration, its folder and its data."""

    config: RunConfig
    folder: Path
    splits: dict[str, Split]
    data_digest: str

    def check_folder(self) -> None:
        """Checks that the run in the folder, if there is one, has these options and data, and so has its save.

        Raises:
          InputError: the first that differs.
        """
        saved = configs.read(self.folder)
        if saved:
            configs.check_same(self.folder, saved, self.config, self.data_digest)
        if folders.is_finished(self.folder):
            reading.read(self.folder)
        else:
            save = folders.resume_record(self.folder)
            configs.check_save(self.folder / folders.RESUME, save, self.config, self.data_digest)


def requested(folder: Path, model: str, setting: int, given: dict, data_dir, say: Say, *, saved: dict | None) -> Cell:
    """The cell that the options describe.

    `given`: fields of `RunConfig`, the data set among them; the others are those of the run that is `saved` in the
    folder, where the caller continues it, or the protocol's.

    Raises:
      InputError: data that cannot be obtained.
    """
    config = configs.configuration(model, setting, given["dataset"], given, saved)
    splits = data.load(config.dataset, setting, data_seed=config.data_seed, data_dir=data_dir, progress=say)
    return Cell(config, folder, splits, data.digest(splits))


def of_sweep(planned: Planned, output: Path, given: dict, data_dir, say: Say, *, anew: bool = False) -> list[Cell]:
    """The cells of a training; what a sweep does not name is the protocol's, in finished and started cells too.

    `anew`: whatever their folders hold.

    Raises:
      InputError: a cell that was made, or started, with other options or data.
    """
    cells = []
    for setting, name in zip(planned.settings, planned.folder_names(given["dataset"], given.get("init")), strict=True):
        folder = output / name
        saved = None if anew else configs.read(folder)
        if saved:  # before data are loaded for it
            config = configs.configuration(planned.model, setting, given["dataset"], given)
            configs.check_same(folder, saved, config)
        elif not anew and folders.is_finished(folder):
            raise InputError(f"{folder} has no {folders.CONFIG} that says how it was made: choose another --output")
        cells.append(requested(folder, planned.model, setting, given, data_dir, say, saved=None))
        if not anew:
            cells[-1].check_folder()
    return cells


def are_finished(planned: Planned, output: Path, given: dict, data_dir, say: Say) -> bool:
    """Whether all cells of a training are finished, with these options and data.

    Raises:
      InputError: they are finished, but with other options or data.
    """
    names = planned.folder_names(given["dataset"], given.get("init"))
    if not all(folders.is_finished(output / name) for name in names):
        return False
    return bool(of_sweep(planned, output, given, data_dir, say))


def hand_over(cells: Sequence[Cell], say: Say) -> None:
    """Gives the other settings of an interrupted sweep a copy of the save that is theirs too, before `cells` go on.

    The save is in the first one's folder. A setting on which another process is at work is left alone.

    Raises:
      InputError: a copy cannot be written.
    """
    saves, own = cells[0].folder / folders.RESUME, {cell.config.setting for cell in cells}
    try:
        record = folders.resume_record(cells[0].folder) or {}
    except InputError:  # damaged: of no use to another
        return
    for setting in set(record.get("settings", [])) - own:
        folder = _of_setting(cells[0], setting)
        with contextlib.suppress(BusyError):
            if _shares(folder, record):
                with folders.locked(folder):
                    if _shares(folder, record):  # again, now that the folder is locked
                        _copy(saves, folder)
                        say(f"the save is of setting {setting} too: {folder} has a copy now, and goes on from it")


def _copy(saves, folder):
    """Copies saves, whole or not at all, into a folder that has none."""
    part = folder / f".{folders.RESUME}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(saves, part)
        shutil.rmtree(folder / folders.RESUME, ignore_errors=True)  # empty
        part.replace(folder / folders.RESUME)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        reason = error.strerror or str(error.args[0][0][-1] if isinstance(error, shutil.Error) else error)
        raise InputError(
            f"{folder}: {saves}, which is this run's too, cannot be copied into it ({reason}): make room, or continue "
            "both by the sweep's command"
        ) from error


def _of_setting(cell, setting):
    name = cell.folder.name.replace(f"setting{cell.config.setting}_", f"setting{setting}_", 1)
    return cell.folder.with_name(name)


def _shares(folder, record):
    """Whether a run was started with what a save says, and has neither a save nor results of its own."""
    try:
        saved = configs.read(folder)
        if not saved or folders.is_finished(folder) or folders.resume_record(folder):
            return False
    except InputError:  # that run's own
        return False
    now = configs.of_save([RunConfig.checked(saved)], [saved.get("data_digest", "")])
    was = record.get("config")
    if not isinstance(was, dict) or configs.of_older(was) | {"data_digest": None} != now | {"data_digest": None}:
        return False
    return now["data_digest"].items() <= (was.get("data_digest") or {}).items()


def saved_with(cell: Cell) -> Path | None:
    """The folder of another setting whose save, of an interrupted sweep, is this cell's too, if this one has none."""
    if folders.resume_record(cell.folder):
        return None
    now = configs.of_save([cell.config], [cell.data_digest]) | {"data_digest": None}
    for setting in set(SETTINGS) - {cell.config.setting}:
        folder = _of_setting(cell, setting)
        try:
            record = folders.resume_record(folder) or {}
        except InputError:  # that run's own
            continue
        was = record.get("config")
        is_alike = isinstance(was, dict) and configs.of_older(was) | {"data_digest": None} == now
        if cell.config.setting in record.get("settings", []) and is_alike:
            return folder
    return None
