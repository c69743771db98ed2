"""Which digit each of some images shows, according to one network or to the seeds of a run."""

import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from experiments.data import digits
from experiments.data.files import DataError
from experiments.rules import InputError
from experiments.runs.progress import counted
from experiments.settings import PREPROCESSING
from fconv_jax import pretrained

LEAST_PROBABILITY = 0.5
INK = (20.0, 250.0)
_TOGETHER = 32  # images a batch: one compiled program serves any number of them
_SHADES = " .:-=+*#%@"


@dataclasses.dataclass(frozen=True)
class Networks:
    """Networks of one kind, in evaluation mode, by the names of their seeds; a single network has no name."""

    models: dict[Any, nnx.Module]
    classes: list[str]


def of_weights(folder_or_name: str) -> Networks:
    """What `fconv_jax.from_pretrained` loads. Raises `InputError` if it cannot, or if the network takes no digits."""
    try:
        config, model = pretrained.read_config(folder_or_name), pretrained.from_pretrained(folder_or_name)
    except ValueError as error:
        raise InputError(f"--weights: {error}") from error
    preprocessing, classes = config.get("preprocessing"), config.get("classes")
    if not isinstance(preprocessing, dict) or preprocessing.get("kind") != "digit":
        raise InputError(f"--weights: {folder_or_name} does not say that it takes digits")
    if not isinstance(classes, list) or len({name for name in classes if isinstance(name, str)}) != len(classes):
        raise InputError(f"--weights: {folder_or_name} does not name its classes")
    return Networks({None: model}, classes)


def of_run(evaluator) -> Networks:
    """The seeds of a run that did not fail, or all if all did. Raises `InputError`: it was not trained on digits."""
    config = evaluator.config
    if not evaluator.elsewhere and PREPROCESSING[config.dataset]["kind"] != "digit":
        raise InputError(f"--weights: {evaluator.run_dir} was trained on {config.dataset}, not on digits")
    rows = np.flatnonzero(evaluator.good).tolist()
    if failed := [seed for row, seed in enumerate(config.seeds) if row not in rows]:
        print(f"seeds that failed are not asked: {', '.join(map(str, failed))}", file=sys.stderr)
    models = {str(config.seeds[row]): evaluator.model(row) for row in rows}
    return Networks(models, [str(label) for label in range(evaluator.network.num_classes)])


def predict(paths: Sequence[Path], networks: Networks, *, as_json: bool = False, show: bool = False) -> list[str]:
    """Prints an answer for each image; returns a line for each that cannot be read."""
    progress = functools.partial(counted, Console(stderr=True))
    read, problems = {}, {}
    for path in progress("images", paths):
        try:
            read[path] = digits.prepare(digits.read(path))
        except DataError as error:
            problems[path] = f"{path} {error}"
    answers = dict(zip(read, _answers(list(read.values()), networks), strict=True))
    if as_json:
        contents = [_json(path, answers, problems, read if show else {}) for path in paths]
        print(json.dumps(contents, indent=1, allow_nan=False))
    else:
        for path in (path for path in paths if path in read):
            print("\n    ".join([f"{path}: {answers[path].line()}", *answers[path].remarks()]))
            if show:
                print(shown(read[path]))
    return [problems[path] for path in paths if path in problems]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the networks say of one image.

    Attributes:
      probabilities: of each class, the mean of the seeds; empty if there is no ink.
      seeds: the class that each seed names; None for one network.
      doubt: why it is probably no digit, or None.
    """

    probabilities: dict[str, float]
    seeds: dict[str, str] | None
    doubt: str | None

    @functools.cached_property
    def ranked(self) -> list[str]:
        """The classes, the most probable first."""
        return sorted(self.probabilities, key=self.probabilities.__getitem__, reverse=True)

    def line(self) -> str:
        """The answer in one line."""
        if not self.ranked:
            return "no digit"
        first, *others = (f"{name} ({self.probabilities[name]:.2f})" for name in self.ranked[:3])
        return f"{first}, then {', '.join(others)}"

    def remarks(self) -> list[str]:
        """Further lines about the answer."""
        lines = [] if self.doubt is None else [f"probably no digit: {self.doubt}"]
        if self.seeds is not None and self.ranked:
            others = [f"seed {seed} says {name}" for seed, name in self.seeds.items() if name != self.ranked[0]]
            agree = len(self.seeds) - len(others)
            lines.append(", ".join([f"{agree} of {len(self.seeds)} seeds agree", *others]))
        return lines


def _answers(images, networks):
    """An `Answer` for each prepared image."""
    if not images:
        return []
    stacked = np.stack(images)[..., None]
    try:
        probabilities = np.stack([_probabilities(model, stacked) for model in networks.models.values()])
    except ValueError as error:
        raise InputError(f"--weights: {error}") from error
    if not np.isfinite(probabilities).all():
        raise InputError(
            "--weights: its answers are not finite numbers: the training failed, or the weights are damaged"
        )
    if probabilities.shape[2:] != (len(networks.classes),):
        raise InputError(f"--weights: {probabilities.shape[2:]} outputs for {len(networks.classes)} classes")
    return [_answer(image, probabilities[:, i], networks) for i, image in enumerate(images)]


def _probabilities(model, images):
    """`[n, 28, 28, 1]` -> `[n, class]`."""
    graph, state = nnx.split(model)
    size = min(len(images), _TOGETHER) if len(images) == 1 else _TOGETHER
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padded = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)))
        parts.append(np.asarray(_softmax(graph, state, padded))[: len(part)])
    return np.concatenate(parts)


@functools.partial(jax.jit, static_argnums=0)
def _softmax(graph, state, images):
    return jax.nn.softmax(nnx.merge(graph, state)(images))


def _answer(image, by_seed, networks):
    if not image.any():
        return Answer({}, None, "nothing stands out from the background")
    mean, classes = by_seed.mean(0), networks.classes
    seeds = {seed: classes[int(row.argmax())] for seed, row in zip(networks.models, by_seed, strict=True)}
    ink, doubt = float(image.sum()), None
    if not INK[0] <= ink <= INK[1]:
        doubt = f"its strokes cover {ink:.0f} of 784 pixels, those of digits {INK[0]:.0f} to {INK[1]:.0f}"
    elif mean.max() < LEAST_PROBABILITY:
        doubt = f"no class has a probability of {LEAST_PROBABILITY}"
    probabilities = {name: float(value) for name, value in zip(classes, mean, strict=True)}
    return Answer(probabilities, None if None in seeds else seeds, doubt)


def _json(path, answers, problems, shown):
    if path in problems:
        return {"file": str(path), "error": problems[path]}
    answer = answers[path]
    contents = {"file": str(path), "class": answer.ranked[0] if answer.ranked else None, **dataclasses.asdict(answer)}
    if path in shown:
        contents["pixels"] = np.round(255 * shown[path]).astype(int).tolist()
    return contents


def shown(image: np.ndarray) -> str:
    """An image `[height, width]`, 0 to 1, as text, two characters a pixel."""
    levels = np.clip(np.round(image * (len(_SHADES) - 1)), 0, len(_SHADES) - 1).astype(int)
    return "\n".join("".join(2 * _SHADES[level] for level in row) for row in levels)
