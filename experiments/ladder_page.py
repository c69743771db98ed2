"""The page why-fconv-lost.md and its figure, from the ladders' numbers."""

from pathlib import Path

import numpy as np

from experiments.climbing import DATASET, PLAIN_NAME, file_of, read
from experiments.plots import pyplot, save
from experiments.rungs import LADDERS, RUNGS
from experiments.settings import DATASETS, FAILED_BELOW, SETTINGS

PAGE, FIGURE = "why-fconv-lost.md", "ladder.png"

_INTRODUCTION = """# Why F-Conv lost

The report trained `lenet_fconv` and `alexnet_fconv`, hoped that networks of rotation-equivariant layers would read
turned digits after training on upright ones, and found them a little worse than plain networks everywhere.
Equivariant layers alone cannot do that: the network has to be invariant up to its last layer, and as published it
is not. Below, the causes are taken away one after another, from top to bottom; each rung differs from the one above
it in one thing. Settings: 1 all upright; 2 trained on turned digits; **3 trained on upright digits, tested on
turned ones** (a fifth of them upright, the rest turned by up to 90 degrees); 4 both turned.
"""

_CAUSES = {
    "variance-preserving init": """\
**The initial weights.** As published they ignore the norm of the basis: each layer shrinks its signal, and at the start
almost nothing of the logits depends on the picture. `init="he"` keeps the variance. As published, some runs
never leave chance, and others start late.""",
    "symmetric pooling": """\
**The pools.** A 2 x 2 pool on 7 pixels drops the last row and column, so that a quarter turn of the picture is none of
the features. Symmetric windows see every pixel. (`lenet_fconv` pools 24 pixels to 12, where the two are the same:
nothing changes.) Alone this cannot help while the flatten behind it tells positions apart.""",
    "maximum over rotations": """\
**The rotations.** The features of a turned digit stand at another place of the rotation axis; a dense layer behind it
takes that for another digit. The maximum over rotations forgets the angle, but not yet the position: each pixel still
has its own weights. (The last layer of `alexnet_fconv` sums its rotations away; on that ladder this rung puts one there
that keeps them, with the maximum behind it.)""",
    "mean over space": """\
**The positions.** The mean over space makes the network invariant: a picture turned by 90 degrees has the same mean
features. Of the distance between settings 1 and 3 only what is lost between the quarter turns is left (what the layers
lose there, and how to keep it, is in [equivariance.md](../docs/equivariance.md)). The price is capacity: where the
flatten handed hundreds or thousands of numbers on, the mean hands on one for each feature, and in as many steps less
is learned. `lenet_fconv` with its one layer of two 5 x 5 filters cannot pay it at all: such a network only measures how
much of two strokes a picture holds.""",
    "equal parameters": """\
**The capacity.** The parameters that the flatten's dense layer no longer needs are spent on features and hidden
units, up to those of the plain network. For one layer it is not the right currency: more strokes, each still 5 pixels
wide, are no digits. Depth is.""",
}

_END = """## What a student may take from it

An equivariant layer is a promise about features, not about answers. The promise is kept only if everything behind
it keeps it too, down to the logits; one pool that drops a row or one flatten breaks it, silently, since nothing
fails and accuracy on upright digits stays high. Invariance then costs information (positions, angles), and a
network has to be given features enough to do without. The networks that follow from this, `lenet_fconv_invariant`
and `alexnet_fconv_invariant`, are in [invariant.md](invariant.md); which stage of any network breaks it: `python -m
experiments.audit --model NAME`.
"""


def write(output: Path) -> list[str]:
    """Writes OUTPUT/why-fconv-lost.md and OUTPUT/figures/ladder.png from the ladders that there are; their names."""
    ladders = {name: read(file_of(output / "ladder", name))
               for name in LADDERS if file_of(output / "ladder", name).exists()}  # fmt: skip
    (output / "figures").mkdir(parents=True, exist_ok=True)
    plot(output / "figures" / FIGURE, ladders)
    parts = [_INTRODUCTION, f"![accuracy on each rung](figures/{FIGURE})\n"]
    parts += [_ladder(ladder) for ladder in ladders.values()]
    parts += ["## The causes\n", *(_cause(rung, text, ladders) for rung, text in _CAUSES.items()), _END]
    (output / PAGE).write_text("\n".join(parts), encoding="utf-8")
    return [PAGE, f"figures/{FIGURE}"]


def _ladder(ladder):
    seeds = ", ".join(map(str, ladder["seeds"]))
    steps = DATASETS[DATASET].num_train // ladder["batch_size"] * ladder["epochs"]
    lines = [
        f"## `{ladder['name']}`\n",
        f"{DATASET} (3,500 upright digits to train on, not MNIST), {steps:,} steps of {ladder['batch_size']} images on "
        f"every rung and in every setting, Adam at {ladder['learning_rate']:g}, seeds {seeds}, {ladder['device']}: "
        f"`{ladder['command']}`. Mean and standard deviation of the test accuracy at the best validation epoch; in "
        "brackets the points (hundredths) gained on the rung above.\n",
        "| rung | parameters | setting 1 | setting 2 | setting 3 | setting 4 |",
        "|---|---|---|---|---|---|",
    ]
    before = None
    for rung in (PLAIN_NAME, *RUNGS):
        found = ladder["rungs"].get(rung)
        if found is None:
            continue
        cells = []
        for setting in SETTINGS:
            values = np.array(found["test_accuracy"][str(setting)])
            cell = f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values.mean():.3f}"
            cells.append(cell if before is None else f"{cell} ({_gain(found, before, setting):+.1f})")
        lines.append(f"| {rung} | {found['num_parameters']:,} | {' | '.join(cells)} |")
        before = None if rung == PLAIN_NAME else found
    missing = [rung for rung in RUNGS if rung not in ladder["rungs"]]
    lines += [f"\nNot run yet: {', '.join(missing)}; the command above continues."] if missing else []
    return "\n".join(lines) + "\n" + _stuck(ladder)


def _stuck(ladder):
    """Says which runs stayed at chance: they are in the means."""
    stuck = {rung: _at_chance(found) for rung, found in ladder["rungs"].items()}
    runs = ", ".join(f"{count} of {rung}" for rung, count in stuck.items() if count)
    total = len(ladder["seeds"]) * len(SETTINGS)
    return f"\nRuns that did not leave chance, of {total} on a rung, are in the means: {runs}.\n" if runs else ""


def _at_chance(found):
    """How many of a rung's runs did not leave chance."""
    return sum(value < FAILED_BELOW for values in found["test_accuracy"].values() for value in values)


def _gain(found, before, setting, least=0.0):
    """Points gained in a setting by the runs of at least that accuracy (NaN if there are none)."""
    now, then = ([value for value in rung["test_accuracy"][str(setting)] if value >= least] for rung in (found, before))
    return 100 * (np.mean(now) - np.mean(then)) if now and then else np.nan


def _cause(rung, text, ladders):
    names = list(RUNGS)
    measured = []
    for ladder in ladders.values():
        found, before = ladder["rungs"].get(rung), ladder["rungs"].get(names[names.index(rung) - 1])
        if found and before:
            gains = ", ".join(f"{_gain(found, before, setting):+.1f}" for setting in SETTINGS)
            measured.append(f"`{ladder['name']}` {gains}")
            if _at_chance(found) or _at_chance(before):
                gains = ", ".join(f"{_gain(found, before, setting, FAILED_BELOW):+.1f}" for setting in SETTINGS)
                measured[-1] += f" (without the runs at chance: {gains})"
    return f"{text} Points in settings 1 to 4: {'; '.join(measured)}.\n"


def plot(path: Path, ladders: dict[str, dict]) -> None:
    """Writes test accuracy on each rung, a panel for each ladder, a line for each setting; dashed: plain."""
    figure, axes = pyplot().subplots(
        1, len(ladders), figsize=(5.5 * len(ladders), 4.2), sharey=True, layout="constrained", squeeze=False
    )
    for axis, (name, ladder) in zip(axes[0], ladders.items(), strict=True):
        rungs = [rung for rung in RUNGS if rung in ladder["rungs"]]
        for setting, color in zip(SETTINGS, ("tab:blue", "tab:green", "tab:red", "tab:purple"), strict=True):
            values = np.array([ladder["rungs"][rung]["test_accuracy"][str(setting)] for rung in rungs])
            axis.errorbar(range(len(rungs)), values.mean(1), _deviation(values), marker="o", color=color, capsize=2,
                          linewidth=2.2 if setting == 3 else 1, label=f"setting {setting}")  # fmt: skip
            if PLAIN_NAME in ladder["rungs"]:
                plain = np.mean(ladder["rungs"][PLAIN_NAME]["test_accuracy"][str(setting)])
                axis.axhline(plain, color=color, linestyle="--", linewidth=0.8)
        axis.set_xticks(range(len(rungs)), rungs, rotation=30, ha="right", fontsize=8)
        axis.set(title=name, ylim=(0, 1.1))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test accuracy (dashed: the plain network)")
    axes[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def _deviation(values):
    """Between seeds, as in the tables; nothing for one seed."""
    return values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
