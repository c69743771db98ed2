"""The page invariant.md: what the invariant network reaches beside the plain one, and the goals for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.reporting import pages
from experiments.reporting.tables import Table, label, otherwise
from experiments.runs.reading import read_angles
from experiments.settings import MODELS

PAGE = "invariant.md"
_INVARIANT = [name for name, spec in MODELS.items() if spec.page == "invariant"]
_OURS, *_SHORT = sorted(_INVARIANT, key=lambda name: not MODELS[name].beside)
_COLUMNS = (*MODELS[_OURS].beside, _OURS)
_ABSENT = "not run here"


@dataclass(frozen=True)
class Goal:
    """A goal for a setting's cell, at least and as the aim: numbers, or points above the plain network.

    `measure`: (results.json, angles, accuracies of the angles) -> (value, its deviation), or None.
    """

    what: str
    setting: int
    measure: Callable
    least: float
    aim: float
    says: tuple[str, str]
    above_plain: bool = False
    is_bound_above: bool = False

    def reached(self, value: float | None, plain: float | None) -> str:
        """Which goal a value reaches: the aim, the minimum, or neither."""
        if value is None:
            return _ABSENT
        if self.above_plain:
            if not plain:
                return "-"
            value -= plain
        sign = -1 if self.is_bound_above else 1
        return next((word for word, bound in (("the aim", self.aim), ("at least", self.least))
                     if sign * value >= sign * bound), "**no**")  # fmt: skip


def _mean(cell, *_):
    return None if cell["mean"] is None else (cell["mean"], cell["std"])


def _gap(cell, angles, accuracy):
    """Upright minus rotated accuracy of each seed; the test split of setting 3 is each upright digit and 4 copies."""
    if 0 not in angles:
        return None
    upright = accuracy[:, angles == 0][:, 0]
    gap = upright - (5 * np.array(cell["test_accuracy"]) - upright) / 4
    return float(np.mean(gap)), float(np.std(gap, ddof=1)) if len(gap) > 1 else None


def _worst_angle(_, angles, accuracy):
    return (float(accuracy.mean(0).min()), None) if len(angles) else None


def _minutes(cell, *_):
    return cell["wall_seconds"] / 60, None


_GOALS = (
    Goal("setting 3, test (trained upright, tested rotated)", 3, _mean, 0.93, 0.96, (".93", ".96")),
    Goal("upright minus rotated accuracy, the same network (setting 3)", 3, _gap, 0.03, 0.005,
          ("at most .03", ".005"), is_bound_above=True),
    Goal("the worst angle, every 15 degrees (trained upright)", 3, _worst_angle, 0.91, 0.95, (".91", ".95")),
    Goal("setting 1, test", 1, _mean, 0.0, 0.015, ("`lenet` +.00", "+.015"), above_plain=True),
    Goal("setting 2, test", 2, _mean, 0.0, 0.01, ("`lenet` +.00", "+.01"), above_plain=True),
    Goal("setting 4, test", 4, _mean, 0.01, 0.03, ("`lenet` +.01", "+.03"), above_plain=True),
    Goal("minutes of training for settings 1 and 3, all seeds", 1, _minutes, 60, 20, ("at most 60", "20"),
          is_bound_above=True),
)  # fmt: skip


def write(output: Path, kept: dict[Path, dict]) -> list[str]:
    """Writes OUTPUT/invariant.md if there is a cell of an invariant network; its name, or nothing.

    `kept`: {folder: results.json} of all cells; a folder may hold angles.csv.
    """
    cells = _by_name(kept)
    ours = [cell for cell in kept.values() if cell["model"] in _INVARIANT]
    if not ours:
        return []
    head = ["", *(f"`{name}`" for name in _COLUMNS), f"`{_OURS}` on MNIST"]
    rows = [
        [goal.what, *map(_text, _measured(goal, cells)), _text(_measure(goal, cells, "mnist", _OURS))]
        for goal in _GOALS
    ]
    parts = [pages.markdown(Table("", head, rows))]
    parts += [_short(cell) for key, (cell, _) in sorted(cells.items()) if key[2] in _SHORT and cell["mean"] is not None]
    ours.sort(key=lambda cell: (cell["dataset"], cell["setting"], cell["model"]))
    beside = [cell for (_, _, model), (cell, _) in sorted(cells.items()) if model in _COLUMNS[:-1]]
    conditions = [*map(_condition, ours), *(_otherwise(cell) for cell in beside if otherwise(cell))]
    pages.fill(output / PAGE, numbers="\n\n".join(parts), conditions="\n".join(conditions))
    return [PAGE]


def goals(kept: dict[Path, dict]) -> list[list[str]]:
    """Rows of a table: what is measured, at least, the aim, measured, and which of the two that reaches.

    `kept`: as in `write`.
    """
    cells, rows = _by_name(kept), []
    for goal in _GOALS:
        found = _measured(goal, cells)
        reached = goal.reached(*(pair and pair[0] for pair in (found[-1], found[0])))
        rows.append([goal.what, *goal.says, _text(found[-1]), reached])
    return rows


def _by_name(kept):
    return {(cell["dataset"], cell["setting"], cell["model"]): (cell, folder)
            for folder, cell in kept.items() if cell["init"] == "report"}  # fmt: skip


def _measured(goal, cells):
    return [_measure(goal, cells, "mnist_5k", model) for model in _COLUMNS]


def _measure(goal, cells, dataset, model):
    cell, folder = cells.get((dataset, goal.setting, model), (None, None))
    if cell is None:
        return None
    return goal.measure(cell, *(read_angles(folder, cell) or ((), None)))


def _text(measured):
    if measured is None:
        return _ABSENT
    value, std = measured
    digits = 1 if value > 1 else 4  # minutes, accuracies
    return f"{value:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def _short(cell):
    """A sentence on a large network, which is made for GPUs."""
    return (
        f"`{cell['model']}` is made for GPUs; a short run, setting {cell['setting']} of {cell['dataset']}, "
        f"{cell['epochs']} epochs, seeds {', '.join(map(str, cell['seeds']))}: {_text(_mean(cell))}."
    )


def _otherwise(cell):
    """A line on a network beside the invariant one that was not trained by its protocol."""
    where = f"{cell['dataset']}, setting {cell['setting']}, `{label(cell)}`"
    return f"- {where}: **not by the report's protocol**: {otherwise(cell)}"


def _condition(cell):
    return (
        f"- {cell['dataset']}, setting {cell['setting']}, `{label(cell)}`: {cell['num_parameters']:,} parameters; "
        f"{cell['epochs']} epochs of batches of {cell['batch_size']}, Adam at {cell['learning_rate']:g}, "
        f"{cell['schedule']} schedule, weight decay {cell['weight_decay']:g}, label smoothing "
        f"{cell.get('label_smoothing', 0.0):g}; seeds {', '.join(map(str, cell['seeds']))}; {cell['device']}, "
        f"{cell['wall_seconds'] / 60:.0f} min: `{cell['command']}`"
        + (f"; digest of `best/`: `{cell['best_digest']}`" if "best_digest" in cell else "")
    )
