"""Runs from options to results: a cell's folder and data, its training, and what it leaves behind.

`run` makes one cell; `train_planned` one training of a sweep or a ladder, for those of its cells that are not finished.
"""

import contextlib
import dataclasses
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from experiments import data
from experiments.runs import cells as cells_of
from experiments.runs import config as configs
from experiments.runs import folder as folders
from experiments.runs import plan
from experiments.runs.best import write_best
from experiments.runs.checkpoints import (
    CheckpointError,
    Checkpoints,
    basis_record,
    check_basis,
    has_checkpoint,
    restore,
    restore_record,
)
from experiments.runs.exit_codes import Interrupted, Signals
from experiments.runs.folder import write_json
from experiments.runs.plan import Place, Planned
from experiments.runs.progress import Bar, duration
from experiments.runs.results import commit, print_tables, summarize, with_last, write_curves
from experiments.training import processes
from experiments.training.devices import device_name
from experiments.training.loop import Loop, Position
from experiments.training.network import abstract_model

Draw = Callable[[Path, dict], None]
"""Draws the curves of a results.json into a file."""


def run(options: Namespace, command: str, draw: Draw) -> None:
    """Trains one cell, as the options of `experiments.run` say."""
    console, saved = first_console(), None
    if options.output:  # before data are looked for
        _check(options.output, options.resume, options.overwrite)
        saved = configs.read(options.output) if options.resume else None
    name = options.dataset or (saved["dataset"] if saved else "auto")
    dataset = resolve(console, options, name, [options.setting])
    folder = options.output or Path("checkpoints") / plan.cell_name(
        options.setting, options.model, dataset, options.init
    )
    given = configs.given(options) | {"dataset": dataset}
    _check(folder, options.resume, options.overwrite)
    if processes.is_first() and not (options.resume and folders.is_finished(folder)):
        folders.check_writable(folder)
    saved = configs.read(folder) if options.resume else None
    if saved:  # before data are prepared for it
        config = configs.configuration(options.model, options.setting, dataset, given, saved)
        configs.check_same(folder, saved, config)
    cell = cells_of.requested(
        folder, options.model, options.setting, given, options.data_dir, console.print, saved=saved
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        if _taken(stack, console, cell, resume=options.resume, overwrite=options.overwrite):
            _prepare(console, [cell], overwrite=options.overwrite)
            if options.resume and (other := cells_of.saved_with(cell)):
                console.print(f"{other} has the save of both: the sweep's command continues it, this one starts anew")
            _train(console, [cell], command, options.data_dir, draw, resume=options.resume)


def sweep(options: Namespace, planned: list[Planned], numbers, command: str, draw: Draw) -> None:
    """Makes those `numbers` (from 1) of a sweep's trainings in this process; finished cells are skipped.

    Raises:
      BusyError: another process is at work on one of the cells.
    """
    console = first_console()
    dataset = resolve(console, options, options.dataset or "auto", options.settings)
    names = [name for number in numbers for name in planned[number - 1].folder_names(dataset, options.init)]
    done = not options.overwrite and all(folders.is_finished(options.output / name) for name in names)
    if processes.is_first() and not done:
        folders.check_writable(options.output)
    places, given = plan.places(planned, dataset, options.epochs), configs.given(options) | {"dataset": dataset}
    for number in numbers:
        train_planned(console, planned[number - 1], options.output, given, options.data_dir, command, draw,
                      overwrite=options.overwrite, place=places[number - 1], is_child=bool(options.child))  # fmt: skip


def train_planned(
    console, planned: Planned, output: Path, given: dict, data_dir, command: str, draw: Draw, *, overwrite=False, **more
):
    """Makes one training, for those of its cells in `output` that are not finished; `overwrite`: anew, for all of them.

    `given`: fields of `RunConfig`, the data set among them; the others are the protocol's. `more`: the `place` in a
    sweep, and whether this is its child.
    """
    cells, start = [], {"resume": not overwrite, "overwrite": overwrite}
    for cell in cells_of.of_sweep(planned, output, given, data_dir, console.print, anew=overwrite):
        if not overwrite and folders.is_finished(cell.folder):  # takes no lock: an evaluation may hold it
            console.print(f"{cell.folder} is finished")
            continue
        _check(cell.folder, **start)  # all of them, before anything is written
        cells.append(cell)
    with contextlib.ExitStack() as stack:
        taken = [cell for cell in cells if _taken(stack, console, cell, **start)]
        for group in [taken] if overwrite else _sharing_a_save(taken):
            _prepare(console, group, overwrite=overwrite)
            _train(console, group, command, data_dir, draw, resume=not overwrite, **more)


def first_console() -> Console:
    """A console that speaks in the first of several processes only."""
    return Console(soft_wrap=True, markup=False, emoji=False, quiet=not processes.is_first())


def resolve(console: Console, options: Namespace, name: str, settings) -> str:
    """The data set that `name` stands for; prints its name if it differs."""
    dataset, line = data.resolve_dataset(
        name, options.data_dir, settings=settings, data_seed=options.data_seed or 0
    )  # fmt: skip
    if line:
        console.print(line)
    return dataset


def _taken(stack, console, cell, *, resume, overwrite) -> bool:
    """Makes a cell's folder this process's own until `stack` ends, unless its run is finished; changes nothing else."""

    def finished():
        if resume:
            cell.check_folder()
        done = resume and folders.is_finished(cell.folder)
        if done:
            console.print(f"{cell.folder} is finished: nothing to do")
        return done

    _check(cell.folder, resume, overwrite)
    if finished():  # takes no lock: that would be a change
        return False
    if processes.is_first():
        stack.enter_context(folders.locked(cell.folder))
        _check(cell.folder, resume, overwrite)  # again, now that the folder is locked
    return not finished()


def _prepare(console, cells, *, overwrite):
    """Makes the folders of cells that are trained together ready; they are this process's own."""
    if processes.is_first():
        cells_of.hand_over(cells, console.print)
        for cell in cells:
            if overwrite:
                folders.clear(cell.folder)
            configs.write(cell.folder, cell.config, cell.data_digest)


def _check(folder, resume, overwrite):
    if processes.is_first():
        folders.check(folder, resume=resume, overwrite=overwrite)


def _sharing_a_save(cells):
    """Cells in groups that are trained together: all of them, unless one was started without the others."""
    started = [cell.folder for cell in cells if has_checkpoint(cell.folder / folders.RESUME)]
    if not started:
        return [cells] if cells else []
    saved = restore_record(started[0] / folders.RESUME).get("settings", [])
    together = started == [cells[0].folder] and {cell.config.setting for cell in cells} <= set(saved)
    return [cells] if together else [[cell] for cell in cells]


def _train(console, cells, command, data_dir, draw, *, resume, place: Place | None = None, is_child=False):
    config, parent = cells[0].config, os.getppid()

    def stop():
        # A child whose sweep was killed stops too: the next sweep continues its work.
        return signals.heard or (is_child and os.getppid() != parent)

    with Signals() as signals, Bar(console, config, place) as bar:
        loop = Loop([cell.config for cell in cells], {cell.config.setting: cell.splits for cell in cells})
        save = cells[0].folder / folders.RESUME
        made = _begin(loop, save if resume and has_checkpoint(save) else None, command)
        images = loop.train[1].shape[0]
        console.print(
            f"{config.model}, setting {config.setting}, {config.dataset}: {len(config.seeds)} seeds, "
            f"{config.epochs} epochs of {loop.num_steps} steps ({images:,} images, batches of {config.batch_size})"
        )
        if loop.position.epoch or loop.position.step:
            console.print(f"resumed after epoch {loop.position.epoch}, step {loop.position.step}")
        console.print(f"expected duration: about {duration(loop.estimate_seconds())}")
        bar.start(loop.position, loop.num_steps)
        if not _run(loop, cells, made, bar.report, stop):
            raise Interrupted
    for cell, results in _finish(loop, cells, made, draw):
        print_tables(console, results)
        where = [] if data_dir is None else ["--data-dir", str(data_dir)]
        console.print(
            f"saved in {cell.folder}/: results.json, curves.csv, curves.png, checkpoints in best/; "
            f"{configs.shown('evaluate', cell.folder, *where)} repeats the test"
        )


def _begin(loop, save, command):
    """Starts a loop, from a save if there is one; returns the commits, commands and devices that train it, or did."""
    rows, position, record = _restored(loop, save) if save else (None, None, {})
    loop.start(rows, position)
    now = {"commits": commit(), "commands": command, "devices": device_name()}
    return {name: with_last(record.get(name, ["unknown"] if record else []), value) for name, value in now.items()}


def _run(loop, cells, made, report, stop):
    """Trains to the last epoch, or until `stop`; one process saves."""
    folder, record = cells[0].folder / folders.RESUME, {"seeds": list(loop.config.seeds), "settings": loop.settings}
    record |= made
    record["config"] = configs.of_save([cell.config for cell in cells], [cell.data_digest for cell in cells])
    record["basis"] = basis_record(abstract_model(loop.network))
    saver = Checkpoints(folder) if processes.is_first() else None

    def save(step, arrays, position):
        if saver:
            saver.save(step, arrays, {**record, "position": dataclasses.asdict(position)})

    try:
        return loop.run(report=report, stop=stop, save=save)
    finally:
        if saver:
            saver.close()


def _restored(loop, folder):
    """States, position and record of a save that may have been made for more settings than this training's."""
    own = [str(setting) for setting in loop.settings]
    saved = [str(setting) for setting in restore_record(folder).get("settings", own)]
    if not set(own) <= set(saved):
        raise CheckpointError(f"{folder}: saved for setting {', '.join(saved)} only; use --overwrite")
    target = loop.programs.abstract_rows()
    target["best"] = dict.fromkeys(saved, target["best"][own[0]])
    states, record = restore(folder, target)
    if record["seeds"] != list(loop.config.seeds):
        raise CheckpointError(f"{folder}: saved with the seeds {record['seeds']}; use --overwrite")
    check_basis(folder, record.get("basis", {}), abstract_model(loop.network))
    states["best"] = {name: states["best"][name] for name in own}
    position = Position(**record["position"])
    if position.epoch > loop.config.epochs:
        raise CheckpointError(f"{folder}: saved after epoch {position.epoch} of a longer training; use --overwrite")
    position.validation_correct = {name: position.validation_correct.get(name, []) for name in own}
    return states, position, record


def _finish(loop, cells, made, draw):
    """Tests the best epochs once and writes all results; returns (cell, results.json) of each.

    The folder with the save that a resume needs is finished last.
    """
    results = []
    for cell in reversed(cells):
        best, confusion = loop.best(cell.config.setting, cell.splits["test"])
        results.append((cell, _summary(loop, cell, best["epoch"], confusion, made)))
        if processes.is_first():
            arrays = {"params": best["params"], "stats": best["stats"]}
            epochs = np.asarray(best["epoch"]).tolist()
            failed = results[-1][1]["failed_seeds"]
            digest = write_best(cell.folder, cell.config, loop.network, arrays, epochs, failed)
            results[-1][1]["best_digest"] = digest
            write_curves(cell.folder / folders.CURVES, results[-1][1])
            draw(cell.folder / folders.CURVES_PLOT, results[-1][1])
            write_json(cell.folder / folders.RESULTS, results[-1][1])  # last: it says that the run is finished
    return results[::-1]


def _summary(loop, cell, best_epoch, confusion, made):
    position = loop.position
    return summarize(
        cell.config,
        loop.curves(cell.config.setting),
        best_epoch,
        confusion,
        num_validation=cell.splits["validation"].labels.shape[0],
        num_parameters=sum(leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(loop.states["params"])),
        train_images_per_second=position.images / max(position.seconds, 1e-9),
        compile_seconds=position.compile_seconds,
        wall_seconds=position.wall_seconds,
        command="; ".join(made["commands"]),
        device="; ".join(made["devices"]),
        commit=", ".join(filter(None, made["commits"])),
    )
