"""Saves come back bit for bit, or as an error of one line; never silently wrong."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.runs import checkpoints
from experiments.runs.checkpoints import CheckpointError, Checkpoints, basis_record, check_basis
from experiments.training.devices import Layout
from experiments.training.network import abstract_model, build
from experiments.training.programs import Programs

pytestmark = pytest.mark.unoptimized  # what was written is compared with what is read

RECORD = {"config": {"model": "lenet"}, "epoch": 3}


def arrays():
    draw = np.random.default_rng(0)
    kernel = draw.normal(size=(2, 3, 4)).astype(np.float32)
    kernel[0, 0, :3] = [np.nan, -0.0, np.inf]
    return {
        "params": {"conv": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros((2, 3))}},
        "optimizer": {"count": jnp.int32([7, 7])},
    }


def target(tree):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), tree)


def save(folder, *steps, tree=None):
    saver = Checkpoints(folder)
    for step in steps:
        saver.save(step, arrays() if tree is None else tree, {**RECORD, "step": step})
    saver.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with one save; read it, or copy it."""
    folder = tmp_path_factory.mktemp("saved") / "best"
    save(folder, 3)
    return folder


def test_a_save_comes_back_bit_for_bit(saved):
    got, record = checkpoints.restore(saved, target(arrays()))
    for first, second in zip(jax.tree.leaves(got), jax.tree.leaves(arrays()), strict=True):
        assert first.dtype == second.dtype
        assert np.asarray(first).tobytes() == np.asarray(second).tobytes()
    assert jax.tree.structure(got) == jax.tree.structure(arrays())
    assert {name: record[name] for name in RECORD} == RECORD
    assert checkpoints.restore_record(saved) == record
    assert checkpoints.has_checkpoint(saved)
    assert not checkpoints.has_checkpoint(saved / "nowhere")


def test_only_the_newest_save_is_kept(tmp_path):
    save(tmp_path, 1, 2, 5)
    assert checkpoints.restore(tmp_path, target(arrays()))[1]["step"] == 5
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["5"]


def test_an_unfinished_later_save_is_passed_over(saved, tmp_path):
    folder = tmp_path / "best"
    shutil.copytree(saved, folder)
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp")
    (folder / "4.orbax-checkpoint-tmp" / "record" / "metadata").unlink(missing_ok=True)
    assert checkpoints.restore(folder, target(arrays()))[1]["step"] == 3
    save(folder, 5)
    assert checkpoints.restore(folder, target(arrays()))[1]["step"] == 5


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def outcome(folder):
    """The bytes and record of a folder's newest save, or "error"."""
    try:
        got, record = checkpoints.restore(folder, target(arrays()))
    except CheckpointError as error:
        said = str(error)
    else:
        return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(got)], record
    assert "\n" not in said
    assert str(folder) in said
    return "error"


# Orbax drops what it had started to read when a file turns out to be damaged.
@pytest.mark.usefixtures("dropped_futures")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine.*never awaited")
@pytest.mark.slow
@pytest.mark.parametrize("harm", ["changed", "cut", "missing"])
def test_harm_to_any_file_is_an_error_or_does_no_harm(saved, tmp_path, harm):
    """A byte changed in the middle (and first and last), the second half cut off, the file gone."""
    good, detected = outcome(saved), []
    for name in files_of(saved):
        contents = (saved / name).read_bytes()
        for position in {0, len(contents) // 2, len(contents) - 1} if harm == "changed" else {len(contents) // 2}:
            folder = tmp_path / "best"
            shutil.copytree(saved, folder)
            if harm == "missing":
                (folder / name).unlink()
            elif contents:
                changed = bytearray(contents)
                changed[position] ^= 0x04
                (folder / name).write_bytes(changed if harm == "changed" else contents[:position])
            got = outcome(folder)
            assert got in ("error", good), name
            detected += [name] if got == "error" else []
            shutil.rmtree(folder)
    assert detected


@pytest.mark.usefixtures("dropped_futures")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine.*never awaited")
def test_every_changed_value_is_detected(tmp_path):
    """Values that lie in the files as they are: big, and not compressible."""
    tree = {"kernel": jnp.asarray(np.random.default_rng(1).normal(size=(1, 4096)).astype(np.float32))}
    save(tmp_path / "a", 1, tree=tree)
    data = max(files_of(tmp_path / "a"), key=lambda name: (tmp_path / "a" / name).stat().st_size)
    contents = (tmp_path / "a" / data).read_bytes()
    for position in np.random.default_rng(2).integers(0, len(contents), 8):
        changed = bytearray(contents)
        changed[position] ^= 0x01
        (tmp_path / "a" / data).write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"digest|damaged"):
            checkpoints.restore(tmp_path / "a", target(tree))


def test_missing_empty_and_foreign_folders(tmp_path):
    with pytest.raises(CheckpointError, match="is not there"):
        checkpoints.restore(tmp_path / "nowhere", target(arrays()))
    (tmp_path / "empty").mkdir()
    (tmp_path / "step" / "3").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("empty", "step", "file"):
        with pytest.raises(CheckpointError, match=name):
            checkpoints.restore(tmp_path / name, target(arrays()))


def test_another_model_is_named(saved):
    other = arrays()
    other["params"]["conv"]["kernel"] = jnp.zeros((2, 3, 5))
    with pytest.raises(CheckpointError, match=r"not a checkpoint of this model: params/conv/kernel is \(2, 3, 4\)"):
        checkpoints.restore(saved, target(other))
    other["params"]["dense"] = other["params"].pop("conv")
    with pytest.raises(CheckpointError, match="expected nothing"):
        checkpoints.restore(saved, target(other))


@pytest.mark.parametrize("old", [False, True], ids=["digest", "the bases themselves, as of old"])
def test_another_basis_is_an_error(tmp_path, old):
    model, plain = (abstract_model(build(name)) for name in ("lenet_fconv", "lenet"))
    ours, folder = model.conv.sampled_basis.values, tmp_path

    def record(values):
        return {"conv": np.asarray(values).tolist() if old else checkpoints._sketch(np.asarray(values))}

    assert basis_record(model) == {"conv": checkpoints._sketch(ours)}
    assert basis_record(plain) == {}
    assert len(json.dumps(basis_record(model))) < 400
    rounding = np.array(ours, np.float64)
    rounding[0, 0, 0, 0] += 1e-7
    for values in (ours, rounding):
        check_basis(folder, json.loads(json.dumps(record(values))), model)
    one = np.array(ours, np.float64)
    one[2, 2, 1, 3] += 1e-3
    others = [record(-ours), record(ours[..., 1:]), record(np.roll(ours, 1, axis=2)), record(one), {}]
    for saved in (*others, {**record(ours), "another": record(ours)["conv"]}):
        with pytest.raises(CheckpointError, match="another filter basis"):
            check_basis(folder, saved, model)


def test_the_digest_depends_on_all_it_covers():
    tree = {"a": np.float32([1, 2]), "b": np.float32([3])}
    others = [
        ({"a": np.float32([1, 3]), "b": np.float32([3])}, {}),
        ({"a": np.float32([[1, 2]]), "b": np.float32([3])}, {}),
        ({"a": np.float32([1, 2]).view(np.int32), "b": np.float32([3])}, {}),
        ({"a": np.float32([1, 2]), "c": np.float32([3])}, {}),
        (tree, {"epoch": 1}),
    ]
    digests = {checkpoints.digest(*args) for args in [(tree, {}), *others]}
    assert len(digests) == 6
    assert checkpoints.digest(dict(reversed(tree.items())), {}) in digests


def small_programs(mesh_shape):
    layout = Layout("vmap", None, 250, 1, mesh_shape)
    return Programs(build("lenet_classic"), layout, (0, 1, 2), (), batch_size=8, learning_rate=1e-3)


@pytest.mark.slow
def test_restores_on_eight_devices(tmp_path):
    """Seeds spread over devices, saved there, come back here on one."""
    code = """
        import sys
        from pathlib import Path
        import jax
        from tests.experiments.runs.test_checkpoints import checkpoints, small_programs
        assert len(jax.devices()) == 8
        programs, folder = small_programs((2, 4)), Path(sys.argv[1])
        arrays, record = checkpoints.restore(folder / "one", programs.abstract_rows())
        states = programs.pad(arrays)
        assert all(leaf.shape[0] == 4 and len(leaf.devices()) == 8 for leaf in jax.tree.leaves(states))
        saver = checkpoints.Checkpoints(folder / "eight")
        saver.save(1, programs.unpad(states), {})
        saver.close()
    """
    programs = small_programs((1, 1))
    states = programs.init()
    save(tmp_path / "one", 1, tree=states)
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"},
        check=True, timeout=200,
    )  # fmt: skip
    got, _ = checkpoints.restore(tmp_path / "eight", programs.abstract_rows())
    for first, second in zip(jax.tree.leaves(got), jax.tree.leaves(states), strict=True):
        np.testing.assert_array_equal(first, second)
