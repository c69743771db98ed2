"""One training from data to results: a cell of the report's table, or two that train on the same images."""

import dataclasses
import hashlib
import shutil
import time
from pathlib import Path

import jax
import numpy as np

from experiments import backends, folders, machines, training
from experiments.checkpoints import (
    CheckpointError,
    Checkpoints,
    basis_record,
    check_basis,
    has_checkpoint,
    restore,
    restore_record,
)
from experiments.data import Split
from experiments.plots import plot_curves
from experiments.results import device_name, summarize, write_curves, write_json
from experiments.settings import DATASETS, RunConfig
from experiments.trainer import Trainer

# A save may cost this share of the time since the last one, and comes at most this often.
_SAVING_SHARE = 0.02
_SHORTEST_SECONDS = 5.0


class Interrupted(Exception):
    """A signal stopped the run; it is saved and can be resumed."""


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


class Training:
    """Trains one network on one training set, keeping the best epoch for each of its settings.

    Args:
      configs: one for each setting; alike but for the setting.
      folders: their run folders; the first also holds what a resume needs.
      splits: {setting: {split: Split}}; the training images are the same.
      report: called with (position, number of steps of an epoch) after each step.
      stop: says whether to stop after this step.
    """

    def __init__(self, configs: list[RunConfig], run_folders: list[Path], splits, *, report, stop):
        self.configs, self.folders, self.splits = configs, run_folders, splits
        self.report, self.stop = report, stop
        config = configs[0]
        self.network = training.build(
            config.model,
            init=config.init,
            precision=config.precision,
            num_classes=DATASETS[config.dataset].num_classes,
            label_smoothing=config.label_smoothing,
        )
        plan = backends.plan(
            config.model,
            len(config.seeds),
            config.batch_size,
            seed_map=config.seed_map,
            has_stats=self.network.has_stats,
        )
        num_train = len(splits[config.setting]["train"].labels)
        self.trainer = Trainer(
            self.network,
            plan,
            config.seeds,
            [c.setting for c in configs],
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            schedule=config.schedule,
            weight_decay=config.weight_decay,
            num_steps=config.epochs * -(-num_train // config.batch_size),
        )
        self.train = self.trainer.place(splits[config.setting]["train"])
        self.validation = {c.setting: self.trainer.place(splits[c.setting]["validation"]) for c in configs}
        self.num_steps = self.trainer.num_steps(self.train)
        self.basis = basis_record(training.abstract_model(self.network))
        self.compiling = _CompileClock()

    def start(self, resume: bool) -> None:
        """Makes the states of the first step, or restores those of the last save.

        Raises:
          CheckpointError: a save that cannot be used.
        """
        self.position, self.saved_at, self.save_seconds = Position(), time.monotonic(), 0.0
        if resume and has_checkpoint(self.folders[0] / folders.RESUME):
            self.states, self.position = self._restore(self.folders[0] / folders.RESUME)
        else:
            self.states = self.trainer.init()
        jax.block_until_ready(self.states)

    def _restore(self, folder):
        """States and position of a save that may have been made for more settings than this training's."""
        own = [str(config.setting) for config in self.configs]
        saved = [str(setting) for setting in restore_record(folder).get("settings", own)]
        if not set(own) <= set(saved):
            raise CheckpointError(f"{folder}: saved for setting {', '.join(saved)} only; use --overwrite")
        target = self.trainer.abstract_rows()
        target["best"] = dict.fromkeys(saved, target["best"][own[0]])
        states, record = restore(folder, target)
        if record["seeds"] != list(self.configs[0].seeds):
            raise CheckpointError(f"{folder}: saved with the seeds {record['seeds']}; use --overwrite")
        check_basis(folder, record.get("basis", {}), training.abstract_model(self.network))
        states["best"] = {name: states["best"][name] for name in own}
        position = Position(**record["position"])
        position.validation_correct = {name: position.validation_correct.get(name, []) for name in own}
        return self.trainer.pad(states), position

    def estimate_seconds(self) -> float:
        """Returns about how long the rest of the training takes, from the time of a gradient on a few images."""
        seconds = self.trainer.seconds_per_image(self.states, self.train)
        images = self.train[1].shape[0] * len(self.configs[0].seeds)
        checked = sum(data[1].shape[0] for data in self.validation.values()) * len(self.configs[0].seeds)
        left = self.configs[0].epochs - self.position.epoch
        # Without its backward half, an image costs about a third.
        return left * seconds * (images + checked / 3)

    def run(self) -> None:
        """Trains to the last epoch, saving now and then.

        Raises:
          Interrupted: `stop` said so; what was done is saved.
        """
        began, before = time.monotonic(), self.position.wall_seconds
        saver = Checkpoints(self.folders[0] / folders.RESUME) if machines.is_first() else None
        try:
            while self.position.epoch < self.configs[0].epochs:
                self._epoch()
                self.position.wall_seconds = before + time.monotonic() - began
                self.position.compile_seconds += self.compiling.read()
                stop = machines.agreed(self.stop())
                if stop or machines.agreed(machines.is_first() and self._save_is_due()):
                    self._save(saver)
                if stop:
                    raise Interrupted
        except Interrupted:
            if self.position.step:
                self._save(saver)
            raise
        finally:
            if saver:
                saver.close()

    def finish(self, command: str) -> list[dict]:
        """Tests the best epochs once, writes all results and returns them, one for each setting.

        The folder with the save that a resume needs is finished last.
        """
        results = []
        for config, folder in reversed(list(zip(self.configs, self.folders, strict=True))):
            best = self.states["best"][str(config.setting)]
            test = self.trainer.place(self.splits[config.setting]["test"])
            confusion = self.trainer.confusion(best["params"], best["stats"], test)
            best = self.trainer.unpad(best)
            results.append(self._summary(config, best, confusion, command))
            if machines.is_first():
                arrays = {"params": best["params"], "stats": best["stats"]}
                write_best(folder, config, self.network, arrays, np.asarray(best["epoch"]).tolist())
                write_curves(folder / folders.CURVES, results[-1])
                plot_curves(folder / folders.PICTURE, results[-1])
                write_json(folder / folders.RESULTS, results[-1])  # last: it says that the run is finished
        return results[::-1]

    def _epoch(self):
        position, config = self.position, self.configs[0]
        orders = self.trainer.orders(self.train, position.epoch)
        while position.step < self.num_steps:
            began = time.monotonic()
            compiled_before = self.compiling.total
            self.states, losses, done = self.trainer.steps(
                self.states, orders, self.train, position.epoch, position.step, self.trainer.plan.steps_per_call
            )
            losses = self.trainer.rows(losses)  # waits for the step
            compiled = self.compiling.total - compiled_before
            position.seconds += time.monotonic() - began - compiled
            images = min(done * config.batch_size, self.train[1].shape[0] - position.step * config.batch_size)
            position.images += images * len(config.seeds)
            position.losses += losses.T.tolist()
            position.step += done
            self.report(position, self.num_steps)
            if position.step < self.num_steps and machines.agreed(self.stop()):
                raise Interrupted
        correct = {setting: self._correct(data) for setting, data in self.validation.items()}
        self.states = self.trainer.keep_best(self.states, correct, position.epoch + 1)
        position.train_loss.append(np.mean(np.asarray(position.losses, np.float64), axis=0).tolist())
        for setting, counts in correct.items():
            position.validation_correct.setdefault(str(setting), []).append(counts.tolist())
        position.epoch, position.step, position.losses = position.epoch + 1, 0, []
        self.report(position, self.num_steps)

    def _correct(self, data):
        confusion = self.trainer.confusion(self.states["params"], self.states["stats"], data)
        return np.trace(confusion, axis1=1, axis2=2)

    def _save_is_due(self):
        pause = max(_SHORTEST_SECONDS, self.save_seconds / _SAVING_SHARE)
        return time.monotonic() - self.saved_at > pause

    def _save(self, saver):
        began = time.monotonic()
        position = self.position
        record = {
            "seeds": list(self.configs[0].seeds),
            "settings": [config.setting for config in self.configs],
            "basis": self.basis,
            "position": dataclasses.asdict(position),
        }
        # A step number that only grows, with room for a stop in the middle of an epoch.
        arrays = self.trainer.unpad(self.states)
        if saver:
            saver.save(position.epoch * (self.num_steps + 1) + position.step, arrays, record)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - began

    def _summary(self, config, best, confusion, command):
        curves = {
            "train_loss": np.transpose(self.position.train_loss).tolist(),
            "validation_correct": np.transpose(self.position.validation_correct[str(config.setting)]).tolist(),
        }
        params = self.states["params"]
        return summarize(
            config,
            curves,
            best["epoch"],
            confusion,
            num_validation=self.splits[config.setting]["validation"].labels.shape[0],
            num_parameters=sum(leaf.size // leaf.shape[0] for leaf in jax.tree.leaves(params)),
            train_images_per_second=self.position.images / max(self.position.seconds, 1e-9),
            compile_seconds=self.position.compile_seconds,
            wall_seconds=self.position.wall_seconds,
            command=command,
            device=device_name(),
        )


def write_best(folder: Path, config: RunConfig, network: training.Network, arrays: dict, best_epoch: list[int]) -> None:
    """Writes `best/`, from which alone `experiments.evaluate` restores a run.

    Args:
      arrays: params and stats, seeds on axis 0.
      best_epoch: of each seed, from 1; 0 if it was not trained here.
    """
    record = {
        "config": {**dataclasses.asdict(config), "seeds": list(config.seeds)},
        "num_classes": network.num_classes,
        "basis": basis_record(training.abstract_model(network)),
        "best_epoch": best_epoch,
    }
    # A run that was killed in here has left them: without results.json it is not finished, and best/ is made again.
    (folder / folders.RESULTS).unlink(missing_ok=True)
    shutil.rmtree(folder / folders.BEST, ignore_errors=True)
    saver = Checkpoints(folder / folders.BEST)
    saver.save(max(best_epoch), arrays, record)
    saver.close()


def data_digest(splits: dict[str, Split]) -> str:
    """Returns the sha256 of the images, labels and angles of some splits."""
    total = hashlib.sha256()
    for name in sorted(splits):
        for field in dataclasses.fields(Split):
            total.update(np.ascontiguousarray(getattr(splits[name], field.name)).data)
    return total.hexdigest()


class _CompileClock:
    """Adds up the time that jax spends compiling."""

    def __init__(self):
        self.total, self._read = 0.0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event, seconds, **_):
        if event.startswith("/jax/core/compile/"):
            self.total += seconds

    def read(self) -> float:
        """Seconds since the last call."""
        new, self._read = self.total - self._read, self.total
        return new
