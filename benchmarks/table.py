"""Prints results/benchmarks.md from what the benchmarks measured.

python -m benchmarks.table > results/benchmarks.md
"""

import json
from pathlib import Path

from benchmarks import against_peers as peers
from benchmarks import convolutions, quick
from benchmarks.against_pytorch import line
from benchmarks.data import table as data_table
from benchmarks.goals import print_goals

FOLDER = Path("results/benchmarks")

_HEAD = """# Benchmarks

Made by `python -m benchmarks.table` from the JSON files in `results/benchmarks/`. Timings of this machine are
noisy: the ratios, medians over interleaved rounds in one run, are what to quote. What limits the program:
[docs/performance.md](../docs/performance.md). What names no commit was measured on 25 November 2026, before 33b26b4
halved the time of expanding filters.
"""


def main() -> None:
    """Prints a section for each file that is there."""
    print(_HEAD)
    files = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    print_goals(files)
    sections = {"against_peers": _peers, "quick": _quick, "convolutions": _convolutions, "against_pytorch": _against}
    sections |= {"scaling": _scaling, "data": _data, "start": _start, "speed_run": _speed_run}
    for name, section in sections.items():
        if name in files:
            section(files[name])


def _peers(contents):
    print("## Group convolutions of many channels, against the alternatives\n")
    print(
        "Images a second, and medians of the rounds' ratios, ours to theirs. `six`: the layout of `fconv_mnist_simple`;"
    )
    print(
        "`invariant`: that of `lenet_fconv_invariant`. Evaluation with filters expanded once: `expand_filters` of ours,"
    )
    print("`.export()` of escnn's.\n")
    sides = [*peers.JAX_SIDES, *peers.TORCH_SIDES]
    names = {"nnx": "`nnx.Conv`", "plain": "`torch.nn.Conv2d`", "reference": "PyTorch F-Conv"}
    names = [names.get(side, side) for side in sides]
    print("| layout | what | batch | " + " | ".join(names) + " | " + " | ".join(f"to {n}" for n in names[1:]) + " |")
    print("|" + "---|" * (2 + 2 * len(sides)))
    for row in contents["rows"]:
        print(peers.line(row))
    print("\nSeconds to build, and of the first training step of 64 images, compilation included:\n")
    print("| layout | " + " | ".join(names) + " |\n|" + "---|" * (1 + len(names)))
    for row in contents["rows"]:
        if (row["kind"], row["batch"]) == ("train", 64):
            built, first = contents["build_seconds"][row["layout"]], row["first_call_seconds"]
            cells = [f"{built[side]:.1f}, {first[side]:.1f}" for side in sides]
            print(f"| {row['layout']} | " + " | ".join(cells) + " |")
    print(f"\n`{contents['command']}`; {_where(contents)}.\n")


def _quick(contents):
    print("## The library against `nnx.Conv`, in two minutes\n")
    print("| what | their seconds over ours | of rounds | seconds to compile, ours / theirs | MB of temporaries |")
    print("|" + "---|" * 5)
    for row in contents["rows"]:
        print(quick.line(row))
    print(f"\n`{contents['command']}`; {_where(contents)}; " + _versions(contents["versions"]) + "\n")


def _convolutions(contents):
    print("## Convolutions, shape by shape\n")
    print(
        "GFLOP/s; the last three columns: forward pass and kernel's gradient inside of a `lax.scan`, of at most "
        f"{convolutions.IN_A_LOOP} images.\n"
    )
    print("| kernel, channels | image, batch | matrix product | XLA, forward | input's gradient | kernel's gradient "
          "| canonical | loop: direct | loop: auto | loop: loops |")  # fmt: skip
    print("|" + "---|" * 10)
    for row in contents["rows"]:
        print(convolutions.line(row))
    print(f"\n`{contents['command']}`; {_where(contents)}; " + _versions(contents["versions"]) + "\n")


def _against(contents):
    rows = contents["rows"]
    print("## Five seeds against the PyTorch reference, which trains them one after another\n")
    print("| network | batch | ours, train images/s | PyTorch | ratio | of rounds | ours, evaluate images/s | PyTorch |"
          " ratio | of rounds | matrix-product peak, GFLOP/s |")  # fmt: skip
    print("|" + "---|" * 11)
    for row in rows:
        print(line(row))
    print(f"\n`{contents['command']}`; {_where({**rows[0], **contents})}; " + _versions(rows[0]["versions"]))
    print(f"{rows[0]['rounds']} rounds; the ratio is the median of the rounds' ratios.\n")


def _scaling(contents):
    print("## Scaling (batch 256; rows of one question alternate)\n")
    print("![images a second against seeds, devices, rotations and kernel size](benchmarks/scaling.png)\n")
    print("| question | value | images/s, median | of rounds |\n|---|---|---|---|")
    for row in contents["rows"]:
        question, rounds = row["question"].replace("_", " "), f"{row['low']:,.0f}-{row['high']:,.0f}"
        print(f"| {question} | {row[row['question']]} | {row['images_per_second']:,.0f} | {rounds} |")
    print("\n| network | seconds to build, first in a process | again |\n|---|---|---|")
    for name, seconds in contents["build_seconds"].items():
        print(f"| {name} | {seconds['first']:.2f} | {seconds['again']:.2f} |")
    print(f"\n`{contents['command']}`; {_where(contents)}.\n")


def _data(contents):
    print("## Data at full size\n")
    print(data_table(contents))
    machine = contents["machine"]
    print(f"\n`{contents['command']}`; {machine['processor']}, {machine['cores']} cores{_commit(contents)};")
    print(f"{len(contents['rounds'])} rounds, medians.\n")


def _start(contents):
    print("## Start, and runs at full size\n")
    print("| network | what | measured | command |\n|---|---|---|---|")
    for row in contents["rows"]:
        if row["what"] == "start":
            what, told = f"start to first step, {row['cache']} compilation cache", f"{row['seconds']:.1f} s"
        else:
            what = "setting 4 at full size (Fashion-MNIST placed by hand), five seeds, two epochs"
            told = f"peak {row['megabytes'] / 1e3:.2f} GB, {row['wall_seconds']:.0f} s, "
            told += f"{row['train_images_per_second']:,.0f} images/s, test accuracy {row['mean']:.4f}"
        print(f"| {row['model']} | {what} | {told} | `{row['command']}` |")
    print(f"\n`{contents['command']}`; {_where(contents)}.\n")


def _speed_run(contents):
    print("## Speed runs on MNIST\n")
    print("Seconds of a training on a fixed number of upright digits, after which the mean accuracy of the runs is to")
    print(
        "be above a bar: on upright test digits, or on test digits at uniform angles (cubic). The programs are compiled"
    )
    print("before, or read from the user's cache; the seconds of that stand beside.\n")
    print("| network | parameters | tested | bar | images | seconds, mean (least to most) "
          "| goal for them: at most, aim | accuracy, mean (least to most) | bar reached | to start |")  # fmt: skip
    print("|" + "---|" * 10)
    for task in contents["tasks"].values():
        seconds, accuracy = task["seconds"], task["accuracy"]
        mean = [sum(values) / len(values) for values in (seconds, accuracy)]
        where = "uniform angles" if task["rotated"] else "upright"
        where += f", input at {len(task['turns'])} angles" if len(task["turns"]) > 1 else ""
        goals = ", ".join(f"{goal:.0f}" for goal in task.get("goals", ()))
        print(f"| {task['network']} | {task['num_parameters']:,} | {where} | {task['bar']} | {task['images']:,} "
              f"| {mean[0]:.1f} ({min(seconds):.1f} to {max(seconds):.1f}) | {goals} "
              f"| {mean[1]:.4f} ({min(accuracy):.4f} to {max(accuracy):.4f}), {len(accuracy)} runs "
              f"| {'yes' if mean[1] >= task['bar'] else '**no**'} | {task['compile_seconds']:.0f} s |")  # fmt: skip
    print("\nThe small network has kernels of 9, 5, 5, 5 and 8, 8, 16, 16 features at 8 rotations.")
    for task in contents.get("validation", {}).values():
        mean = sum(task["accuracy"]) / len(task["accuracy"])
        print(f"On the validation digits, by which the number of images may be chosen, {task['network']} reads")
        print(f"{mean:.4f} after {task['images']:,} ({len(task['accuracy'])} runs).")
    print('"To start": compiling, or reading programs that an earlier call left.\n')
    for task in [*contents["tasks"].values(), *contents.get("validation", {}).values()]:
        how = f"batches of {task['batch_size']}, Adam at {task['learning_rate']:g} with a cosine schedule"
        print(f"- {task['network']}: {how}; `{task['command']}`; {_where(task)}; {_versions(task['versions'])}")
    print()


def _where(contents):
    return contents["device"] + _commit(contents)


def _commit(contents):
    return f", commit {contents['commit']}" if contents.get("commit") else ""


def _versions(versions):
    return ", ".join(f"{name} {version}" for name, version in versions.items()) + "."


if __name__ == "__main__":
    main()
