"""Finished runs gathered in one folder: their numbers copied, tables, figures and pages made of them."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np

from experiments.reporting import invariant_page, mnist_rot_page, pages, plots, tables, uniform_page
from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs import reading
from experiments.runs.results import write_curves
from experiments.settings import DATASETS

_TURNS = "input-turns.md"  # a page of `benchmarks`
_FIGURES = ("figure3", "confusion")
_PAGES = {invariant_page.PAGE, mnist_rot_page.PAGE, uniform_page.PAGE}
_MADE = {"angles.png", *_PAGES, *(f"{name}.png" for name in _FIGURES)} | {
    f"{name}_{dataset}.png" for name in _FIGURES for dataset in DATASETS
}
"""What one call makes and another may not: it goes when its cells are gone."""


def gather(run_dirs: list[Path], output: Path, command: str, single_file: bool = False) -> list[str]:
    """Copies the runs' numbers to OUTPUT/DATASET/settingN_MODEL/ and writes the tables, figures and pages.

    Cells that are in `output` already, from earlier calls, are taken in. Returns the names of what was written.
    All is read, and all is drawn, before anything is written.

    Raises:
      InputError: no finished run, or one whose files cannot be read or contradict each other.
    """
    folders.check_no_run(output)
    named, run_dirs = bool(run_dirs), _folders(run_dirs)
    run_dirs = run_dirs or sorted(Path("checkpoints").glob("setting*"))
    new = [folder for folder in run_dirs if folders.is_finished(folder)]
    missing = sorted(set(run_dirs) - set(new))
    if named and missing:
        raise InputError(f"{missing[0]} is not a finished run: it has no {folders.RESULTS}")
    found = [(reading.read(folder), folder) for folder in new]
    _check_different(found)
    targets = {_target(output, cell): folder for cell, folder in found}
    for target, folder in targets.items():
        if (target.is_symlink() or _holds_a_run(target)) and target.resolve() != folder.resolve():
            raise InputError(
                f"{target} is, or links to, another run than {folder}: remove it, or choose another --output"
            )
    kept = gathered(output, but=targets)
    with tempfile.TemporaryDirectory() as made:
        made = Path(made)
        copies = {target: made / target.relative_to(output) for target in targets}
        for (cell, folder), copy in zip(found, copies.values(), strict=True):
            _copy(cell, folder, copy)
            kept[copy] = cell
        if not kept:
            raise InputError("no finished run found: name the folders of finished runs, or train one first")
        names = _write(made, kept, command, single_file, output)
        for target, folder in targets.items():
            if target.resolve() == folder.resolve():  # a link to the run's own folder needs no copy
                del copies[target]
        _move(made, output, names, copies)
    return names


def _holds_a_run(folder: Path) -> bool:
    """Whether a folder is a run's own, not one of copies."""
    return any((folder / name).exists() for name in (folders.RESUME, folders.BEST))


def gathered(output: Path, but: Collection[Path] = ()) -> dict[Path, dict]:
    """Returns {folder: results.json} of the cells that earlier calls copied to `output`, except those in `but`.

    Raises:
      InputError: one that cannot be read, or that stands in the folder of another.
    """
    kept = {}
    for path in sorted(output.glob(f"*/setting*_*/{folders.RESULTS}")):
        if path.parent in but:
            continue
        kept[path.parent] = cell = reading.read(path.parent)
        if _target(output, cell) != path.parent:
            if _holds_a_run(path.parent):
                raise InputError(f"{output} holds runs themselves, such as {path.parent.name}: name another folder")
            raise InputError(f"{path} is of {_target(Path(), cell)}: remove it from there")
    return kept


def _folders(paths):
    """Paths, each once, without files that no run writes: checkpoints/* names its README too."""
    paths = list({path.resolve(): path for path in reversed(paths)}.values())[::-1]
    return [path for path in paths if not path.is_file() or folders.is_derived(path.name)] or paths


def _copy(cell, folder, copy):
    """The files with a run's numbers; what the run lacks, its copy lacks too."""
    copy.mkdir(parents=True)
    folders.write_json(copy / folders.RESULTS, cell)
    write_curves(copy / folders.CURVES, cell)
    for name in (folders.CONFIG, folders.ANGLES, folders.UNIFORM):
        if (folder / name).exists():
            shutil.copyfile(folder / name, copy / name)
    try:
        reading.read_angles(copy, cell)
        reading.read_uniform(copy, cell)
    except InputError as error:  # the user's file is the run's own
        raise InputError(str(error).replace(str(copy), str(folder))) from error
    if reading.read(copy) != cell or reading.read(folder) != cell:
        raise InputError(f"{folder} was written while it was read: give the command again")


def _write(made, kept, command, single_file, output):
    """Writes all into the folder `made`; `output` may hold pages and figures of `benchmarks`."""
    cells = list(kept.values())
    pages.write_markdown(made / "table2.md", cells, command)
    pages.write_table(made / "table2.csv", cells)
    figures = _figures(made, kept)
    pages.write_html(made / "report.html", cells, figures, command, single_file)
    more = [*invariant_page.write(made, kept, (output / _TURNS).exists()), *uniform_page.write(made, kept)]
    more += mnist_rot_page.write(made, kept, read_claims(output / mnist_rot_page.CLAIMS))
    return ["table2.md", "table2.csv", *more, *(path.name for path in figures.values()), "report.html"]


def read_claims(path: Path) -> dict:
    """What `benchmarks.test_selection` left; nothing if it did not run."""
    try:
        claims = folders.read_json(path) if path.exists() else {}
        for claim in claims.values():
            accuracy = np.array(list(claim["test_accuracy"].values()), float)
            if accuracy.ndim != 2 or not np.isfinite(accuracy).all():
                raise ValueError("no accuracies")
        return claims
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, or put it back") from error


def _move(made, output, names, copies):
    """Puts all that was made in its place, each file in one piece, and removes what has no source any more."""
    for target, copy in copies.items():
        target.mkdir(parents=True, exist_ok=True)
        for path in target.iterdir():
            if folders.is_derived(path.name) and not (copy / path.name).exists():
                path.unlink()
        for path in copy.iterdir():
            _put(path, target / path.name)
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        _put(made / name, output / name)
    for name in _MADE - set(names):
        (output / name).unlink(missing_ok=True)


def _put(source, target):
    with folders.replaced(target) as temporary:
        shutil.copyfile(source, temporary)


def _figures(output, kept):
    """Draws the figures; {caption: path}."""
    figures = {}
    datasets = sorted(Counter(cell["dataset"] for cell in kept.values()).items(), key=lambda item: (-item[1], item[0]))
    for dataset, _ in datasets:
        suffix = "" if dataset == datasets[0][0] else f"_{dataset}"
        cells = [cell for cell in kept.values() if cell["dataset"] == dataset]
        caption = f"Figure 3, {dataset}: training loss (blue) and validation accuracy (orange), seeds thin, mean bold"
        figures[caption] = output / f"figure3{suffix}.png"
        plots.plot_cell_curves(figures[caption], cells)
        caption = f"Confusion, {dataset}: per cent of each class (rows), all seeds that did not fail"
        figures[caption] = output / f"confusion{suffix}.png"
        plots.plot_confusion(figures[caption], cells)
    lines, drawn = {}, []
    for folder, cell in sorted(kept.items(), key=lambda item: tables.order(item[1])):
        angles = reading.read_angles(folder, cell)
        if angles is not None:
            lines[cell["dataset"], cell["setting"], tables.label(cell)] = angles[0], tables.of_good(cell, angles[1])
            drawn.append(cell)
    if lines:
        plots.plot_angle_lines(output / "angles.png", lines, drawn)
        caption = "Test accuracy against the angle of all test images, mean of the seeds that did not fail"
        figures[caption] = output / "angles.png"
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
