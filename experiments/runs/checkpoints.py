"""Checkpoints: Orbax saves with a digest, all seeds stacked on axis 0, restored onto any devices.

A step holds `arrays` (a pure dict of arrays) and `record` (JSON): what the arrays are, and the
sha256 of their bytes, so that a changed byte is an error and never a silent wrong number.
"""

import contextlib
import hashlib
import json
import logging
import re
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from experiments.rules import InputError

_PATIENCE_SECONDS = 30 * 24 * 3600


class CheckpointError(InputError):
    """A checkpoint that cannot be used."""


class Checkpoints:
    """The saves in one folder, of which the newest is kept; writes in the background.

    A save is atomic: if the process is killed during it, the one before remains.
    """

    def __init__(self, folder: Path):
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        _drop_silently()
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1,
            create=False,
            enable_async_checkpointing=True,
            # A run suspended (Ctrl-Z) in the middle of a save finishes it whenever it continues.
            async_options=ocp.AsyncOptions(timeout_secs=_PATIENCE_SECONDS),
            multiprocessing_options=_alone(),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=_handlers())

    def save(self, step: int, arrays: dict, record: dict) -> str:
        """Saves `arrays` (of any devices) and the JSON `record` as `step`, which must be later than those before.

        Returns:
          the digest of both.

        Raises:
          OSError: this save or the one before it could not be written; those before are still there.
        """
        record = {**record, "digest": digest(arrays, record)}
        args = ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record))
        with self._writing():
            self._manager.wait_until_finished()
            saved = self._manager.save(step, args=args, force=True)
        if not saved:
            raise CheckpointError(f"{self.folder}: step {step} is there already")
        return record["digest"]

    def close(self) -> None:
        """Waits for the last save and closes the folder.

        Raises:
          OSError: the last save could not be written.
        """
        with self._writing():
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()

    @contextlib.contextmanager
    def _writing(self):
        """Turns whatever a full disk or a lack of file descriptors makes Orbax raise into one line."""
        try:
            yield
        except Exception as error:
            text = " ".join(str(error).split())
            system = re.search(r": ([^:]+) \[os_error_code", text)
            few = "Too many open files" in text or "RESOURCE_EXHAUSTED" in text
            remedy = "allow more open files (ulimit -n)" if few else "make room"
            raise OSError(
                f"{self.folder}: the checkpoint cannot be written ({system[1] if system else text[:120]}); "
                f"{remedy}, then --resume continues from the save before"
            ) from error


def _drop_silently():
    """Silences Python's reports of operations that Orbax drops after a file error; a user cannot act on them.

    Some come before the error itself, so call this before files are touched.
    """
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
    logging.getLogger("asyncio").addFilter(_is_not_of_a_dropped_task)
    before = sys.unraisablehook
    if getattr(before, "drops_silently", False):
        return

    def hook(unraisable):
        loop = str(unraisable.exc_value) == "Event loop is closed" or "BaseEventLoop" in repr(unraisable.object)
        if not loop:
            before(unraisable)

    hook.drops_silently = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.unraisablehook = hook


def _is_not_of_a_dropped_task(record):
    return not str(record.msg).startswith(("Task exception was never", "Future exception was never"))


def has_checkpoint(folder: Path) -> bool:
    """Whether `folder` holds a finished save."""
    if not Path(folder).is_dir():
        return False
    with _one_line(folder), _manager(folder) as manager:
        return manager.latest_step() is not None


def restore_record(folder: Path) -> dict:
    """Returns the JSON record of the newest save, not yet checked against its digest.

    Raises:
      CheckpointError: no save, or one that cannot be read.
    """
    with _opened(folder) as (manager, step):
        return _record(folder, manager, step)


def restore(folder: Path, target: dict) -> tuple[dict, dict]:
    """Returns (arrays, record) of the newest save, placed as `target` (a tree of `ShapeDtypeStruct`) says.

    Raises:
      CheckpointError: no save, another model, a changed byte or a damaged file.
    """
    with _opened(folder) as (manager, step):
        record = _record(folder, manager, step)
        _check_shapes(folder, manager.item_metadata(step).arrays, target)  # pyright: ignore[reportAttributeAccessIssue]
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(target))
        arrays = manager.restore(step, args=args)["arrays"]
    if digest(arrays, {name: value for name, value in record.items() if name != "digest"}) != record["digest"]:
        raise CheckpointError(
            f"{folder}: the checkpoint does not match its digest, a byte has changed; use another copy"
        )
    return arrays, record


def digest(arrays: dict, record: dict) -> str:
    """Returns the sha256 of a tree's names, types, shapes and bytes, and of a JSON record."""
    total = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for path, leaf in sorted(_named_leaves(arrays).items()):
        array = np.ascontiguousarray(jax.device_get(leaf))
        total.update(json.dumps([path, str(array.dtype), list(array.shape)]).encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _handlers():
    return {"arrays": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}


def _alone():
    """Options for a process on its own: the first one writes, each one reads everything."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process{index}"
    )


@contextlib.contextmanager
def _manager(folder):
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    _drop_silently()
    options = ocp.CheckpointManagerOptions(read_only=True, multiprocessing_options=_alone())
    manager = ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=_handlers())
    try:
        yield manager
    finally:
        manager.close()


@contextlib.contextmanager
def _opened(folder):
    """A manager and its newest step."""
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder} is not there: name the folder of a run that has saved a checkpoint")
    with _one_line(folder), _manager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f"{folder} holds no finished checkpoint: name the folder of a run that has saved one")
        yield manager, step


def _record(folder, manager, step):
    record = manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
    if not isinstance(record, dict) or "digest" not in record:
        raise CheckpointError(f"{folder}: the checkpoint's record has no digest; use another copy or train again")
    return record


@contextlib.contextmanager
def _one_line(folder):
    """Turns whatever a damaged checkpoint makes Orbax raise into one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{folder}: the checkpoint is damaged ({type(error).__name__}: {text}); use another copy or train again"
        ) from error


def _check_shapes(folder, saved, target):
    have = {path: tuple(leaf.shape) for path, leaf in _named_leaves(saved).items()}
    want = {path: tuple(leaf.shape) for path, leaf in _named_leaves(target).items()}
    wrong = sorted(path for path in have.keys() | want.keys() if have.get(path) != want.get(path))
    if wrong:
        path = wrong[0]
        raise CheckpointError(
            f"{folder}: not a checkpoint of this model: {path} is {have.get(path, 'absent')}, expected "
            f"{want.get(path, 'nothing')} ({len(wrong)} of {len(have.keys() | want.keys())} entries differ)"
        )


def _named_leaves(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


# Bases of two machines differ by rounding only; another basis differs by much more.
_BASIS_TOLERANCE, _SKETCH_TOLERANCE = 1e-5, 1e-6
_SKETCH_NUMBERS = 8


def basis_record(model) -> dict:
    """Returns a short digest of the bases that a model's coefficients are expressed in, {layer: digest}.

    A sha256 would change with the last bit, which depends on the machine. The digest of the n values b is their shape
    and sums that another basis changes and rounding does not, with fixed random signs s:

        sketch_i = sum_j s_ij b_j / sqrt(n),    i = 1 .. 8.
    """
    return {name: _sketch(values) for name, values in _bases(model).items()}


def check_basis(folder: Path, saved: dict, model) -> None:
    """Checks that coefficients saved with `basis_record` mean the same filters here.

    Older checkpoints hold the bases themselves, as nested lists.

    Raises:
      CheckpointError: another basis.
    """
    here = _bases(model)
    if set(saved) != set(here) or not all(_is_same(saved[name], here[name]) for name in here):
        raise CheckpointError(f"{folder}: saved with another filter basis; use the version of fconv_jax that saved it")


def _bases(model):
    layers = ((".".join(map(str, path)), module) for path, module in nnx.iter_modules(model))
    bases = ((name, getattr(module, "sampled_basis", None)) for name, module in layers)
    return {name: basis.values for name, basis in bases if basis is not None}


def _is_same(saved, values):
    tolerance = _BASIS_TOLERANCE
    if isinstance(saved, dict):
        if list(saved["shape"]) != list(values.shape):
            return False
        saved, values, tolerance = saved["sketch"], _sketch(values)["sketch"], _SKETCH_TOLERANCE
    return np.shape(saved) == np.shape(values) and np.allclose(saved, values, rtol=0, atol=tolerance)


def _sketch(values):
    # Philox's output is fixed for ever; 64 signs a number.
    words = np.random.Philox(key=0).random_raw(-(-_SKETCH_NUMBERS * values.size // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8))[: _SKETCH_NUMBERS * values.size]
    signs = 1.0 - 2.0 * bits.reshape(_SKETCH_NUMBERS, values.size)
    sketch = signs @ np.asarray(values, np.float64).reshape(-1) / np.sqrt(values.size)
    return {"shape": list(values.shape), "sketch": sketch.tolist()}
