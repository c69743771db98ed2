"""One training from its first step to its last: for one setting, or for two that train on the same images."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from experiments.data import Split
from experiments.settings import DATASETS, RunConfig
from experiments.training import devices, processes
from experiments.training.network import build
from experiments.training.programs import Programs

# A save may cost this share of the time since the last one, and comes at most this often.
SAVING_SHARE = 0.02
SHORTEST_SECONDS = 5.0
# In the middle of an epoch that takes long it comes this many times more seldom.
MIDDLE = 10


@dataclasses.dataclass
class Position:
    """How far a training has come, and its curves so far."""

    epoch: int = 0
    step: int = 0
    losses: list = dataclasses.field(default_factory=list)  # of this epoch, [step][seed]
    train_loss: list = dataclasses.field(default_factory=list)  # [epoch][seed]
    validation_correct: dict = dataclasses.field(default_factory=dict)  # {setting: [epoch][seed]}
    images: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    wall_seconds: float = 0.0


class Loop:
    """Trains one network on one training set, keeping the best epoch for each of its settings.

    Args:
      configs: one for each setting; alike but for the setting.
      splits: {setting: {split: Split}}; the training images are the same.
    """

    def __init__(self, configs: list[RunConfig], splits: dict[int, dict[str, Split]]):
        self.config, self.settings = configs[0], [config.setting for config in configs]
        self.network, self.programs = make(self.config, self.settings, len(splits[self.settings[0]]["train"].labels))
        self.train = self.programs.place(splits[self.settings[0]]["train"])
        self.validation = {n: self.programs.place(splits[n]["validation"]) for n in self.settings}
        self.num_steps = self.programs.num_steps(self.train)
        self.compiling = _CompileClock()

    def start(self, rows: dict | None = None, position: Position | None = None) -> None:
        """Makes the states of the first step, or takes those of a save: rows of the real seeds, and the position."""
        self.position = position or Position()
        self._began = time.monotonic() - self.position.wall_seconds  # compiling counts
        self.states = self.programs.init() if rows is None else self.programs.pad(rows)
        self.saved_at, self.save_seconds = time.monotonic(), 0.0
        self.saved = None if rows is None else self._number()
        jax.block_until_ready(self.states)

    def estimate_seconds(self) -> float:
        """Returns about how long the rest of the training takes, from the time of a gradient on a few images."""
        seconds = self.programs.seconds_per_image(self.states, self.train)
        self.position.compile_seconds += self.compiling.read()
        images = self.train[1].shape[0] * len(self.config.seeds)
        checked = sum(data[1].shape[0] for data in self.validation.values()) * len(self.config.seeds)
        # Validation runs the forward pass alone: about a third of the cost of training.
        return (self.config.epochs - self.position.epoch) * seconds * (images + checked / 3)

    def run(self, *, report: Callable, stop: Callable[[], bool], save: Callable) -> bool:
        """Trains to the last epoch, saving now and then.

        Args:
          report: called with (position, number of steps of an epoch) after each step and epoch.
          stop: says whether to stop after this step.
          save: called with (step number, states of the real seeds, position).

        Returns:
          whether the last epoch was reached; if not, `stop` said so and what was done is saved.
        """
        while self.position.epoch < self.config.epochs:
            if not self._epoch(report, stop, save):
                self._save(save)
                return False
            stopped = processes.agreed(stop())
            if stopped or processes.agreed(processes.is_first() and self._save_is_due()):
                self._save(save)
            if stopped:
                return False
        # The test comes next, and may be interrupted or fail; seconds of work need no save.
        is_due = self.saved != self._number() and time.monotonic() - self.saved_at > SHORTEST_SECONDS
        if processes.agreed(processes.is_first() and is_due):
            self._save(save)
        if not processes.agreed(stop()):
            return True
        if processes.agreed(processes.is_first() and self.saved != self._number()):
            self._save(save)
        return False

    def best(self, setting: int, split: Split) -> tuple[dict, np.ndarray]:
        """Rows of the real seeds at a setting's best epoch, and the counts `[seed, class, predicted]` on a split."""
        best = self.states["best"][str(setting)]
        confusion = self.programs.confusion(best["params"], best["stats"], self.programs.place(split))
        return self.programs.unpad(best), confusion

    def curves(self, setting: int) -> dict:
        """Training loss and number of right validation images, `[seed][epoch]`."""
        return {
            "train_loss": np.transpose(self.position.train_loss).tolist(),
            "validation_correct": np.transpose(self.position.validation_correct[str(setting)]).tolist(),
        }

    def _epoch(self, report, stop, save):
        """Trains to the end of the epoch, and keeps the best; False if `stop` said so before."""
        position = self.position
        orders = self.programs.orders(self.train, position.epoch)
        while position.step < self.num_steps:
            self._step(orders)
            position.compile_seconds += self.compiling.read()
            report(position, self.num_steps)
            if position.step == self.num_steps:
                break
            if processes.agreed(stop()):
                return False
            if processes.agreed(processes.is_first() and self._save_is_due(MIDDLE)):
                self._save(save)
        correct = {setting: self._correct(data) for setting, data in self.validation.items()}
        self.states = self.programs.keep_best(self.states, correct, position.epoch + 1)
        position.train_loss.append(np.mean(np.asarray(position.losses, np.float64), axis=0).tolist())
        for setting, counts in correct.items():
            position.validation_correct.setdefault(str(setting), []).append(counts.tolist())
        position.epoch, position.step, position.losses = position.epoch + 1, 0, []
        position.compile_seconds += self.compiling.read()
        position.wall_seconds = time.monotonic() - self._began
        report(position, self.num_steps)
        return True

    def _step(self, orders):
        position, config = self.position, self.config
        started, compiled_before = time.monotonic(), self.compiling.total
        self.states, losses, done = self.programs.steps(
            self.states, orders, self.train, position.epoch, position.step, self.programs.layout.steps_per_call
        )
        losses = self.programs.rows(losses)  # waits for the step
        position.seconds += time.monotonic() - started - (self.compiling.total - compiled_before)
        images = min(done * config.batch_size, self.train[1].shape[0] - position.step * config.batch_size)
        position.images += images * len(config.seeds)
        position.losses += losses.T.tolist()
        position.step += done

    def _correct(self, data):
        confusion = self.programs.confusion(self.states["params"], self.states["stats"], data)
        return np.trace(confusion, axis1=1, axis2=2)

    def _save_is_due(self, times=1):
        pause = max(SHORTEST_SECONDS, self.save_seconds / SAVING_SHARE)
        return time.monotonic() - self.saved_at > times * pause

    def _number(self):
        """A save's number, which only grows, with room for a stop in the middle of an epoch."""
        return self.position.epoch * (self.num_steps + 1) + self.position.step

    def _save(self, save):
        started, position = time.monotonic(), self.position
        position.wall_seconds = started - self._began
        self.saved = self._number()
        save(self.saved, self.programs.unpad(self.states), position)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - started


def make(config: RunConfig, settings=(), num_train: int = 1, num_classes: int | None = None):
    """Returns the network of a configuration and its programs: network -> layout -> programs, the one place.

    `settings`: each keeps its own best epoch; `num_train`: training images, for the learning rate's schedule;
    `num_classes`: default: the data set's.
    """
    network = build(
        config.model,
        init=config.init,
        precision=config.precision,
        num_classes=DATASETS[config.dataset].num_classes if num_classes is None else num_classes,
        label_smoothing=config.label_smoothing,
        augmentation=config.augmentation,
    )
    num_seeds, size = len(config.seeds), config.batch_size
    layout = devices.layout(config.model, num_seeds, size, seed_map=config.seed_map, has_stats=network.has_stats)
    optimizer = {name: getattr(config, name) for name in ("learning_rate", "schedule", "weight_decay", "l2")}
    num_steps = config.epochs * -(-num_train // size)
    return network, Programs(network, layout, config.seeds, settings, batch_size=size, num_steps=num_steps, **optimizer)


class _CompileClock:
    """Adds up the time that jax spends compiling."""

    def __init__(self):
        self.total, self._read = 0.0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_) -> None:
        if event.startswith("/jax/core/compile/"):
            self.total += duration_secs

    def read(self) -> float:
        """Seconds since the last call."""
        new, self._read = self.total - self._read, self.total
        return new
