"""What a command line does around a training: data, folder, signals, progress, exit codes."""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

import jax
from rich.console import Console

from experiments import arguments, folders, machines, schedule
from experiments.arguments import BusyError, InputError
from experiments.cell import Interrupted, Training, data_digest
from experiments.checkpoints import CheckpointError, has_checkpoint, restore_record
from experiments.data import DataError, load, resolve_dataset
from experiments.progress import Bar, duration
from experiments.results import print_tables
from experiments.schedule import Planned


def guarded(command: argparse.ArgumentParser, action, *, again: str = "continue with --resume", busy: int = 2) -> int:
    """Runs `action` and turns what it raises into exit codes: bad input 2, failure 1, interruption 130.

    Args:
      again: how to go on after an interruption.
      busy: exit code where another process is at work in the folder.
    """
    try:
        _join_machines()
        action()
    except (InputError, DataError, CheckpointError) as error:
        if isinstance(error, BusyError) and busy != 2:
            print(error, file=sys.stderr)
            return busy
        command.error(str(error))
    except (Interrupted, KeyboardInterrupt):
        print(f"interrupted: {again}", file=sys.stderr)
        return arguments.INTERRUPTED
    except OSError as error:
        print(f"{command.prog}: failed: {error}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        remedy = "train fewer seeds at once (--seeds) or a smaller --batch-size"
        print(f"{command.prog}: failed: the device's memory is full; {remedy}", file=sys.stderr)
        return 1
    return 0


def _join_machines():
    try:
        machines.join()
    except ValueError as error:
        raise InputError(str(error)) from error


def run(options: argparse.Namespace, command: str) -> None:
    """Trains one cell of the table, as the options of `experiments.run` say."""
    from experiments.run import configuration

    console = _console()
    saved = None
    if options.output:
        _check_folder(options.output, options)
        saved = folders.read_config(options.output) if options.resume else None
    asked = options.dataset or (saved["dataset"] if saved else "auto")
    dataset, line = resolve_dataset(
        asked, options.data_dir, settings=[options.setting], data_seed=options.data_seed or 0
    )
    folder = options.output or Path("checkpoints") / schedule.cell_name(
        options.setting, options.model, dataset, options.init
    )
    _check_folder(folder, options)
    saved = folders.read_config(folder) if options.resume else None
    config = configuration(options, dataset, saved)
    if line:
        console.print(line)
    splits = load(
        config.dataset, config.setting, data_seed=config.data_seed, data_dir=options.data_dir, progress=console.print
    )
    digest = data_digest(splits)
    if saved:
        folders.check_same(folder, saved, config, digest)
    with folders.locked(folder) if machines.is_first() else contextlib.nullcontext():
        _check_folder(folder, options)  # once more, now that it is ours
        if options.resume and folders.is_finished(folder):
            console.print(f"{folder} is finished: nothing to do")
            return
        if options.overwrite and machines.is_first():
            folders.clear(folder)
        if machines.is_first():
            folders.write_config(folder, config, digest)
        _train(console, [config], [folder], {config.setting: splits}, options.resume, command)


def sweep(options: argparse.Namespace, planned: list[Planned], numbers, command: str) -> None:
    """Makes some of a sweep's trainings in this process; each cell is skipped if it is finished, else continued.

    Args:
      numbers: of the trainings, from 1.

    Raises:
      BusyError: another process is at work on one of the cells.
    """
    options.dataset, line = resolve_dataset(
        options.dataset or "auto", options.data_dir, settings=options.settings, data_seed=options.data_seed or 0
    )
    if line:
        _console().print(line)
    for number in numbers:
        _sweep_training(options, planned, number, command)


def _sweep_training(options: argparse.Namespace, planned: list[Planned], number: int, command: str) -> None:
    """Makes one training, for those of its cells that are not finished."""
    from experiments.run import configuration

    console, training = _console(), planned[number - 1]
    configs, run_folders, splits = [], [], {}
    names = training.folder_names(options.dataset, options.init)
    with contextlib.ExitStack() as stack:
        for setting, name in zip(training.settings, names, strict=True):
            folder = options.output / name
            if machines.is_first():
                folders.check(folder, resume=True, overwrite=False)
                stack.enter_context(folders.locked(folder))
            if folders.is_finished(folder):
                console.print(f"{folder} is finished")
                continue
            saved = folders.read_config(folder)
            cell = argparse.Namespace(**{**vars(options), "model": training.model, "setting": setting})
            config = configuration(cell, options.dataset, saved)
            splits[setting] = load(
                config.dataset, setting, data_seed=config.data_seed, data_dir=options.data_dir, progress=console.print
            )
            digest = data_digest(splits[setting])
            if saved:
                folders.check_same(folder, saved, config, digest)
            if machines.is_first():
                folders.write_config(folder, config, digest)
            configs.append(config)
            run_folders.append(folder)
        place = schedule.places(planned, options.dataset)[number - 1]
        for group in _sharing_a_save(configs, run_folders):
            _train(console, *zip(*group, strict=True), splits, True, command, place, is_child=bool(options.child))


def _sharing_a_save(configs, run_folders):
    """Cells in groups that are trained together: all of them, unless one was begun without the others."""
    cells = list(zip(configs, run_folders, strict=True))
    begun = [folder for folder in run_folders if has_checkpoint(folder / folders.RESUME)]
    if not begun:
        return [cells] if cells else []
    saved = restore_record(begun[0] / folders.RESUME).get("settings", [])
    together = begun == run_folders[:1] and {config.setting for config in configs} <= set(saved)
    return [cells] if together else [[cell] for cell in cells]


def _console():
    return Console(soft_wrap=True, quiet=not machines.is_first())


def _check_folder(folder, options):
    if machines.is_first():
        folders.check(folder, resume=options.resume, overwrite=options.overwrite)


def _train(console, configs, run_folders, splits, resume, command, place=None, is_child=False):
    config, parent = configs[0], os.getppid()

    def stop():
        # A child whose sweep was killed stops too: the next sweep continues its work.
        return signals.heard or (is_child and os.getppid() != parent)

    with _Signals() as signals, Bar(console, config, place) as bar:
        training = Training(configs, run_folders, splits, report=bar.report, stop=stop)
        training.start(resume)
        images = training.train[1].shape[0]
        console.print(
            f"{config.model}, setting {config.setting}, {config.dataset}: {len(config.seeds)} seeds, "
            f"{config.epochs} epochs of {training.num_steps} steps ({images:,} images, batches of {config.batch_size})"
        )
        if training.position.epoch or training.position.step:
            console.print(f"resumed after epoch {training.position.epoch}, step {training.position.step}")
        console.print(f"expected duration: about {duration(training.estimate_seconds())}")
        bar.start(training.position, training.num_steps)
        training.run()
    results = training.finish(command)
    for result, folder in zip(results, run_folders, strict=True):
        print_tables(console, result)
        console.print(
            f"saved in {folder}/: results.json, curves.csv, curves.png, checkpoints in best/; "
            f"python -m experiments.evaluate {folder} repeats the test"
        )


class _Signals:
    """Notes Ctrl-C and SIGTERM; the second one ends the process at once, on the last finished save."""

    def __enter__(self):
        self.heard = False
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, *_):
        if self.heard:
            os._exit(arguments.INTERRUPTED)
        self.heard = True
        print("stopping after this step; once more to stop at once", file=sys.stderr)
