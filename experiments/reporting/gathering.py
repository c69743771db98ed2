"""Finished runs gathered in one folder: their numbers copied, tables, figures and pages made of them."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from experiments.reporting import invariant_page, pages, plots, tables
from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs.config import CONFIG
from experiments.runs.results import read_angles

_COPIED = (folders.RESULTS, CONFIG, folders.CURVES, folders.ANGLES)


def gather(run_dirs: list[Path], output: Path, command: str, single_file: bool = False) -> list[str]:
    """Copies the runs' numbers to OUTPUT/DATASET/settingN_MODEL/ and writes the tables, figures and pages.

    Cells that are in `output` already, from earlier calls, are taken in. Returns the names of what was written.

    Raises:
      InputError: no finished run, or one whose results cannot be read.
    """
    named = bool(run_dirs)
    run_dirs = run_dirs or sorted(Path("checkpoints").glob("setting*"))
    new = [folder for folder in run_dirs if folders.is_finished(folder)]
    missing = sorted(set(run_dirs) - set(new))
    if named and missing:
        raise InputError(f"{missing[0]} is not a finished run: it has no {folders.RESULTS}")
    found = [(_read(folder), folder) for folder in new]  # all are read before anything is written
    _check_different(found)
    kept = gathered(output)
    for cell, folder in found:
        target = _target(output, cell)
        kept[target] = cell
        if target.resolve() != folder.resolve():  # a link to the run's own folder needs no copy
            target.mkdir(parents=True, exist_ok=True)
            for name in _COPIED:
                if (folder / name).exists():
                    shutil.copyfile(folder / name, target / name)
    if not kept:
        raise InputError("no finished run found: name the folders of finished runs, or train one first")
    cells = list(kept.values())
    pages.write_markdown(output / "table2.md", cells, command)
    pages.write_table(output / "table2.csv", cells)
    figures = _figures(output, kept)
    pages.write_html(output / "report.html", cells, figures, command, single_file)
    more = invariant_page.write(output, kept)
    return ["table2.md", "table2.csv", *more, *(path.name for path in figures.values()), "report.html"]


def gathered(output: Path) -> dict[Path, dict]:
    """Returns {folder: results.json} of the cells that earlier calls copied to `output`.

    Raises:
      InputError: one that cannot be read.
    """
    return {path.parent: _read(path.parent) for path in sorted(output.glob("*/setting*_*/results.json"))}


def _figures(output, kept):
    """Draws the figures; {caption: path}."""
    figures = {}
    datasets = Counter(cell["dataset"] for cell in kept.values()).most_common()
    for dataset, _ in datasets:
        suffix = "" if dataset == datasets[0][0] else f"_{dataset}"
        cells = [cell for cell in kept.values() if cell["dataset"] == dataset]
        caption = f"Figure 3, {dataset}: training loss (blue) and validation accuracy (orange), seeds thin, mean bold"
        figures[caption] = output / f"figure3{suffix}.png"
        plots.plot_cell_curves(figures[caption], cells)
        caption = f"Confusion, {dataset}: per cent of each class (rows), all seeds that did not fail"
        figures[caption] = output / f"confusion{suffix}.png"
        plots.plot_confusion(figures[caption], cells)
    angles = {
        f"{tables.label(cell)}, setting {cell['setting']}, {cell['dataset']}": folder / folders.ANGLES
        for folder, cell in sorted(kept.items(), key=lambda item: tables.order(item[1]))
        if (folder / folders.ANGLES).exists()
    }
    if angles:
        plots.plot_angle_files(output / "angles.png", angles)
        figures["Test accuracy against the angle of all test images, mean of the seeds"] = output / "angles.png"
    return figures


def _target(output, cell):
    return output / cell["dataset"] / f"setting{cell['setting']}_{tables.label(cell).replace(' (', '_').rstrip(')')}"


def _check_different(found):
    """Two runs of one cell would overwrite each other's numbers."""
    seen = {}
    for cell, folder in found:
        key = _target(Path(), cell)
        if key in seen:
            raise InputError(f"{seen[key]} and {folder} are runs of one cell ({key.name}): name one of them")
        seen[key] = folder


def _read(folder):
    path = folder / folders.RESULTS
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
        tables.all_tables([cell])
        shape = (len(cell["seeds"]), cell["epochs"])
        if any(np.shape(cell[name]) != shape for name in ("train_loss", "validation_curve")):
            raise ValueError("curves of another length than the epochs")
        if np.shape(cell["confusion"])[:1] != shape[:1]:
            raise ValueError("confusion of another number of seeds")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a run's results ({type(error).__name__}: {error})") from error
    if (folder / folders.ANGLES).exists():
        read_angles(folder / folders.ANGLES)  # refused now, not when half of the files are written
    return cell
