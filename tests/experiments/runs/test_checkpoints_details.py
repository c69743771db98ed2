"""What a save says when it fails, what it leaves alone, and digests that stay what they are for ever."""

import asyncio
import contextlib
import gc
import logging
import re
import sys
import types
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import fconv_jax as fc
from experiments.runs import checkpoints
from experiments.runs.checkpoints import CheckpointError, Checkpoints
from tests.experiments import helpers

pytestmark = pytest.mark.unoptimized  # what was written is compared with what is read

ARRAYS = {"params": {"a": np.float32([[1, 2]]), "b": np.int32([3])}}


def target(tree=ARRAYS):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), tree)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("details") / "deep" / "best"
    for step in (1, 2):  # the second time the folder is there
        with contextlib.closing(Checkpoints(folder)) as saver:
            saver.save(step, ARRAYS, {"step": step})
    return folder


def test_digests_of_today_are_those_of_every_version():
    """A change of either makes every checkpoint unreadable."""
    digest = checkpoints.digest(ARRAYS, {"b": 1, "a": [2, "c"]})
    assert digest == checkpoints.digest(ARRAYS, {"a": [2, "c"], "b": 1})
    assert digest == "09e74553468de9ae7004aca8a1b5a13052150e0116589337b64ccc1411f3eff3"
    values = np.cos(np.arange(1440.0)).reshape(20, 72)
    sketch = checkpoints._sketch(values)
    assert sketch["shape"] == [20, 72]
    np.testing.assert_allclose(
        sketch["sketch"],
        [
            -0.0897939149,
            0.8146976131,
            1.299119574,
            0.4518660269,
            -0.1755088957,
            0.8781705989,
            -0.6473679391,
            -0.1066372473,
        ],
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("old", "change", "same"),
    [(False, 0.9e-6, True), (False, 1.1e-6, False), (True, 0.9e-5, True), (True, 1.1e-5, False)],
)
def test_rounding_is_the_same_basis_up_to_a_tolerance(old, change, same):
    values = 2.0 + np.cos(np.arange(24.0)).reshape(2, 12)
    if old:
        saved = (values + change).tolist()
    else:
        saved = checkpoints._sketch(values)
        saved["sketch"] = [number + change for number in saved["sketch"]]
    assert checkpoints._is_same(saved, values) is same


def test_a_basis_of_another_shape_is_another_one():
    values = np.cos(np.arange(24.0)).reshape(2, 12)
    assert checkpoints._is_same(checkpoints._sketch(values.reshape(4, 6)), values) is False
    assert checkpoints._is_same({**checkpoints._sketch(values), "sketch": [0.0]}, values) is False
    assert checkpoints._is_same(values[:1].tolist(), values[:1].repeat(2, axis=0)) is False  # it would broadcast


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            RuntimeError("writing it: No space left on device [os_error_code='28']"),
            "(No space left on device); make room,",
        ),
        (ValueError("some\n  trouble"), "(some trouble); make room,"),
        (ValueError("y" * 150), f"({'y' * 120}); make room,"),
        (OSError(24, "Too many open files"), "([Errno 24] Too many open files); allow more open files (ulimit -n),"),
        (RuntimeError("RESOURCE_EXHAUSTED: all"), "(RESOURCE_EXHAUSTED: all); allow more open files (ulimit -n),"),
    ],
)
@pytest.mark.parametrize("at", ["save", "wait_until_finished"])
def test_a_save_that_fails_says_why_in_one_line(tmp_path, monkeypatch, error, says, at):
    saver = Checkpoints(tmp_path / "best")
    close = saver._manager.close

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(saver._manager, at, fail)
        expected = (
            f"{tmp_path}/best: the checkpoint cannot be written {says} then --resume continues from the save before"
        )
        with pytest.raises(OSError, match=f"^{re.escape(expected)}$"):
            saver.save(1, ARRAYS, {})
        if at == "wait_until_finished":
            closed = []
            patch.setattr(saver._manager, "close", lambda: closed.append(True))
            with pytest.raises(OSError, match=re.escape(expected)):
                saver.close()
            assert closed == [True]
    close()


def test_a_step_is_saved_once(saved):
    before = helpers.tree(saved)
    with contextlib.closing(Checkpoints(saved)) as saver, pytest.raises((CheckpointError, OSError), match="2"):
        saver.save(2, ARRAYS, {})
    assert helpers.tree(saved) == before


def test_the_first_epoch_and_any_later_one_can_be_saved(tmp_path):
    """Whatever Orbax's own rule of when to save says."""
    with contextlib.closing(Checkpoints(tmp_path)) as saver:
        for step in (0, 1, 7, 8):
            saver.save(step, ARRAYS, {"step": step})
            saver._manager.wait_until_finished()
            assert checkpoints.restore_record(tmp_path)["step"] == step


def test_reading_changes_nothing(saved):
    left_over = saved / "9.orbax-checkpoint-tmp"
    left_over.mkdir()
    before = helpers.tree(saved)
    arrays, record = checkpoints.restore(saved, target())
    assert checkpoints.has_checkpoint(saved) is True
    assert checkpoints.restore_record(saved) == record
    assert helpers.tree(saved) == before
    left_over.rmdir()
    helpers.assert_trees_equal(arrays, ARRAYS)
    assert record == {"step": 2, "digest": checkpoints.digest(ARRAYS, {"step": 2})}


def test_a_folder_without_a_save_has_none(saved, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file", tmp_path / "nowhere"):
        assert checkpoints.has_checkpoint(folder) is False
    with pytest.raises(CheckpointError, match="holds no finished checkpoint: name the folder of a run"):
        checkpoints.restore(tmp_path, target())
    for folder in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="is not there: name the folder of a run"):
            checkpoints.restore_record(folder)


@pytest.mark.parametrize("record", [{"step": 1}, [], ["digest"], "digest"])
def test_a_record_without_a_digest_is_refused(tmp_path, record):
    with ocp.CheckpointManager(tmp_path / "best", item_handlers=checkpoints._handlers()) as manager:
        args = ocp.args.Composite(arrays=ocp.args.StandardSave(ARRAYS), record=ocp.args.JsonSave(record))
        manager.save(1, args=args)
    for read in (checkpoints.restore_record, lambda folder: checkpoints.restore(folder, target())):
        with pytest.raises(CheckpointError, match="record has no digest"):
            read(tmp_path / "best")


def test_another_model_is_told_by_its_first_entry(saved):
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore(saved, target({"params": {"b": np.int32([3, 4]), "c": np.int32([3])}}))
    assert str(caught.value) == (
        f"{saved}: not a checkpoint of this model: params/a is (1, 2), expected nothing (3 of 3 entries differ)"
    )
    with pytest.raises(CheckpointError, match=r"params/c is absent, expected \(1,\) \(1 of 3 entries differ\)"):
        checkpoints.restore(saved, target({"params": {**ARRAYS["params"], "c": np.int32([3])}}))


def test_damage_is_told_in_one_short_line(tmp_path):
    with pytest.raises(CheckpointError) as caught, checkpoints._one_line(tmp_path):
        raise ValueError("a\n b\t" * 50)
    said = ("a b " * 50)[:120]
    assert str(caught.value) == (
        f"{tmp_path}: the checkpoint is damaged (ValueError: {said}); use another copy or train again"
    )
    with pytest.raises(CheckpointError, match=r"^mine$"), checkpoints._one_line(tmp_path):
        raise CheckpointError("mine")


def test_orbax_is_quiet(saved):
    logger = logging.getLogger("absl")
    for act in (lambda: Checkpoints(saved).close(), lambda: checkpoints.has_checkpoint(saved)):
        logger.setLevel(logging.WARNING)
        act()
        assert logger.level == logging.CRITICAL


def test_what_orbax_drops_is_dropped_silently_and_nothing_else(monkeypatch, saved):
    heard = []
    for act in (lambda: Checkpoints(saved).close(), lambda: checkpoints.has_checkpoint(saved)):
        monkeypatch.setattr(sys, "unraisablehook", heard.append)
        act()
        hook = sys.unraisablehook
        act()
        assert sys.unraisablehook is hook  # not one within the other
        own = types.SimpleNamespace(exc_value=ValueError("mine"), object=None)
        for dropped in ("Event loop is closed", "mine"):
            loop = "<function BaseEventLoop.__del__>" if dropped == "mine" else None
            hook(types.SimpleNamespace(exc_value=RuntimeError(dropped), object=loop))
        assert heard == []
        hook(own)
        assert [heard.pop()] == [own]


def test_coroutines_never_awaited_are_not_told(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoints._drop_silently()
        warnings.warn("coroutine 'open' was never awaited", RuntimeWarning, stacklevel=1)
        with pytest.raises(RuntimeWarning):
            warnings.warn("another", RuntimeWarning, stacklevel=1)


def test_each_of_several_processes_works_for_itself(monkeypatch):
    assert checkpoints._alone() == ocp.options.MultiprocessingOptions()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    options = checkpoints._alone()
    assert (options.primary_host, options.active_processes) == (1, {1})
    assert options.barrier_sync_key_prefix == "process1"


def test_saves_are_made_in_the_background_and_a_stopped_one_has_days(tmp_path, monkeypatch):
    seen = {}

    def noting(make):
        return lambda **options: seen.update(options) or make(**options)

    for name in ("AsyncOptions", "CheckpointManagerOptions"):
        monkeypatch.setattr(ocp, name, noting(getattr(ocp, name)))
    Checkpoints(tmp_path / "best").close()
    assert (tmp_path / "best").is_dir()
    assert seen["timeout_secs"] > 7 * 24 * 3600
    assert seen["enable_async_checkpointing"]


def test_bases_bear_the_names_of_their_layers():
    class Stage(nnx.Module):
        def __init__(self):
            self.conv = fc.LiftingFConv(1, 2, 3, rngs=nnx.Rngs(0))

    class Network(nnx.Module):
        def __init__(self):
            self.stage, self.dense = Stage(), nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    record = checkpoints.basis_record(Network())
    assert record == {"stage.conv": checkpoints._sketch(Network().stage.conv.sampled_basis.values)}


def test_a_reader_opens_to_read_only_and_closes(saved, monkeypatch):
    seen, closed = {}, []
    options, close = ocp.CheckpointManagerOptions, ocp.CheckpointManager.close
    monkeypatch.setattr(ocp, "CheckpointManagerOptions", lambda **more: seen.update(more) or options(**more))
    monkeypatch.setattr(ocp.CheckpointManager, "close", lambda self: closed.append(True) or close(self))
    for read in (checkpoints.has_checkpoint, checkpoints.restore_record, lambda x: checkpoints.restore(x, target())):
        read(saved)
    assert seen["read_only"]
    assert len(closed) == 3


def test_a_task_that_orbax_drops_after_a_file_error_says_nothing_and_others_do(saved, caplog):
    """Seen now and then on a full disk, above the one line that says so."""

    async def fail():
        raise OSError("no space")

    async def drop():
        task = asyncio.ensure_future(fail())
        await asyncio.wait([task])
        del task
        gc.collect()
        asyncio.get_running_loop().call_exception_handler({"message": "something else"})

    asyncio.run(drop())
    assert [record.message for record in caplog.records] == ["something else"]
