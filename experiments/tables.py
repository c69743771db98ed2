"""The report's table 2 from any finished cells, and F-Conv against plain by paired comparison."""

import csv
import math
from pathlib import Path

import numpy as np

REPORT_MEANS = {
    (1, "lenet"): 0.987, (1, "lenet_fconv"): 0.978, (1, "alexnet"): 0.995, (1, "alexnet_fconv"): 0.990,
    (2, "lenet"): 0.984, (2, "lenet_fconv"): 0.979, (2, "alexnet"): 0.994, (2, "alexnet_fconv"): 0.992,
    (3, "lenet"): 0.620, (3, "lenet_fconv"): 0.612, (3, "alexnet"): 0.675, (3, "alexnet_fconv"): 0.671,
    (4, "lenet"): 0.979, (4, "lenet_fconv"): 0.973, (4, "alexnet"): 0.993, (4, "alexnet_fconv"): 0.990,
}  # fmt: skip
"""The report's own means, on MNIST."""

PAIRS = (("lenet_fconv", "lenet"), ("alexnet_fconv", "alexnet"))

NOT_MNIST = (
    "These are the 5,000 digits of mnist_5k (3,500 for training), not MNIST: its numbers do not compare with the "
    "report's. For MNIST: `python -m experiments.sweep --dataset mnist`."
)


def table_rows(cells: list[dict]) -> list[dict]:
    """Returns a row for each cell (a results.json): its runs, mean without failed ones, std, and the report's mean.

    The report's mean stands beside ours on MNIST only.
    """
    rows = []
    for cell in sorted(cells, key=lambda cell: (cell["dataset"], cell["setting"], cell["model"].split("_"))):
        mnist = cell["dataset"] == "mnist"
        rows.append(
            {
                "dataset": cell["dataset"],
                "setting": cell["setting"],
                "model": cell["model"],
                "init": cell["init"],
                "epochs": cell["epochs"],
                "steps": _num_steps(cell),
                "runs": [
                    (accuracy, seed in cell["failed_seeds"])
                    for seed, accuracy in zip(cell["seeds"], cell["test_accuracy"], strict=True)
                ],
                "mean": cell["mean"],
                "std": cell["std"],
                "report": REPORT_MEANS.get((cell["setting"], cell["model"])) if mnist else None,
            }
        )
    return rows


def comparisons(cells: list[dict]) -> list[dict]:
    """Returns F-Conv minus plain for each data set and setting that has both, with a 95 % interval over seeds.

    Paired by seed (the same seed sees the images in the same order); seeds that failed in either are left out:

        mean(d) +- t(0.975, n - 1) std(d) / sqrt(n),   d = accuracy of F-Conv - accuracy of plain.
    """
    from scipy.stats import t

    found = {(cell["dataset"], cell["setting"], cell["model"]): cell for cell in cells}
    rows = []
    for (dataset, setting, model), fconv in sorted(found.items()):
        plain = found.get((dataset, setting, dict(PAIRS).get(model)))
        if plain is None:
            continue
        good = [_good(fconv), _good(plain)]
        seeds = sorted(set(good[0]) & set(good[1]))
        differences = np.array([good[0][seed] - good[1][seed] for seed in seeds])
        n = len(differences)
        half = t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
        mean = float(differences.mean()) if n else math.nan
        rows.append({"dataset": dataset, "setting": setting, "pair": f"{model} - {plain['model']}", "n": n,
                     "difference": mean, "low": mean - half, "high": mean + half})  # fmt: skip
    return rows


def write_table(folder: Path, cells: list[dict], command: str) -> None:
    """Writes table2.md and table2.csv."""
    rows = table_rows(cells)
    num_runs = max(len(row["runs"]) for row in rows)
    head = ["data", "setting", "model", "init", "epochs", "steps", *map(str, range(1, num_runs + 1)), "mean", "std"]
    head.append("report's mean")
    lines = ["# Test accuracy", ""]
    if any(row["dataset"] == "mnist_5k" for row in rows):
        lines += [NOT_MNIST, ""]
    lines += ["Runs in bold failed (stuck at chance) and are left out of the mean.", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        runs = [f"**{accuracy:.3f}**" if failed else f"{accuracy:.3f}" for accuracy, failed in row["runs"]]
        runs += [""] * (num_runs - len(runs))
        fixed = [str(row[name]) for name in ("dataset", "setting", "model", "init", "epochs", "steps")]
        lines.append("| " + " | ".join([*fixed, *runs, *map(_text, (row["mean"], row["std"], row["report"]))]) + " |")
    lines += [*_comparison_lines(cells), "", f"Made by `{command}` from the cells' results.json.", ""]
    lines += _condition_lines(cells)
    (folder / "table2.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "table2.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head[:-1], "failed runs", "report_mean"])
        for row in rows:
            runs = [f"{accuracy:.4f}" for accuracy, _ in row["runs"]] + [""] * (num_runs - len(row["runs"]))
            failed = " ".join(str(i) for i, (_, bad) in enumerate(row["runs"], 1) if bad)
            fixed = [row[name] for name in ("dataset", "setting", "model", "init", "epochs", "steps")]
            writer.writerow([*fixed, *runs, _text(row["mean"]), _text(row["std"]), failed, _text(row["report"])])


def _comparison_lines(cells):
    rows = comparisons(cells)
    if not rows:
        return []
    lines = [
        "",
        "## F-Conv against plain",
        "",
        "Difference of test accuracies, paired by seed, with a 95 % interval.",
        "",
    ]
    lines += ["| data | setting | pair | seeds | difference | 95 % interval |", "|---|---|---|---|---|---|"]
    for row in rows:
        interval = "-" if math.isnan(row["low"]) else f"{row['low']:+.4f} .. {row['high']:+.4f}"
        what = " | ".join(str(row[name]) for name in ("dataset", "setting", "pair", "n"))
        lines.append(f"| {what} | {row['difference']:+.4f} | {interval} |")
    return lines


def _condition_lines(cells):
    lines = ["## Conditions", ""]
    for cell in sorted(cells, key=lambda cell: (cell["dataset"], cell["model"], cell["setting"])):
        versions = ", ".join(f"{name} {cell['versions'][name]}" for name in ("python", "jax", "flax", "optax"))
        lines.append(
            f"- {cell['model']}, setting {cell['setting']}, {cell['dataset']}: `{cell['command']}`; seeds "
            f"{', '.join(map(str, cell['seeds']))}; {cell['device']}; {versions}; "
            f"{cell['wall_seconds'] / 60:.0f} min for the training"
        )
    return lines


def _good(cell):
    pairs = zip(cell["seeds"], cell["test_accuracy"], strict=True)
    return {seed: accuracy for seed, accuracy in pairs if seed not in cell["failed_seeds"]}


def _num_steps(cell):
    from experiments.settings import DATASETS

    images = DATASETS[cell["dataset"]].num_images("train", cell["setting"])
    return cell["epochs"] * -(-images // cell["batch_size"])


def _text(value):
    return "" if value is None else f"{value:.4f}"
