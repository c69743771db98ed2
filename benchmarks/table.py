"""Prints results/benchmarks.md from what the benchmarks measured.

python -m benchmarks.table > results/benchmarks.md
"""

import json
from pathlib import Path

from benchmarks.against_pytorch import line

FOLDER = Path("results/benchmarks")


def main() -> None:
    """Prints a section for each file that is there."""
    print("# Benchmarks\n")
    print(
        "Made by `python -m benchmarks.table` from the JSON files in `results/benchmarks/`. Timings of this machine are"
    )
    print("noisy: the ratios, medians over interleaved rounds in one run, are what to quote. What limits the program:")
    print("[docs/performance.md](../docs/performance.md).\n")
    for name, section in (("against_pytorch", _against), ("scaling", _scaling), ("data", _data), ("start", _start)):
        path = FOLDER / f"{name}.json"
        if path.exists():
            section(json.loads(path.read_text()))


def _against(contents):
    rows = contents["rows"]
    print("## Five seeds against the PyTorch reference, which trains them one after another\n")
    print("| network | batch | ours, train images/s | PyTorch | ratio | of rounds | ours, evaluate images/s | PyTorch |"
          " ratio | of rounds | matrix-product peak, GFLOP/s |")  # fmt: skip
    print("|" + "---|" * 11)
    for row in rows:
        print(line(row))
    print(f"\n`{contents['command']}`; {rows[0]['device']}; " + _versions(rows[0]["versions"]))
    print(f"{rows[0]['rounds']} rounds; the ratio is the median of the rounds' ratios.\n")
    step = {row["model"]: row["train"]["ours"] for row in rows if row["batch_size"] == 256}
    if {"alexnet", "alexnet_fconv"} <= set(step):
        print(f"A step of `alexnet_fconv` takes {step['alexnet'] / step['alexnet_fconv']:.2f} of the time of one of")
        print("`alexnet` (from the images a second above).\n")


def _scaling(contents):
    print("## Scaling (`lenet_fconv`, batch 256)\n")
    print("![images a second against seeds, devices, rotations and kernel size](benchmarks/scaling.png)\n")
    print("| question | value | images/s |\n|---|---|---|")
    for row in contents["rows"]:
        print(f"| {row['question'].replace('_', ' ')} | {row[row['question']]} | {row['images_per_second']:,.0f} |")
    print("\n| network | seconds to build, first in a process | again |\n|---|---|---|")
    for name, seconds in contents["build_seconds"].items():
        print(f"| {name} | {seconds['first']:.2f} | {seconds['again']:.2f} |")
    print(f"\n`{contents['command']}`; {contents['device']}.\n")


def _data(contents):
    print("## Data at full size\n")
    print("```json")
    print(json.dumps(contents, indent=1))
    print("```\n")


def _start(contents):
    print("## Start and memory\n")
    print("| what | measured | command |\n|---|---|---|")
    for row in contents["rows"]:
        print(f"| {row['what']} | {row['measured']} | `{row['command']}` |")
    print(f"\n{contents['device']}.\n")


def _versions(versions):
    return ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


if __name__ == "__main__":
    main()
