"""Our test accuracies against the PyTorch reference's, on the same data with the same protocol.

    python -m benchmarks.compare_accuracy > results/against-pytorch-accuracy.md

Reads what `experiments.report` gathered in results/DATASET/ and what `benchmarks/train_reference.py` wrote to
results/benchmarks/pytorch_MODEL.json.  The means (failed seeds left out) agree if their difference is within 3 standard
errors, sqrt(s1^2 / n1 + s2^2 / n2).
"""

import json
import math
from pathlib import Path

from experiments.reporting.tables import differences
from experiments.runs import reading

RESULTS = Path("results")


def main() -> None:
    """Prints the table."""
    print("# Accuracy against the PyTorch reference\n")
    print("Made by `python -m benchmarks.compare_accuracy`. Test accuracy, mean and standard deviation over seeds that")
    print("did not fail; the same split and protocol, other random numbers. `mnist_5k` is 5,000 digits, not MNIST.\n")
    print(
        "| data | setting | network | seeds | ours | PyTorch | difference | in standard errors |\n" + "|---" * 8 + "|"
    )
    commands = []
    for path in sorted((RESULTS / "benchmarks").glob("pytorch_*.json")):
        for theirs in json.loads(path.read_text())["results"]:
            folder = RESULTS / theirs["dataset"] / f"setting{theirs['setting']}_{theirs['model']}"
            if folder.exists():
                ours = reading.read(folder)
                if unlike := differences(ours, theirs):
                    raise SystemExit(f"{folder} and {path} were not trained alike: {', '.join(unlike)} differ")
                print(row(ours, theirs))
                commands += [
                    f"- ours: `{ours['command']}`; {ours['device']}",
                    f"- PyTorch: `{theirs['command']}`; {_where(theirs)}",
                ]
    print("\n" + "\n".join(dict.fromkeys(commands)))


def _where(theirs):
    return f"{theirs['device']}, torch {theirs['versions']['torch']}, batches of {theirs['batch_size']}"


def row(ours: dict, theirs: dict) -> str:
    """One line of the table."""
    if ours["mean"] is None or theirs["mean"] is None:
        raise SystemExit(f"all seeds of {ours['model']} failed, in setting {ours['setting']}")
    sizes = [len(cell["seeds"]) - len(cell["failed_seeds"]) for cell in (ours, theirs)]
    spreads = [math.nan if cell["std"] is None else cell["std"] for cell in (ours, theirs)]  # of a single seed
    error = math.sqrt(sum(spread**2 / size for spread, size in zip(spreads, sizes, strict=True)))
    difference = ours["mean"] - theirs["mean"]
    cells = [ours["dataset"], ours["setting"], ours["model"], f"{sizes[0]} and {sizes[1]}"]
    cells += [f"{cell['mean']:.4f} +- {spread:.4f}" for cell, spread in zip((ours, theirs), spreads, strict=True)]
    return "| " + " | ".join(map(str, [*cells, f"{difference:+.4f}", f"{difference / error:+.1f}"])) + " |"


if __name__ == "__main__":
    main()
