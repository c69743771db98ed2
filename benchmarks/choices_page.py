"""The page of `benchmarks.invariant_choices`: what each choice reaches, and what it gains on what it changes."""

import re
from string import Template

_BASES = {
    "all frequencies, square masks, mean pools, ": "all frequencies, square masks, mean pools",
    "blurred pools, ": "+ blurred pools",
    "power mean (p = 16), ": "blurred pools, and a power mean (p = 16) of blurred features",
}
"""What a choice is compared with, by the beginning of its name."""


def text(found: list[tuple], names: list[str]) -> str:
    """The page of some data sets' (name, protocol, contents of its file); `names`: of all choices, in their order."""
    return _PAGE.substitute(sections="\n".join(_section(*each, names) for each in found))


def _section(dataset, protocol, contents, names):
    choices = contents["choices"]
    angles = list(next(iter(choices.values()))["accuracy"])
    ends = angles[0], angles[-1]
    shown, gains = [f"{angle} degrees" for angle in angles], [f"gain at {angle}" for angle in ends]
    head = ["choice", "parameters", "seconds", "cores", *shown, "lost at the worst", *gains, "commit"]
    rows = [head, ["---"] * len(head)]
    for name in filter(choices.__contains__, names):
        found = choices[name]
        values = list(found["accuracy"].values())
        seconds = "" if found["seconds"] is None else f"{found['seconds']:.0f}"
        cores, commit = (re.search(part, found["device"]) for part in (r"(\d+) cores?\b", r"commit (.*)"))
        rows.append([name, f"{found['num_parameters']:,}", seconds, cores[1] if cores else "",
                     *_cells(found), f"{values[0] - min(values):.3f}",
                     *(_gain(choices[name], choices.get(base(name, names)), angle) for angle in ends),
                     commit[1] if commit else ""])  # fmt: skip
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    machines = dict.fromkeys(found["device"].split(", commit")[0] for found in choices.values())
    several = len(protocol.seeds) > 1
    seeds = f"seed{'s' * several} {', '.join(map(str, protocol.seeds))}"
    seeds += " (mean)" if several else " (of a single seed, differences of a point mean little)"
    old = "" if all(" commit " in found["device"] for found in choices.values()) else (
        " Rows without a commit are older.")  # fmt: skip
    missing = [name for name in names if name not in choices]
    missing = f" Not trained yet (the same command does it): {'; '.join(missing)}." if missing else ""
    epochs = f"{protocol.epochs} epoch{'s' * (protocol.epochs > 1)}"
    return _SECTION.substitute(
        dataset=dataset, epochs=epochs, seeds=seeds, split=protocol.split,
        table=table, missing=old + missing, command=contents["command"], device=" and ".join(machines),
    )  # fmt: skip


def _cells(found):
    """The accuracy at each angle, with the deviation over the seeds where it was kept."""
    deviation = found.get("deviation") or {}
    return [f"{mean:.3f}" + (f" ± {deviation[angle]:.3f}" if angle in deviation else "")
            for angle, mean in found["accuracy"].items()]  # fmt: skip


def base(name: str, names: list[str]) -> str | None:
    """The choice that `name` is compared with: the row above for a "+", none for the first."""
    if name.startswith("+"):
        return names[names.index(name) - 1]
    return next((of for beginning, of in _BASES.items() if name.startswith(beginning)), None)


def _gain(found, before, angle):
    gain = before and round(found["accuracy"][angle] - before["accuracy"][angle], 3)
    return "" if gain is None else f"{gain + 0.0:+.3f}"  # no -0.000


_PAGE = Template("""# What each choice brings

Small networks of four F-Conv layers with 8, 8, 12 and 16 features (C8), trained on upright digits by one protocol:
batches of 64 unless a row says otherwise, Adam at 5e-3 with a cosine schedule. All digits of a split are then rotated
by one angle and tested. Quarter turns are exact in every row. "Lost at the worst": upright minus lowest accuracy.
"Gain", at 0 and at 45 degrees: above the row that the choice is compared with. A `+` adds to the row above it; the
others change the row whose name they begin with ("blurred pools": the last `+`; "power mean (p = 16)": that of blurred
features).
`lenet_fconv_invariant` was chosen on training and validation digits of mnist_5k. Test figures of mnist_5k were known
then ([which](../docs/reproduce.md#test-figures-that-were-known-before)); its test digits are among MNIST's training
digits. The seconds are of the training of all seeds, compilation of its steps included, on so many cores of a
shared machine: only large differences mean something, and there are none where much else ran beside it.

$sections""")
_SECTION = Template("""## $dataset

$epochs, $seeds, tested on the $split digits.

$table

Made by `$command` on $device.$missing
""")
