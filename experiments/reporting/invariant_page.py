"""The page invariant.md: what the invariant network reaches against what was asked, beside the plain network."""

from pathlib import Path

import numpy as np

from experiments.reporting import pages
from experiments.reporting.tables import Table, label
from experiments.runs.folder import ANGLES
from experiments.runs.results import read_angles
from experiments.settings import MODELS

PAGE = "invariant.md"
_INVARIANT = [name for name, spec in MODELS.items() if spec.page == "invariant"]
_OURS, *_SHORT = sorted(_INVARIANT, key=lambda name: not MODELS[name].beside)
_COLUMNS = (*MODELS[_OURS].beside, _OURS)


def write(output: Path, kept: dict[Path, dict]) -> list[str]:
    """Writes OUTPUT/invariant.md if there is a cell of an invariant network; its name, or nothing.

    Args:
      kept: {folder: results.json} of all cells; a folder may hold angles.csv.
    """
    cells = {(cell["dataset"], cell["setting"], cell["model"]): (cell, folder)
             for folder, cell in kept.items() if cell["init"] == "report"}  # fmt: skip
    found = [cell for cell in kept.values() if cell["model"] in _INVARIANT]
    if not found:
        return []
    short = [_short(cell) for (_, _, name), (cell, _) in sorted(cells.items(), key=lambda item: item[0])
             if name in _SHORT and cell["mean"] is not None]  # fmt: skip
    numbers = "\n\n".join([pages.markdown(_numbers(cells)), *short])
    found.sort(key=lambda cell: (cell["dataset"], cell["setting"], cell["model"]))
    pages.fill(output / PAGE, numbers=numbers, conditions="\n".join(map(_condition, found)))
    return [PAGE]


def _numbers(cells):
    """Each thing that was asked for: what the networks reach, what was asked and what was hoped for."""
    # What, how it is measured, what was asked at least and hoped for: a bound, or points above the plain network's.
    asked = [
        ("setting 3, test (trained upright, tested rotated)", _mean(3), ".93", ".96", _least(0.93, 0.96)),
        ("upright minus rotated accuracy, the same network (setting 3)", _gap, "at most .03", ".005",
         _most(0.03, 0.005)),
        ("the worst angle, every 15 degrees (trained upright)", _worst_angle, ".91", ".95", _least(0.91, 0.95)),
        ("setting 1, test", _mean(1), "`lenet` +.00", "+.015", _above(0.0, 0.015)),
        ("setting 2, test", _mean(2), "`lenet` +.00", "+.01", _above(0.0, 0.01)),
        ("setting 4, test", _mean(4), "`lenet` +.01", "+.03", _above(0.01, 0.03)),
        ("minutes of training for settings 1 and 3, all seeds", _minutes, "at most 60", "20", _most(60, 20)),
    ]  # fmt: skip
    head = ["", *(f"`{name}`" for name in _COLUMNS), "at least", "aim", "reached", f"`{_OURS}` on full MNIST"]
    rows = []
    for what, measure, least, aim, level in asked:
        found = [measure(*cells.get(("mnist_5k", *key), (None, None))) for key in _keys(measure)]
        reached = "not run here" if found[-1] is None else level(found[-1][0], found[0] and found[0][0])
        on_mnist = measure(*cells.get(("mnist", *_keys(measure)[-1]), (None, None)))
        rows.append([what, *map(_text, found), least, aim, reached, _text(on_mnist)])
    return Table("", head, rows)


def _keys(measure):
    return [(measure.setting, name) for name in _COLUMNS]


def _of(setting):
    """Marks a measure of a cell, which may be missing, with the setting of the cell."""

    def mark(measure):
        def measured(cell, folder):
            return None if cell is None else measure(cell, folder)

        measured.setting = setting
        return measured

    return mark


def _mean(setting):
    return _of(setting)(lambda cell, _: None if cell["mean"] is None else (cell["mean"], cell["std"]))


@_of(3)
def _gap(cell, folder):
    """Upright minus rotated accuracy of each seed; the test split of setting 3 is each upright digit and 4 copies."""
    angles, accuracy = _angles(folder)
    if 0 not in angles:
        return None
    upright = accuracy[:, angles == 0][:, 0]
    gap = upright - (5 * np.array(cell["test_accuracy"]) - upright) / 4
    return float(np.mean(gap)), float(np.std(gap, ddof=1)) if len(gap) > 1 else None


@_of(3)
def _worst_angle(_, folder):
    angles, accuracy = _angles(folder)
    return (float(accuracy.mean(0).min()), None) if len(angles) else None


@_of(1)
def _minutes(cell, _):
    return cell["wall_seconds"] / 60, None


def _angles(folder):
    """The angles and accuracies of a cell's angles.csv; none if it has no such file."""
    return read_angles(folder / ANGLES) if (folder / ANGLES).exists() else ((), None)


def _least(least, aim):
    return lambda value, _: _level(value >= least, value >= aim)


def _most(most, aim):
    return lambda value, _: _level(value <= most, value <= aim)


def _above(least, aim):
    """Points above the plain network's, as far as that was run."""
    return lambda value, plain: _level(value - plain >= least, value - plain >= aim) if plain else "-"


def _level(least, aim):
    return "the aim" if aim else "at least" if least else "**no**"


def _text(measured):
    if measured is None:
        return "not run here"
    value, std = measured
    digits = 1 if value > 1 else 4  # minutes, accuracies
    return f"{value:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def _short(cell):
    """A sentence on a large network, which is made for GPUs."""
    return (
        f"`{cell['model']}` is made for GPUs; a short run, setting {cell['setting']} of {cell['dataset']}, "
        f"{cell['epochs']} epochs, seeds {', '.join(map(str, cell['seeds']))}: {_text((cell['mean'], cell['std']))}."
    )


def _condition(cell):
    return (
        f"- {cell['dataset']}, setting {cell['setting']}, `{label(cell)}`: {cell['num_parameters']:,} parameters; "
        f"{cell['epochs']} epochs of batches of {cell['batch_size']}, Adam at {cell['learning_rate']:g}, "
        f"{cell['schedule']} schedule, weight decay {cell['weight_decay']:g}, label "
        f"smoothing {cell.get('label_smoothing', 0.0):g}; seeds "
        f"{', '.join(map(str, cell['seeds']))}; {cell['device']}, {cell['wall_seconds'] / 60:.0f} min: "
        f"`{cell['command']}`"
    )
