"""The page mnist-rot.md: the field's own test, trained and tested on rotated digits."""

from pathlib import Path

import numpy as np

from experiments.reporting import pages
from experiments.reporting.tables import Table, good, label, order, trained
from experiments.settings import DATASETS

PAGE = "mnist-rot.md"
CLAIMS = "benchmarks/test_selection.json"
"""What `benchmarks.test_selection` leaves in the folder of the tables."""

_HEAD = [
    "data",
    "network",
    "parameters",
    "epochs",
    "seeds",
    "test error",
    "test error, epoch chosen on the test digits",
]


def write(output: Path, kept: dict[Path, dict], claims: dict) -> list[str]:
    """Writes OUTPUT/mnist-rot.md if there is a cell of rotated digits; its name, or nothing.

    `kept`: {folder: results.json} of all cells; `claims`: the contents of `CLAIMS`, {name of a run: test accuracies
    after its last epochs}; that of other weights is not shown.
    """
    cells = [cell for cell in kept.values() if DATASETS[cell["dataset"]].is_rotated and good(cell).any()]
    if not cells:
        return []
    cells.sort(key=order)
    rows = [
        [cell["dataset"], f"`{label(cell)}`", f"{cell['num_parameters']:,}", str(cell["epochs"]),
         str(good(cell).sum()), _text(np.array(cell["test_accuracy"]), cell), _claim(cell, claims)]
        for cell in cells
    ]  # fmt: skip
    commands = "\n".join(trained(cell) for cell in cells)
    pages.fill(output / PAGE, table=pages.markdown(Table("", _HEAD, rows)), commands=commands)
    return [PAGE]


def _claim(cell, claims):
    """The error at the best of each seed's epochs that were tested: the last ones, and the one that was chosen."""
    found = claims.get(f"setting{cell['setting']}_{cell['model']}_{cell['dataset']}", {})
    if not found.get("best_digest") or found["best_digest"] != cell.get("best_digest"):
        return "not run here"
    if any(len(row) != len(cell["seeds"]) for row in found["test_accuracy"].values()):
        return "not run here"
    return _text(np.max([*found["test_accuracy"].values(), cell["test_accuracy"]], axis=0), cell)


def _text(accuracy, cell):
    """Mean and standard deviation of the error over the seeds that did not fail."""
    errors = 100 * (1 - accuracy[good(cell)])
    return f"{errors.mean():.2f}" + (f" ± {errors.std(ddof=1):.2f}" if len(errors) > 1 else "") + " %"
