"""Loading: the four settings, what they share, and what happens to damaged, killed and simultaneous preparation."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from filelock import FileLock

from experiments.data import DataError, load, loading, resolve_dataset, sources
from experiments.data.rotation import copy_angles
from experiments.data.sources import data_directory, prepared_directory
from experiments.settings import DATASETS, SETTINGS, SPLITS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data directory that tests only read and add to."""
    return tmp_path_factory.mktemp("data")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for split in first:
        for name in ("images", "labels", "angles"):
            np.testing.assert_array_equal(getattr(first[split], name), getattr(second[split], name))


def run_python(code, *args):
    """Start a process that runs `code` with `load` imported."""
    code = "import sys\nfrom experiments.data import DataError, load\n" + textwrap.dedent(code)
    command = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("setting", SETTINGS)
def test_shapes_types_and_order_of_every_setting(root, setting):
    for split, arrays in load("mnist_5k", setting, data_dir=root).items():
        count = DATASETS["mnist_5k"].num_images(split, setting)
        assert (arrays.images.shape, arrays.images.dtype) == ((count, 28, 28, 1), np.uint8)
        assert (arrays.labels.shape, arrays.labels.dtype) == ((count,), np.int32)
        assert (arrays.angles.shape, arrays.angles.dtype) == ((count,), np.int32)
        per_class = DATASETS["mnist_5k"].num_images(split, setting) // 10
        np.testing.assert_array_equal(arrays.labels, np.repeat(np.arange(10), per_class))
        if SETTINGS[setting].is_rotated(split):
            angles = arrays.angles.reshape(-1, 5)
            np.testing.assert_array_equal(angles[:, 0], 0)
            np.testing.assert_array_equal(angles[:, 1:], copy_angles(0, "mnist_5k", split, len(angles)))
        else:
            assert not arrays.angles.any()


def test_settings_share_their_images(root):
    loaded = {setting: load("mnist_5k", setting, data_dir=root) for setting in SETTINGS}
    for first, second, splits in [(1, 3, ["train"]), (2, 4, ["train"]), (1, 2, SPLITS[1:]), (3, 4, SPLITS[1:])]:
        assert_equal({s: loaded[first][s] for s in splits}, {s: loaded[second][s] for s in splits})
    for split in SPLITS:
        np.testing.assert_array_equal(loaded[4][split].images[::5], loaded[1][split].images)


def test_a_split_alone_and_another_data_seed(root):
    alone = load("mnist_5k", 4, data_dir=root, splits=["validation"])
    assert list(alone) == ["validation"]
    other = load("mnist_5k", 4, data_dir=root, data_seed=12345, splits=["validation"])
    np.testing.assert_array_equal(other["validation"].images[::5], alone["validation"].images[::5])
    assert (other["validation"].angles != alone["validation"].angles).mean() > 0.7


def test_preparing_twice_gives_the_same_bytes_in_silence(root, tmp_path, capfd):
    lines = []
    again = load("mnist_5k", 4, data_dir=tmp_path, progress=lines.append)
    assert lines[0] == "preparing mnist_5k_setting4_seed0: train, 0 of 17,500 images"
    assert_equal(again, load("mnist_5k", 4, data_dir=root))
    assert capfd.readouterr() == ("", "")


def test_default_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert data_directory() == tmp_path
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_directory() == tmp_path / "tensorflow_datasets"


ROTATED = "the images of mnist_rot_like are rotated already: use --setting 1, which takes them as they are"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dataset": "cifar"},
            "unknown dataset 'cifar': choose auto, mnist, fashion_mnist, mnist_5k, mnist_rot, mnist_rot_like",
        ),
        ({"dataset": "mnist_rot_like", "setting": 3}, ROTATED),
        ({"setting": 5}, "unknown setting 5: choose 1, 2, 3, 4"),
        ({"data_seed": -1}, "the data seed must be a whole number from 0, not -1"),
        ({"data_seed": 10**5000}, "the data seed must be below 2^32"),
        ({"data_seed": 1.5}, "the data seed must be a whole number from 0, not 1.5"),
        ({"splits": ["dev"]}, "unknown split 'dev': choose from train, validation, test"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path, arguments, message):
    with pytest.raises(DataError) as caught:
        load(**({"dataset": "mnist_5k", "setting": 1, "data_dir": tmp_path / "new"} | arguments))
    assert str(caught.value) == message
    assert not (tmp_path / "new").exists()


def test_auto_offline_is_the_embedded_digits_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "is_reachable", lambda dataset: False)
    name, line = resolve_dataset("auto", tmp_path)
    assert name == "mnist_5k"
    assert "mnist_5k" in line
    assert str(tmp_path / "downloads" / "manual" / "mnist") in line
    assert "\n" not in line


def test_auto_online_or_prepared_is_mnist(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "is_reachable", lambda dataset: True)
    name, line = resolve_dataset("auto", tmp_path)
    assert name == "mnist"
    assert "downloaded" in line
    monkeypatch.setattr(loading, "is_reachable", lambda dataset: pytest.fail("asked the network for nothing"))
    prepared_directory(tmp_path, "mnist", 1, 0).mkdir(parents=True)
    assert resolve_dataset("auto", tmp_path) == ("mnist", None)
    assert resolve_dataset("auto", tmp_path, settings=[1]) == ("mnist", None)
    monkeypatch.setattr(loading, "is_reachable", lambda dataset: False)
    assert resolve_dataset("auto", tmp_path, settings=[1, 4])[0] == "mnist_5k"


def test_named_datasets_stand_for_themselves(tmp_path):
    assert all(resolve_dataset(name, tmp_path) == (name, None) for name in DATASETS)
    with pytest.raises(DataError, match="unknown dataset 'MNIST': choose auto, mnist"):
        resolve_dataset("MNIST")


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"can't prepare mnist_5k in .*file.*--data-dir") as caught:
        load("mnist_5k", 1, data_dir=tmp_path / "file" / "data")
    assert "\n" not in str(caught.value)


def test_full_disk_is_named_and_fixed(root, tmp_path):
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            load("mnist_5k", 1, data_dir=sys.argv[1])
        except DataError as error:
            print(error)
    """
    out, err = run_python(code, tmp_path).communicate(timeout=60)
    assert "can't prepare mnist_5k" in out, (out, err)
    assert out.count("\n") == 1, (out, err)
    assert not prepared_directory(tmp_path, "mnist_5k", 1, 0).exists()
    assert_equal(load("mnist_5k", 1, data_dir=tmp_path), load("mnist_5k", 1, data_dir=root))


@pytest.fixture
def prepared(tmp_path):
    """The folder of setting 1, prepared."""
    load("mnist_5k", 1, data_dir=tmp_path)
    return prepared_directory(tmp_path, "mnist_5k", 1, 0)


def record_file(folder):
    return next(folder.glob("*test.array_record*"))


def cut_short(folder):
    path = record_file(folder)
    path.write_bytes(path.read_bytes()[:-70_000])


def change_a_pixel(folder):
    path = record_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_the_digest(folder):
    path = folder / "metadata.json"
    content = json.loads(path.read_text())
    content["sha256"]["test"] = "0" * 64
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        change_a_pixel,
        change_the_digest,
        lambda folder: record_file(folder).unlink(),
        lambda folder: record_file(folder).write_bytes(b""),
        lambda folder: (folder / "dataset_info.json").unlink(),
        lambda folder: (folder / "dataset_info.json").write_text("{"),
        lambda folder: (folder / "metadata.json").unlink(),
    ],
)
def test_damaged_data_are_noticed(prepared, tmp_path, damage):
    damage(prepared)
    with pytest.raises(DataError) as caught:
        load("mnist_5k", 1, data_dir=tmp_path)
    assert str(caught.value).startswith(f"the prepared data in {prepared} are damaged")
    assert "delete this folder" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_killed_preparation_is_taken_up(root, tmp_path):
    code = """
        def stop_at_validation(line):
            print(line, flush=True)
            if "validation" in line:
                sys.stdin.read()
        load("mnist_5k", 4, data_dir=sys.argv[1], progress=stop_at_validation)
    """
    process = run_python(code, tmp_path)
    while "validation" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    folder = prepared_directory(tmp_path, "mnist_5k", 4, 0)
    assert not folder.exists()
    assert list(folder.parent.glob("incomplete.*"))
    assert_equal(load("mnist_5k", 4, data_dir=tmp_path), load("mnist_5k", 4, data_dir=root))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_two_processes_prepare_at_once(root, tmp_path):
    code = """
        import hashlib
        lines = []
        images = load("mnist_5k", 4, data_dir=sys.argv[1], progress=lines.append)["train"].images
        print(hashlib.sha256(images).hexdigest(), sum("preparing" in line for line in lines))
    """
    processes = [run_python(code, tmp_path) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [err for _, err in results] == ["", ""]
    (first, prepared_first), (second, prepared_second) = [out.split() for out, _ in results]
    assert first == second
    # One prepared three splits, the other waited.
    assert {prepared_first, prepared_second} == {"0", "3"}


def test_waiting_for_another_process_is_said(tmp_path):
    (tmp_path / "rotated_mnist").mkdir()
    waiting, lines = threading.Event(), []

    def note(line):
        lines.append(line)
        waiting.set()

    with FileLock(tmp_path / "rotated_mnist" / ".mnist_5k.lock"):
        thread = threading.Thread(target=load, args=("mnist_5k", 1), kwargs={"data_dir": tmp_path, "progress": note})
        thread.start()
        assert waiting.wait(30)
    thread.join()
    assert lines[0] == f"waiting for another process that prepares mnist_5k in {tmp_path}"
    assert prepared_directory(tmp_path, "mnist_5k", 1, 0).exists()


def test_prepared_data_load_from_a_folder_that_cannot_be_written(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_prepare", lambda *args: pytest.fail("prepared again"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    load("mnist_5k", 1, data_dir=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_digest_depends_on_every_array_of_every_split():
    one = loading.Split(np.zeros((2, 28, 28, 1), np.uint8), np.int32([0, 1]), np.int32([0, 5]))
    others = [dataclasses.replace(one, **{name: getattr(one, name) + 1}) for name in ("images", "labels", "angles")]
    found = [loading.digest({"train": one, "test": other}) for other in (one, *others)]
    found += [loading.digest({"train": other, "test": one}) for other in others]
    assert len(set(found)) == 7


def test_an_earlier_download_counts_with_all_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.resource, "get_dl_fname", lambda url, digest: url.rpartition("/")[2])
    (tmp_path / "downloads").mkdir()
    for name in sources.OFFICIAL_FILES:
        assert not sources.is_downloaded(tmp_path, "mnist")
        (tmp_path / "downloads" / f"{name}.gz").touch()
    assert sources.is_downloaded(tmp_path, "mnist")
