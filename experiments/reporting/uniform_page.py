"""The page uniform.md: trained on upright digits, tested at angles that are uniform over the circle."""

from pathlib import Path

import numpy as np

from experiments.reporting import pages
from experiments.reporting.tables import Table, good, label, order, trained
from experiments.runs.reading import read_uniform
from experiments.settings import DATASETS, SETTINGS

PAGE = "uniform.md"
_HEAD = ["data", "network", "parameters", "epochs", "seeds", "upright", "uniform, bilinear", "uniform, cubic"]


def write(output: Path, kept: dict[Path, dict]) -> list[str]:
    """Writes OUTPUT/uniform.md if a cell of upright digits has a uniform.csv; its name, or nothing.

    `kept`: {folder: results.json} of all cells.
    """
    upright = [number for number, setting in SETTINGS.items() if not setting.train_rotated and not setting.test_rotated]
    cells = sorted(kept.items(), key=lambda item: order(item[1]))
    cells = [
        (cell, read_uniform(folder, cell))
        for folder, cell in cells
        if cell["setting"] in upright and not DATASETS[cell["dataset"]].is_rotated
    ]
    cells = [(cell, found) for cell, found in cells if found and good(cell).any()]
    if not cells:
        return []
    rows = [
        [cell["dataset"], f"`{label(cell)}`", f"{cell['num_parameters']:,}", str(cell["epochs"]),
         str(good(cell).sum()), _text(np.array(cell["test_accuracy"])[good(cell), None]),
         *(_text(found[name][good(cell)]) if name in found else "" for name in ("bilinear", "cubic"))]
        for cell, found in cells
    ]  # fmt: skip
    commands = "\n".join(trained(cell) for cell, _ in cells)
    pages.fill(output / PAGE, table=pages.markdown(Table("", _HEAD, rows)), commands=commands)
    return [PAGE]


def _text(accuracy):
    """Mean over sets of angles; mean and standard deviation over seeds."""
    seeds = accuracy.mean(axis=1)
    return f"{seeds.mean():.4f}" + (f" ± {seeds.std(ddof=1):.4f}" if len(seeds) > 1 else "")
