"""A sweep's plan: which trainings a sweep makes, in which order, and how long those to come will take."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.settings import DATASETS, MODELS, SETTINGS, protocol


@dataclass(frozen=True)
class Planned:
    """One training of a sweep: settings that train on the same images share it."""

    model: str
    settings: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.model}, setting{'s' * (len(self.settings) > 1)} {', '.join(map(str, self.settings))}"

    def folder_names(self, dataset: str, init: str | None) -> tuple[str, ...]:
        """Names of the run folders of its cells."""
        return tuple(cell_name(setting, self.model, dataset, init) for setting in self.settings)

    def work(self, dataset: str, epochs: int | None) -> float:
        """Relative duration; it has no unit. `epochs`: `None` for the protocol's."""
        images = DATASETS[dataset].num_images("train", self.settings[0])
        return MODELS[self.model].cost * images * (epochs or protocol(self.model, dataset).epochs)


@dataclass(frozen=True)
class Place:
    """Where a training stands in a sweep: the `number`-th (from 1) of `count`, and the work after it.

    later: work of the trainings after this one, divided by its own.
    """

    number: int
    count: int
    later: float

    def seconds_left(self, own_left: float, own_whole: float) -> float:
        """Of the whole sweep, from this training's seconds left and its whole duration."""
        return own_left + self.later * own_whole


def cell_name(setting: int, model: str, dataset: str, init: str | None = None) -> str:
    """Name of a cell's folder; other initial weights than the report's stand beside them under a name of their own."""
    return f"setting{setting}_{model}_{dataset}" + ("_he" if init == "he" else "")


def planned(settings: Sequence[int], models: Sequence[str], shard: tuple[int, int] = (0, 1)) -> list[Planned]:
    """Returns the trainings of one shard (index from 0, number of shards), model by model."""
    settings = sorted(settings)  # however they are typed: the first one's folder has the save of both
    pairs = {SETTINGS[n].train_rotated: [] for n in settings}
    for n in settings:
        pairs[SETTINGS[n].train_rotated].append(n)
    index, count = shard
    return [Planned(model, tuple(pair)) for model in models for pair in pairs.values()][index::count]


def places(trainings: Sequence[Planned], dataset: str, epochs: int | None = None) -> list[Place]:
    """Returns the place of each training; `epochs`: `None` for those of its protocol."""
    work = [training.work(dataset, epochs) for training in trainings]
    return [Place(i + 1, len(work), sum(work[i + 1 :]) / work[i]) for i in range(len(work))]
