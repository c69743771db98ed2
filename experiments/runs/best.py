"""What a run's `best/` holds: the best-validation parameters of each seed, from which alone it is evaluated."""

import functools
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fconv_jax
from experiments.data import Split, rotate_images
from experiments.data.rotation import INTERPOLATIONS, rotate_each, uniform_angles
from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs import reading
from experiments.runs.checkpoints import (
    CheckpointError,
    Checkpoints,
    basis_record,
    check_basis,
    restore,
    restore_record,
)
from experiments.runs.exit_codes import Signals
from experiments.settings import COPIES_PER_IMAGE, RunConfig
from experiments.training.loop import make
from experiments.training.network import Network, abstract_model, build, num_parameters
from fconv_jax import equivariance_error

ANGLES = tuple(range(-180, 181, 15))
_ROUNDING = 1e-4  # of float32, through a whole network; half precision is tested at every angle


def write_best(
    folder: Path, config: RunConfig, network: Network, arrays: dict, best_epoch: list[int], failed_seeds=()
) -> str:
    """Writes `best/`: params and stats, seeds on axis 0, of each seed's best epoch (0 if it was not trained here).

    Returns its digest, which every file derived from it carries.
    """
    record = {
        "config": config.to_json(),
        "num_classes": network.num_classes,
        "basis": basis_record(abstract_model(network)),
        "best_epoch": best_epoch,
        "failed_seeds": list(failed_seeds),  # what evaluates this folder alone leaves them out of its means
    }
    # Left by a run that was killed here. Without results.json it is not finished, and best/ is made again.
    (folder / folders.RESULTS).unlink(missing_ok=True)
    shutil.rmtree(folder / folders.BEST, ignore_errors=True)
    saver = Checkpoints(folder / folders.BEST)
    digest = saver.save(max(best_epoch), arrays, record)
    saver.close()
    return digest


class Evaluator:
    """A run's network with the best parameters of all its seeds.

    Attributes:
      digest: every file derived from this network carries it.
      failed_seeds: those of the run; versions before 0.2 say nothing of them without results.json.
      results: of results.json; None for a run that is not finished, or that was converted.
      elsewhere: whether the network was trained elsewhere and converted: nothing is known of data and setting.

    Raises:
      CheckpointError: no finished run in the folder, or a checkpoint that cannot be used.
      InputError: files of different runs in the folder.
    """

    def __init__(self, run_dir: Path):
        best = run_dir / folders.BEST
        if not best.is_dir():
            remedy = "--resume finishes it"
            if (run_dir / folders.RESULTS).exists():
                remedy = "it has a run's numbers only; name the run's own folder, or train it again"
            raise CheckpointError(f"{run_dir} holds no finished run ({folders.BEST}/ is missing): {remedy}")
        self.results = results = reading.check_run(run_dir)
        try:
            # The configuration is not yet checked against the digest: building its network may fail in any way.
            rows = self._prepare(restore_record(best))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            what = " ".join(str(error).split())[:120]
            raise CheckpointError(
                f"{best}: the checkpoint's record is not a run's ({what}); use another copy"
            ) from error
        arrays, record = restore(best, {"params": rows["params"], "stats": rows["stats"]})
        check_basis(best, record["basis"], abstract_model(self.network))
        self.arrays, self.best_epoch, self.digest = self.programs.pad(arrays), record["best_epoch"], record["digest"]
        self.run_dir, self.elsewhere = run_dir, not any(self.best_epoch)
        self.failed_seeds = list((results or record).get("failed_seeds", []))
        number, said = num_parameters(self.network), (results or {}).get("num_parameters")
        if results and said != number:
            raise InputError(
                f"{run_dir}: num_parameters is {said!r} in {folders.RESULTS}, but the network has {number}"
            )
        self.check_unchanged()  # all that was read above is of one run

    def _prepare(self, record):
        """Makes the network and its programs; returns the shapes of its arrays."""
        self.config = RunConfig(**{**record["config"], "seeds": tuple(record["config"]["seeds"])})
        # Epochs and learning rate matter to training steps only, and training is over.
        self.network, self.programs = make(self.config, num_classes=record["num_classes"])
        return self.programs.abstract_rows()

    @property
    def good(self) -> np.ndarray:
        """Which seeds did not fail in the run's own test: means are theirs.  All, where all did or nothing is known."""
        rows = np.array([seed not in self.failed_seeds for seed in self.config.seeds])
        return rows if rows.any() else np.ones_like(rows)

    def check_unchanged(self) -> None:
        """Checks that the folder still holds this network; a folder that cannot be written cannot be locked.

        Raises:
          CheckpointError: another process has written another run there.
        """
        now = (folders.best_record(self.run_dir) or {}).get("digest")
        if now != self.digest:
            raise CheckpointError(f"{self.run_dir} was overwritten meanwhile: give the command again")

    def model(self, row: int):
        """The network of one seed (`row` of `config.seeds`) as a module, in evaluation mode."""
        rows = self.programs.rows(self.arrays)
        params, stats = (jax.tree.map(lambda x: jnp.asarray(x[row]), rows[name]) for name in ("params", "stats"))
        model = nnx.merge(self.network.graphdef, params, stats, copy=True)
        return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)

    def confusion(self, split: Split) -> np.ndarray:
        """Counts `[seed, class, predicted]` over a split."""
        return self.programs.confusion(self.arrays["params"], self.arrays["stats"], self.programs.place(split))

    def accuracy_by_angle(self, split: Split, angles=ANGLES, progress=iter) -> np.ndarray:
        """Accuracy `[seed, angle]` on the split's upright images, all rotated by one angle after another.

        A network that does not see quarter turns is tested once at angles that differ by them: a quarter of the time.
        `progress`: passes the angles on, one by one, and shows how far it is.
        """
        upright, labels = upright_of(split)
        period = 90 if self._is_blind_to_quarter_turns(upright) else 360
        found: dict[float, np.ndarray] = {}
        for angle in progress(angles):
            if angle % period not in found:
                found[angle % period] = self._accuracy(rotated(upright, angle), labels)
        return np.stack([found[angle % period] for angle in angles], axis=1)

    def _is_blind_to_quarter_turns(self, images):
        """Whether quarter turns leave the logits of every seed as they are, to rounding, on some rotated images."""
        if self.config.precision != "float32":
            return False
        call = nnx.jit(lambda model, x: model(x))
        some = jnp.asarray(rotated(images[:: max(1, len(images) // 32)], 30), jnp.float32) / 255
        models = map(self.model, range(len(self.config.seeds)))
        return all(equivariance_error(functools.partial(call, model), some) < _ROUNDING for model in models)

    def accuracy_uniform(self, split: Split, interpolation: str, seed: int) -> np.ndarray:
        """Accuracy `[seed]` on the split's upright images, each rotated by its own angle, uniform over the circle.

        `interpolation`: one of `rotation.INTERPOLATIONS`; `seed`: of `rotation.uniform_angles`.
        """
        upright, labels = upright_of(split)
        angles = uniform_angles(seed, len(labels))
        return self._accuracy(rotate_each(upright[..., 0], angles, INTERPOLATIONS[interpolation])[..., None], labels)

    def _accuracy(self, images, labels):
        counts = self.confusion(Split(images, labels, np.zeros_like(labels)))
        return np.trace(counts, axis1=1, axis2=2) / len(labels)


def upright_of(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the originals. Copies follow each; some of these are rotated by 0 degrees too."""
    stride = 1 + COPIES_PER_IMAGE if split.angles.any() else 1
    return split.images[::stride], split.labels[::stride]


def rotated(images: np.ndarray, angle: float) -> np.ndarray:
    """Rotates uint8 images `[n, 28, 28, 1]` as those of the rotated data sets are: cubic spline, clipped, rounded."""
    found = rotate_images(images[..., 0].astype(np.float32) / 255, angle)
    return np.round(np.clip(found, 0, 1) * 255).astype(np.uint8)[..., None]


def convert(checkpoint: Path, model_name: str, output: Path) -> None:
    """Writes the folder, or nothing.

    Raises:
      InputError: a checkpoint that cannot be read or does not fit the network, or a folder that is not empty.
    """
    _check_empty(output)
    network = build(model_name)
    model = network.create(rngs=nnx.Rngs(0))
    try:
        fconv_jax.torch_reference.load_weights(model, fconv_jax.torch_reference.read_checkpoint(checkpoint))
    except ValueError as error:
        raise InputError(f"{checkpoint}: {' '.join(str(error).split())}") from error
    _, params, rest = nnx.split(model, nnx.Param, ...)
    arrays = {"params": nnx.to_pure_dict(params), "stats": nnx.to_pure_dict(rest)}
    arrays = jax.tree.map(lambda x: np.asarray(x)[None], arrays)
    # Trained elsewhere: no data set of ours, no epoch; evaluate then asks for data as `run` does.
    config = RunConfig(model_name, 1, "auto", 0, (0,), 0, 1, 0.0, "report", "float32", "auto")
    is_new = not output.exists()
    try:
        with Signals() as signals, folders.locked(output, leave=False):
            _check_empty(output)  # no other process has filled it meanwhile
            try:
                folders.write_json(output / folders.CONFIG, {"model": model_name, "trained": "elsewhere"})
                write_best(output, config, network, arrays, [0])
                if signals.heard:
                    raise KeyboardInterrupt
            except BaseException:
                folders.clear(output)
                raise
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error}): make room, or choose another --output") from error
    finally:
        if is_new and output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def _check_empty(output):
    if output.is_dir() and any(path.name != folders.LOCK for path in output.iterdir()):
        raise InputError(f"{output} is not empty: choose another --output")
    folders.check(output, resume=False, overwrite=False)
