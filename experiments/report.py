"""Gathers finished runs into tables and figures, whatever subset of the report's cells exists.

python -m experiments.report checkpoints/* --output results
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import arguments, folders, grids, invariant_page, plots, report_files, tables
from experiments.arguments import InputError
from experiments.results import read_angles

_COPIED = (folders.RESULTS, folders.CONFIG, folders.CURVES, "angles.csv")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__.splitlines()[0])
    result.add_argument("run_dirs", metavar="RUN_DIR", nargs="*", type=Path, help="default: every run in checkpoints/")
    result.add_argument("--output", metavar="DIR", type=Path, required=True, help="holds the tables and figures")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    try:
        written = write(options.run_dirs, options.output, arguments.command_line("experiments.report", argv))
    except (InputError, OSError) as error:
        command.error(str(error))
    print(f"saved in {options.output}/: {', '.join(written)}")
    return 0


def write(run_dirs: list[Path], output: Path, command: str) -> list[str]:
    """Copies the runs' numbers to OUTPUT/DATASET/settingN_MODEL/ and writes the tables, figures and the page.

    Cells that are in `output` already, from earlier calls, are taken in.

    Raises:
      InputError: no finished run, or one whose results cannot be read.
    """
    named = bool(run_dirs)
    run_dirs = run_dirs or sorted(Path("checkpoints").glob("setting*"))
    new = [folder for folder in run_dirs if (folder / folders.RESULTS).exists()]
    missing = sorted(set(run_dirs) - set(new))
    if named and missing:
        raise InputError(f"{missing[0]} is not a finished run: it has no {folders.RESULTS}")
    found = [(_read(folder), folder) for folder in new]  # all are read before anything is written
    _check_different(found)
    kept = gathered(output)
    for cell, folder in found:
        target = _target(output, cell)
        kept[target] = cell
        if target.resolve() != folder.resolve():
            target.mkdir(parents=True, exist_ok=True)
            for name in _COPIED:
                if (folder / name).exists():
                    shutil.copyfile(folder / name, target / name)
    if not kept:
        raise InputError("no finished run found: name the folders of finished runs, or train one first")
    cells = list(kept.values())
    report_files.write_markdown(output / "table2.md", cells, command)
    report_files.write_csv(output / "table2.csv", cells)
    figures = _figures(output, kept)
    report_files.write_html(output / "report.html", cells, figures, command)
    pages = invariant_page.write(output, kept)
    return ["table2.md", "table2.csv", *pages, *(path.name for path in figures.values()), "report.html"]


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
        pictures = {
            f"Figure 3, {dataset}: training loss (blue) and validation accuracy (orange), seeds thin, mean bold": (
                f"figure3{suffix}.png", grids.plot_curves,
            ),
            f"Confusion, {dataset}: per cent of each class (rows), all seeds that did not fail": (
                f"confusion{suffix}.png", grids.plot_confusion,
            ),
        }  # fmt: skip
        for caption, (name, plot) in pictures.items():
            plot(output / name, cells)
            figures[caption] = output / name
    angles = {
        f"{tables.label(cell)}, setting {cell['setting']}, {cell['dataset']}": folder / "angles.csv"
        for folder, cell in sorted(kept.items(), key=lambda item: tables.order(item[1]))
        if (folder / "angles.csv").exists()
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
        report_files.report_tables([cell])
        shape = (len(cell["seeds"]), cell["epochs"])
        if any(np.shape(cell[name]) != shape for name in ("train_loss", "validation_curve")):
            raise ValueError("curves of another length than the epochs")
        if np.shape(cell["confusion"])[:1] != shape[:1]:
            raise ValueError("confusion of another number of seeds")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a run's results ({type(error).__name__}: {error})") from error
    if (folder / "angles.csv").exists():
        read_angles(folder / "angles.csv")  # refused now, not when half of the files are written
    return cell


if __name__ == "__main__":
    sys.exit(main())
