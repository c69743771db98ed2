"""The page why-fconv-lost.md and its figure, from the ladders' numbers."""

from pathlib import Path

import numpy as np

from experiments.reporting import pages
from experiments.reporting.illustrations import plot_ladder
from experiments.reporting.tables import Table
from experiments.runs.ladder import file_of, read
from experiments.settings import DATASETS, FAILED_BELOW, LADDER_DATASET, MODELS, RUNGS, SETTINGS

PAGE, FIGURE = "why-fconv-lost.md", "ladder.png"
_PLAIN, *_FCONV = RUNGS


def write(output: Path) -> list[str]:
    """Writes OUTPUT/why-fconv-lost.md and OUTPUT/figures/ladder.png from the ladders that there are; their names."""
    names = dict.fromkeys(spec.ladder for spec in MODELS.values() if spec.ladder)
    files = {name: file_of(output / "ladder", name) for name in names}
    ladders = {name: read(file) for name, file in files.items() if file.exists()}
    (output / "figures").mkdir(parents=True, exist_ok=True)
    plot(output / "figures" / FIGURE, ladders)
    points = {rung.replace(" ", "_").replace("-", "_"): _points(rung, ladders) for rung in _FCONV[1:]}
    pages.fill(output / PAGE, ladders="\n".join(map(_ladder, ladders.values())), **points)
    return [PAGE, f"figures/{FIGURE}"]


def _ladder(ladder):
    seeds = ", ".join(map(str, ladder["seeds"]))
    steps = DATASETS[LADDER_DATASET].num_train // ladder["batch_size"] * ladder["epochs"]
    text = (
        f"## `{ladder['name']}`\n\n"
        f"{LADDER_DATASET} (3,500 upright digits to train on, not MNIST), {steps:,} steps of {ladder['batch_size']} "
        f"images on every rung and in every setting, Adam at {ladder['learning_rate']:g}, seeds {seeds}, "
        f"{ladder['device']}: `{ladder['command']}`. Mean and standard deviation of the test accuracy at the best "
        "validation epoch; in brackets the points (hundredths) gained over the rung above.\n\n"
    )
    text += f"{pages.markdown(_table(ladder))}\n"
    missing = [rung for rung in _FCONV if rung not in ladder["rungs"]]
    text += f"\nNot run yet: {', '.join(missing)}; the command above continues.\n" if missing else ""
    # Runs that stayed at chance are in the means.
    stuck = {rung: _at_chance(found) for rung, found in ladder["rungs"].items()}
    runs = ", ".join(f'{count} of "{rung}"' for rung, count in stuck.items() if count)
    total = len(ladder["seeds"]) * len(SETTINGS)
    rule = f"The means include runs that did not leave chance (test accuracy under {FAILED_BELOW})"
    return text + (f"\n{rule}: of the {total} runs on each rung, {runs}.\n" * bool(runs))


def _table(ladder):
    rows, before = [], None
    for rung in RUNGS:
        found = ladder["rungs"].get(rung)
        if found is None:
            continue
        cells = []
        for setting in SETTINGS:
            values = np.array(found["test_accuracy"][str(setting)])
            cell = f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values.mean():.3f}"
            cells.append(cell if before is None else f"{cell} ({_gain(found, before, setting):+.1f})")
        rows.append([rung, f"{found['num_parameters']:,}", *cells])
        before = None if rung == _PLAIN else found
    return Table("", ["rung", "parameters", *(f"setting {setting}" for setting in SETTINGS)], rows)


def _at_chance(found):
    """How many of a rung's runs did not leave chance."""
    return sum(value < FAILED_BELOW for values in found["test_accuracy"].values() for value in values)


def _gain(found, before, setting, least=0.0):
    """Points gained in a setting by the runs of at least that accuracy (NaN if there are none)."""
    now, then = ([value for value in rung["test_accuracy"][str(setting)] if value >= least] for rung in (found, before))
    return 100 * (np.mean(now) - np.mean(then)) if now and then else np.nan


def _points(rung, ladders):
    """What a fix gains on each ladder, in the four settings."""
    measured = []
    for ladder in ladders.values():
        found, before = (ladder["rungs"].get(name) for name in (rung, RUNGS[RUNGS.index(rung) - 1]))
        if found and before:
            measured.append(f"`{ladder['name']}` {_gains(found, before)}")
            if _at_chance(found) or _at_chance(before):
                measured[-1] += f" (without the runs at chance: {_gains(found, before, FAILED_BELOW)})"
    return "; ".join(measured)


def _gains(found, before, least=0.0):
    return ", ".join(f"{_gain(found, before, setting, least):+.1f}" for setting in SETTINGS)


def plot(path: Path, ladders: dict[str, dict]) -> None:
    """Writes test accuracy on each rung, a panel for each ladder, a line for each setting."""
    panels = {name: {setting: _accuracies(ladder, setting) for setting in SETTINGS} for name, ladder in ladders.items()}
    plot_ladder(path, panels)


def _accuracies(ladder, setting):
    """The plain network's mean, if there is one, and the accuracies on each rung."""
    rows = {rung: ladder["rungs"][rung]["test_accuracy"][str(setting)] for rung in RUNGS if rung in ladder["rungs"]}
    plain = rows.pop(_PLAIN, None)
    return None if plain is None else float(np.mean(plain)), rows
