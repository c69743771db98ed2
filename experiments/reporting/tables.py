"""The report's table 2 from any finished cells, F-Conv against plain by paired comparison, classes, conditions."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from experiments.runs.results import FAILED_RULE
from experiments.settings import DATASETS, FAILED_BELOW, MODELS, protocol

_REPORT = "mnist"  # the data set of the report
NOT_MNIST = (
    "mnist_5k is not MNIST: it has 5,000 digits, 3,500 for training. Do not compare its rows with the report's. "
    "For MNIST: `python -m experiments.sweep --dataset mnist`."
)
BESIDE_THE_REPORT = (
    "On MNIST, the report's networks trained as there, or in other epochs and batches (named below), also have the "
    "report's mean, without its failed runs, and the distance between both means in standard errors: (ours - the "
    "report's) / sqrt(s1^2 / n1 + s2^2 / n2). s2^2 is at least the variance of the report's rounding to three digits, "
    "0.001^2 / 12."
)
_IN_THE_ROW = {"epochs", "batch_size"}
_ROUNDING_VARIANCE = 0.001**2 / 12  # of a number rounded to three digits


@dataclass(frozen=True)
class Table:
    """A table of texts, in which `**x**` is bold and `` `x` `` is code; `notes` stand above it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...] = ()


def order(cell: dict) -> tuple:
    """Sorts cells by data set, setting and model, F-Conv after plain."""
    return cell["dataset"], cell["setting"], cell["model"].split("_"), cell["init"] != "report"


def label(cell: dict) -> str:
    """A cell's model, with its initial weights where they are not the report's."""
    return cell["model"] + ("" if cell["init"] == "report" else f" ({cell['init']})")


def num_steps(cell: dict) -> int:
    """Optimizer steps of a cell's training."""
    images = DATASETS[cell["dataset"]].num_images("train", cell["setting"])
    return cell["epochs"] * -(-images // cell["batch_size"])


def differences(cell: dict, other: dict) -> list[str]:
    """Fields in which two cells were not trained alike, but for the setting, the network and its initial weights."""
    return [name for name in _ALIKE if cell.get(name, _DEFAULTS.get(name)) != other.get(name, _DEFAULTS.get(name))]


def of_protocol(cell: dict) -> dict:
    """The fields in which a cell was not trained by its protocol: {field: the protocol's value}."""
    own = {**_DEFAULTS, **dataclasses.asdict(protocol(cell["model"], cell["dataset"]))}
    return {name: own[name] for name in differences(cell, own)}


def otherwise(cell: dict, there: str = "there") -> str:
    """In which fields a cell was not trained by its protocol, "" if in none; `there`: what the protocol is called."""
    return ", ".join(f"{name} {cell.get(name)} ({there} {own})" for name, own in of_protocol(cell).items())


def text(value: float | None) -> str:
    """A number for a table."""
    return "" if value is None else f"{value:.4f}"


def all_tables(cells: list[dict]) -> list[Table]:
    """All tables that have rows, in their order."""
    makers = (accuracy_table, comparison_table, class_table, condition_table)
    return [table for table in (make(cells) for make in makers) if table.rows]


_ALIKE = (
    "epochs", "batch_size", "learning_rate", "schedule", "weight_decay", "label_smoothing", "l2", "augmentation",
    "precision", "data_seed",
)  # fmt: skip
_DEFAULTS = {"schedule": "constant", "weight_decay": 0.0, "label_smoothing": 0.0, "precision": "float32"}
_DEFAULTS |= {"l2": 0.0, "augmentation": "none"}
_DEFAULTS["data_seed"] = 0

FIXED = ("dataset", "setting", "model", "init", "epochs", "batch", "steps")
"""What tells a row of `table_rows` from the others."""


def table_rows(cells: list[dict]) -> list[dict]:
    """Returns a row for each cell (a results.json): its runs, mean without failed ones, std, and the report's mean.

    The report's mean stands beside ours where it was trained like the report's: on MNIST, with its initial weights and
    by its protocol, but for the epochs and the batch size, which stand in the row.
    """
    return [
        {
            **{name: cell[name] for name in FIXED[:5]},
            "batch": cell["batch_size"],
            "steps": num_steps(cell),
            "runs": [
                (accuracy, seed in cell["failed_seeds"])
                for seed, accuracy in zip(cell["seeds"], cell["test_accuracy"], strict=True)
            ],
            **{name: cell[name] for name in ("mean", "std")},
            **_beside_report(cell),
            "best_digest": cell.get("best_digest", ""),
        }
        for cell in sorted(cells, key=order)
    ]


def _beside_report(cell):
    """The report's mean of the cell, and how many standard errors ours is from it."""
    runs = MODELS[cell["model"]].report_runs if cell["model"] in MODELS else ()
    same = cell["dataset"] == _REPORT and cell["init"] == "report" and of_protocol(cell).keys() <= _IN_THE_ROW
    if not runs or not same:
        return {"report": None, "distance": None}
    good = np.array([run for run in runs[cell["setting"] - 1] if run >= FAILED_BELOW])
    ours = list(_good(cell, "test_accuracy").values())
    distance = None
    if len(ours) > 1:
        variance = np.var(ours, ddof=1) / len(ours) + max(np.var(good, ddof=1), _ROUNDING_VARIANCE) / len(good)
        distance = float((np.mean(ours) - good.mean()) / math.sqrt(variance))
    return {"report": round(float(good.mean()), 4), "distance": distance}


def comparisons(cells: list[dict]) -> list[dict]:
    """Returns F-Conv minus plain for each data set and setting that has both, with a 95 % interval over seeds.

    Paired by seed (the same seed sees the images in the same order); seeds that failed in either are left out:

        mean(d) +- t(0.975, n - 1) std(d) / sqrt(n),   d = accuracy of F-Conv - accuracy of plain.

    F-Conv with other initial weights is compared with plain convolutions of the same, else of the report's.
    Cells that were not trained alike (steps, batches, learning rate, precision, angles of the images, ...) are not
    compared.
    """
    found = {(cell["dataset"], cell["setting"], cell["model"], cell["init"]): cell for cell in cells}
    rows = []
    for fconv in sorted(cells, key=order):
        name = MODELS[fconv["model"]].plain if fconv["model"] in MODELS else None
        candidates = (found.get((fconv["dataset"], fconv["setting"], name, init)) for init in (fconv["init"], "report"))
        plain = next(filter(None, candidates), None)
        if plain is None or differences(plain, fconv):
            continue
        good, other = _good(fconv, "test_accuracy"), _good(plain, "test_accuracy")
        gained = np.array([good[seed] - other[seed] for seed in sorted(good.keys() & other.keys())])
        n = len(gained)
        half = stdtrit(n - 1, 0.975) * gained.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
        mean = float(gained.mean()) if n else math.nan
        rows.append({"dataset": fconv["dataset"], "setting": fconv["setting"], "steps": num_steps(fconv),
                     "pair": f"{label(fconv)} - {label(plain)}", "n": n,
                     "difference": mean, "low": mean - half, "high": mean + half})  # fmt: skip
    return rows


def where(cell: dict) -> str:
    """The command, the device and, where it is known, the commit that trained a cell."""
    commit = f", commit {cell['commit']}" if cell.get("commit") else ""
    return f"`{cell['command']}`; {cell['device']}{commit}"


def trained(cell: dict) -> str:
    """A line on how a cell was trained."""
    digest = f"; digest of `best/`: `{cell['best_digest']}`" if cell.get("best_digest") else ""
    return f"- {cell['dataset']}, `{label(cell)}`: seeds {', '.join(map(str, cell['seeds']))}; {where(cell)}{digest}"


def accuracy_table(cells: list[dict]) -> Table:
    """The report's table 2."""
    rows = table_rows(cells)
    num_runs = max(len(row["runs"]) for row in rows)
    body = []
    for row in rows:
        runs = [f"**{accuracy:.3f}**" if failed else f"{accuracy:.3f}" for accuracy, failed in row["runs"]]
        runs += [""] * (num_runs - len(runs))
        body.append([*(str(row[n]) for n in FIXED), *runs, *(text(row[n]) for n in ("mean", "std", "report"))])
        body[-1].append("" if row["distance"] is None else f"{row['distance']:+.1f}")
    notes = [f"Runs in bold failed ({FAILED_RULE}) and are left out of the mean."]
    if any(row["dataset"] == "mnist_5k" for row in rows):
        notes.insert(0, NOT_MNIST)
    if any(row["report"] is not None for row in rows):
        notes.append(BESIDE_THE_REPORT)
    notes += [_stuck(row) for row in rows if all(failed for _, failed in row["runs"])]
    notes += [
        _not_by_protocol(cell, row["report"] is not None)
        for cell, row in zip(sorted(cells, key=order), rows, strict=True)
        if not of_protocol(cell).keys() <= _IN_THE_ROW or (otherwise(cell) and row["report"] is not None)
    ]
    head = ["data", *FIXED[1:], *map(str, range(1, num_runs + 1)), "mean", "std", "report's mean", "standard errors"]
    return Table("Test accuracy", head, body, tuple(notes))


def _not_by_protocol(cell, has_report):
    where = f"{cell['dataset']}, setting {cell['setting']}, `{label(cell)}`"
    if has_report:
        why = f" That may be why its mean is another{_still_learning(cell)}."
        return f"{where}: not by the report's protocol: {otherwise(cell)}.{why}"
    return f"{where}: not by the program's defaults: {otherwise(cell, 'default')}."


def _still_learning(cell):
    """How much a cell learned in its last epochs, which says whether more of them would help."""
    curves = np.array(cell["validation_curve"])[good(cell)]
    last = cell["epochs"] // 4 or 1
    if not len(curves) or curves.shape[1] <= last:
        return ""
    epochs = [epoch for epoch, is_good in zip(cell["best_epoch"], good(cell), strict=True) if is_good]
    best = f"each seed's best epoch is {max(epochs)}"
    if min(epochs) < max(epochs):
        best = f"the best epochs are {min(epochs)} to {max(epochs)}"
    gain = round(float(np.mean(curves[:, -1] - curves[:, -1 - last])), 4) + 0.0  # no -0.0000
    over = "the last epoch" if last == 1 else f"the last {last} epochs"
    return f": {best}, and the validation accuracy changed by {gain:+.4f} over {over}"


def _stuck(row):
    weights = {"report": "the report's initial weights"}.get(row["init"], f"initial weights {row['init']}")
    where = f"{row['dataset']}, setting {row['setting']}"
    return (
        f"{where}: with {weights}, `{row['model']}` had not left chance (by the rule above) after {row['steps']:,} "
        "steps in any run."
    )


def comparison_table(cells: list[dict]) -> Table:
    """`comparisons` in words."""
    body = []
    for row in comparisons(cells):
        interval = "-" if math.isnan(row["low"]) else f"{row['low']:+.4f} .. {row['high']:+.4f}"
        fixed = [str(row[name]) for name in ("dataset", "setting", "pair", "steps", "n")]
        body.append([*fixed, "-" if math.isnan(row["difference"]) else f"{row['difference']:+.4f}", interval])
    note = "Difference of test accuracies, paired by seed, with a 95 % interval (Student's t)."
    head = ["data", "setting", "pair", "steps", "seeds", "difference", "95 % interval"]
    return Table("F-Conv against plain", head, body, (note,))


def class_table(cells: list[dict]) -> Table:
    """Test accuracy of each class, mean of the seeds that did not fail; empty if all did."""
    body = []
    for cell in sorted(cells, key=order):
        good, blank = list(_good(cell, "per_class_accuracy").values()), [""] * len(cell["per_class_accuracy"][0])
        means = [f"{value:.3f}" for value in np.mean(good, axis=0)] if good else blank
        body.append([cell["dataset"], str(cell["setting"]), label(cell), *means])
    head = ["data", "setting", "model", *map(str, range(max(map(len, body)) - 3))]
    return Table("Accuracy of each class", head, body, ("Mean of the seeds that did not fail.",))


def condition_table(cells: list[dict]) -> Table:
    """How each cell was made."""
    body = []
    for cell in sorted(cells, key=order):
        versions = ", ".join(f"{name} {cell['versions'][name]}" for name in ("python", "jax", "flax", "optax"))
        body.append([
            f"{cell['dataset']}, setting {cell['setting']}, {label(cell)}", f"`{cell['command']}`",
            ", ".join(map(str, cell["seeds"])), cell["device"], versions, cell.get("commit", ""),
            f"{cell['wall_seconds'] / 60:.0f} min", f"`{cell['best_digest']}`" if "best_digest" in cell else "",
        ])  # fmt: skip
    notes = ["Settings 1 and 3 of one `sweep` are one training, as are 2 and 4: its minutes stand in both rows."]
    if not all(cell.get("commit") and cell.get("best_digest") for cell in cells):
        notes.append("Rows without a commit or a digest were trained before results.json recorded it.")
    head = ["cell", "command", "seeds", "machine", "versions", "commit", "training", "digest of `best/`"]
    return Table("Conditions", head, body, tuple(notes))


def good(cell: dict) -> np.ndarray:
    """Which of a cell's seeds did not fail: the means are theirs."""
    return np.array([seed not in cell["failed_seeds"] for seed in cell["seeds"]])


def of_good(cell: dict, values) -> np.ndarray:
    """The seeds' values of those that did not fail; of all of them where all did."""
    rows = good(cell)
    return np.asarray(values)[rows if rows.any() else slice(None)]


def _good(cell, name):
    rows = zip(cell["seeds"], cell[name], good(cell), strict=True)
    return {seed: value for seed, value, is_good in rows if is_good}
