"""The page invariant.md: what the invariant network reaches beside the plain one, and the goals for it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.data.rotation import INTERPOLATIONS
from experiments.reporting import pages
from experiments.reporting.tables import Table, good, label, otherwise, where
from experiments.runs.reading import read_angles, read_uniform
from experiments.settings import MODELS

PAGE = "invariant.md"
_INVARIANT = [name for name, spec in MODELS.items() if spec.page == "invariant"]
_OURS, *_SHORT = sorted(_INVARIANT, key=lambda name: not MODELS[name].beside)
_COLUMNS = (*MODELS[_OURS].beside, _OURS)
_ABSENT = "not run here"


_TURNS = """
The weights are asked at one angle of the input here. What they reach if they are asked at two, without training, in
twice the time, and which goals they reach so: [the input at several angles](input-turns.md).
"""


@dataclass(frozen=True)
class Goal:
    """A goal for a setting's cell, at least and as the aim: numbers, or points above the plain network.

    `measure`: (results.json, its folder) -> (value, its deviation), or None; with `with_setting`, (results.json, that
    setting's) -> the same.
    """

    what: str
    setting: int
    measure: Callable
    least: float
    aim: float
    says: tuple[str, str]
    above_plain: bool = False
    is_bound_above: bool = False
    with_setting: int | None = None

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


def _mean(cell, _):
    return None if cell["mean"] is None else (cell["mean"], cell["std"])


def _gap(cell, folder):
    """Upright minus rotated accuracy of each seed; the test split of setting 3 is each upright digit and 4 copies."""
    angles, accuracy = read_angles(folder, cell) or ((), None)
    if accuracy is None or 0 not in angles:
        return None
    upright = accuracy[:, angles == 0][:, 0]
    return _of_seeds(cell, upright - (5 * np.array(cell["test_accuracy"]) - upright) / 4)


def _worst_angle(step, cell, folder):
    """Of the angles that the goal names, no others."""
    angles, accuracy = read_angles(folder, cell) or ((), None)
    named = np.isin(angles, range(-180, 181, step))
    if accuracy is None or named.sum() != 360 // step + 1 or not good(cell).any():
        return None
    return float(accuracy[good(cell)][:, named].mean(0).min()), None


def _uniform(interpolation, cell, folder):
    found = (read_uniform(folder, cell) or {}).get(interpolation)
    return None if found is None else _of_seeds(cell, found.mean(1))


def _gap_to_uniform(cell, folder):
    """Of the worse interpolation."""
    found = read_uniform(folder, cell)
    return found and _of_seeds(cell, cell["test_accuracy"] - np.min([sets.mean(1) for sets in found.values()], axis=0))


def _of_seeds(cell, values):
    """Mean and deviation over the seeds that did not fail."""
    values = values[good(cell)]
    return (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None) if len(values) else None


def _minutes(cell, other):
    """Of two settings: once, where one training made both."""
    if cell["seeds"] != other["seeds"]:
        return None
    times = {(each["command"], each["wall_seconds"]) for each in (cell, other)}
    return sum(seconds for _, seconds in times) / 60, None


_UNIFORM = "uniform angles, trained and chosen upright (setting 1), {}"
_AT_MOST = {"is_bound_above": True}
_GOALS = {
    "mnist": (
        Goal("setting 3, test (trained upright, tested rotated)", 3, _mean, 0.989, 0.993, (".989", ".993")),
        Goal("setting 1, test (upright)", 1, _mean, 0.992, 0.995, (".992", ".995")),
        Goal("setting 2, test (trained rotated, tested upright)", 2, _mean, 0.992, 0.995, (".992", ".995")),
        Goal("setting 4, test (rotated)", 4, _mean, 0.992, 0.995, (".992", ".995")),
        *(Goal(_UNIFORM.format(name), 1, functools.partial(_uniform, name), 0.988, 0.993, (".988", ".993"))
          for name in INTERPOLATIONS),
        Goal("upright minus uniform, the worse of both", 1, _gap_to_uniform, 0.004, 0.002, ("at most .004", ".002"),
             **_AT_MOST),
        Goal("the worst angle, every 5 degrees (setting 3)", 3, functools.partial(_worst_angle, 5), 0.985, 0.991,
             (".985", ".991")),
    ),
    "mnist_5k": (
        Goal("setting 3, test (trained upright, tested rotated)", 3, _mean, 0.93, 0.96, (".93", ".96")),
        Goal("upright minus rotated accuracy, the same network (setting 3)", 3, _gap, 0.03, 0.005,
             ("at most .03", ".005"), **_AT_MOST),
        Goal("the worst angle, every 15 degrees (trained upright)", 3, functools.partial(_worst_angle, 15), 0.91, 0.95,
             (".91", ".95")),
        Goal("setting 1, test", 1, _mean, 0.0, 0.015, ("`lenet` +.00", "+.015"), above_plain=True),
        Goal("setting 2, test", 2, _mean, 0.0, 0.01, ("`lenet` +.00", "+.01"), above_plain=True),
        Goal("setting 4, test", 4, _mean, 0.01, 0.03, ("`lenet` +.01", "+.03"), above_plain=True),
        Goal("minutes of training for settings 1 and 3, all seeds", 1, _minutes, 60, 20, ("at most 60", "20"),
             with_setting=3, **_AT_MOST),
    ),
}  # fmt: skip


def write(output: Path, kept: dict[Path, dict], has_turns: bool = False) -> list[str]:
    """Writes OUTPUT/invariant.md if there is a cell of an invariant network with goals; its name, or nothing.

    `kept`: {folder: results.json} of all cells; a folder may hold angles.csv. `has_turns`: whether the page of
    `benchmarks.input_turns` stands beside it.
    """
    cells = _by_name(kept)
    ours = [cell for cell in kept.values() if cell["model"] in _INVARIANT and cell["dataset"] in _GOALS]
    if not any(cell["init"] == "report" for cell in ours):
        return []
    parts = [_section(dataset, cells) for dataset in _GOALS if any(key[0] == dataset for key in cells)]
    parts += [_short(cell) for key, (cell, _) in sorted(cells.items()) if key[2] in _SHORT and cell["mean"] is not None]
    ours.sort(key=lambda cell: (cell["dataset"], cell["setting"], cell["model"]))
    beside = [cell for (_, _, model), (cell, _) in sorted(cells.items()) if model in _COLUMNS[:-1]]
    conditions = [*map(_condition, ours), *(_otherwise(cell) for cell in beside if otherwise(cell))]
    marks = {"numbers": "\n\n".join(parts), "conditions": "\n".join(conditions), "turns": _TURNS * has_turns}
    pages.fill(output / PAGE, **marks)
    return [PAGE]


def _section(dataset, cells):
    head = ["", *(f"`{name}`" for name in _COLUMNS), "goal: at least, aim", "reached"]
    rows = []
    for goal in _GOALS[dataset]:
        found = [_measure(goal, cells, dataset, model) for model in _COLUMNS]
        rows.append([goal.what, *map(_text, found), ", ".join(goal.says)])
        rows[-1].append(goal.reached(*(pair and pair[0] for pair in (found[-1], found[0]))))
    return f"## {dataset}\n\n{pages.markdown(Table('', head, rows))}"


def _by_name(kept):
    return {(cell["dataset"], cell["setting"], cell["model"]): (cell, folder)
            for folder, cell in kept.items() if cell["init"] == "report"}  # fmt: skip


def _measure(goal, cells, dataset, model):
    cell, folder = cells.get((dataset, goal.setting, model), (None, None))
    other, _ = cells.get((dataset, goal.with_setting, model), (None, None))
    if cell is None or (goal.with_setting and other is None):
        return None
    return goal.measure(cell, other if goal.with_setting else folder)


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
        f"{cell['epochs']} epochs, seeds {', '.join(map(str, cell['seeds']))}: {_text((cell['mean'], cell['std']))}."
    )


def _otherwise(cell):
    """A line on a network beside the invariant one that was not trained by its protocol."""
    where = f"{cell['dataset']}, setting {cell['setting']}, `{label(cell)}`"
    return f"- {where}: **not by the report's protocol**: {otherwise(cell)}"


def _condition(cell):
    epochs = f"{cell['epochs']} epoch{'s' * (cell['epochs'] > 1)}"
    l2 = f", l2 {cell['l2']:g}" if cell.get("l2") else ""
    return (
        f"- {cell['dataset']}, setting {cell['setting']}, `{label(cell)}`: {cell['num_parameters']:,} parameters; "
        f"{epochs} of batches of {cell['batch_size']}, Adam at {cell['learning_rate']:g}, "
        f"{cell['schedule']} schedule, weight decay {cell['weight_decay']:g}{l2}, label smoothing "
        f"{cell.get('label_smoothing', 0.0):g}; seeds {', '.join(map(str, cell['seeds']))}; {where(cell)}, "
        f"{cell['wall_seconds'] / 60:.0f} min"
        + (f"; digest of `best/`: `{cell['best_digest']}`" if "best_digest" in cell else "")
    )
