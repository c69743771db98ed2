"""What a command line does around a training: data, folder, signals, progress, exit codes."""

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments import arguments, folders, machines
from experiments.arguments import InputError
from experiments.cell import Interrupted, Training, data_digest
from experiments.checkpoints import CheckpointError
from experiments.data import DataError, load, resolve_dataset
from experiments.results import print_tables
from experiments.settings import DATASETS, RunConfig

_LINE_EVERY = 30.0  # seconds between lines where there is no terminal for a bar


def guarded(command: argparse.ArgumentParser, action) -> int:
    """Runs `action` and turns what it raises into exit codes: bad input 2, failure 1, interruption 130."""
    try:
        _join_machines()
        action()
    except (InputError, DataError, CheckpointError) as error:
        command.error(str(error))
    except (Interrupted, KeyboardInterrupt):
        print("interrupted: continue with --resume", file=sys.stderr)
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
    folder = options.output or Path("checkpoints") / f"setting{options.setting}_{options.model}_{dataset}"
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


def sweep(options: argparse.Namespace, command: str) -> None:
    """Trains the cells that `experiments.sweep` names, skipping finished ones and resuming interrupted ones.

    Raises:
      InputError: at the end, if cells failed.
    """
    from experiments.sweep import shares

    console = _console()
    dataset, line = resolve_dataset(
        options.dataset or "auto", options.data_dir, settings=options.settings, data_seed=options.data_seed or 0
    )
    if line:
        console.print(line)
    trainings, failed = shares(options.settings, options.models, options.shard), []
    for number, (model, settings) in enumerate(trainings, 1):
        console.rule(f"training {number} of {len(trainings)}: {model}, settings {', '.join(map(str, settings))}")
        try:
            _sweep_training(console, options, dataset, model, settings, command)
        except (InputError, CheckpointError, OSError) as error:
            failed.append(f"{model}, settings {', '.join(map(str, settings))}: {error}")
            console.print(f"failed: {failed[-1]}")
    if failed:
        raise InputError(f"{len(failed)} of {len(trainings)} trainings failed: " + "; ".join(failed))


def _sweep_training(console, options, dataset, model, settings, command):
    """One training for those of its settings that are not finished."""
    from experiments.run import configuration

    configs, run_folders, splits, saved = [], [], {}, []
    for setting in settings:
        folder = options.output / f"setting{setting}_{model}_{dataset}"
        if machines.is_first():
            folders.check(folder, resume=True, overwrite=False)
        if folders.is_finished(folder):
            console.print(f"{folder} is finished")
            continue
        saved.append(folders.read_config(folder))
        cell = argparse.Namespace(**{**vars(options), "model": model, "setting": setting})
        configs.append(configuration(cell, dataset, saved[-1]))
        run_folders.append(folder)
        splits[setting] = load(
            dataset, setting, data_seed=configs[-1].data_seed, data_dir=options.data_dir, progress=console.print
        )
    with contextlib.ExitStack() as stack:
        for config, folder, before in zip(configs, run_folders, saved, strict=True):
            digest = data_digest(splits[config.setting])
            if before:
                folders.check_same(folder, before, config, digest)
            if machines.is_first():
                stack.enter_context(folders.locked(folder))
                folders.write_config(folder, config, digest)
        if configs:
            _train(console, configs, run_folders, splits, True, command)


def _console():
    return Console(soft_wrap=True, quiet=not machines.is_first())


def _check_folder(folder, options):
    if machines.is_first():
        folders.check(folder, resume=options.resume, overwrite=options.overwrite)


def _train(console, configs, run_folders, splits, resume, command):
    config = configs[0]
    with _Signals() as signals, _Bar(console, config) as bar:
        training = Training(configs, run_folders, splits, report=bar.report, stop=lambda: signals.heard)
        training.start(resume)
        images = training.train[1].shape[0]
        console.print(
            f"{config.model}, setting {config.setting}, {config.dataset}: {len(config.seeds)} seeds, "
            f"{config.epochs} epochs of {training.num_steps} steps ({images:,} images, batches of {config.batch_size})"
        )
        if training.position.epoch or training.position.step:
            console.print(f"resumed after epoch {training.position.epoch}, step {training.position.step}")
        console.print(f"expected duration: about {_duration(training.estimate_seconds())}")
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


class _Bar:
    """A progress bar with loss, validation accuracy and ETA; lines now and then where there is no terminal."""

    def __init__(self, console: Console, config: RunConfig):
        self.console, self.config = console, config
        self.num_validation = DATASETS[config.dataset].num_images("validation", config.setting)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal, refresh_per_second=4)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.progress.stop()

    def start(self, position, num_steps):
        """Shows the bar from `position` on."""
        total = self.config.epochs * num_steps
        self.task = self.progress.add_task(self.config.model, total=total, status="")
        self.progress.start()
        self.progress.update(self.task, completed=position.epoch * num_steps + position.step)
        self.began, self.done_at_start, self.said = time.monotonic(), position.epoch * num_steps + position.step, -1e9

    def report(self, position, num_steps):
        """Called after each step and each epoch."""
        done = position.epoch * num_steps + position.step
        status = self._status(position)
        self.progress.update(self.task, completed=done, status=status)
        now, total = time.monotonic(), self.config.epochs * num_steps
        if not self.console.is_terminal and position.step == 0 and (now - self.said > _LINE_EVERY or done == total):
            left = (now - self.began) / max(done - self.done_at_start, 1) * (total - done)
            self.console.print(f"{status}, {_duration(now - self.began)} gone, about {_duration(left)} to go")
            self.said = now

    def _status(self, position):
        text = f"epoch {min(position.epoch + (position.step > 0), self.config.epochs)}/{self.config.epochs}"
        if position.train_loss:
            loss = sum(position.train_loss[-1]) / len(position.train_loss[-1])
            counts = position.validation_correct[str(self.config.setting)][-1]
            text += f", loss {loss:.4f}, validation {sum(counts) / len(counts) / self.num_validation:.4f}"
        return text


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, hours = seconds // 60, seconds // 3600
    return f"{minutes} min {seconds % 60} s" if not hours else f"{hours} h {minutes % 60} min"
