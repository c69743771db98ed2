"""Damaged checkpoints and data files: exit code 2, one line that names the folder, nothing written, nothing lost."""

import gzip
import shutil
import struct

import pytest

from tests.experiments import helpers
from tests.experiments.test_bad_input import RUN

pytestmark = pytest.mark.unoptimized  # what is asked is what is refused


def array_file(best):
    return max((path for path in best.rglob("*") if path.parent.name == "d"), key=lambda path: path.stat().st_size)


def spoil(path, old=None, new=None):
    contents = bytearray(path.read_bytes())
    if old is None:
        contents[len(contents) // 2] ^= 1
    else:
        assert old.encode() in contents
        contents = contents.replace(old.encode(), new.encode(), 1)
    path.write_bytes(contents)


def record_file(best):
    return next(path for path in (best.rglob("metadata")) if path.parent.name == "record")


RECORDS = {
    "another model": ('"lenet"', '"lenet_fconv"'),
    "unknown model": ('"lenet"', '"lenot"'),
    "unknown precision": ('"float32"', '"float33"'),
    "unknown seed map": ('"auto"', '"auta"'),
    "a byte of the record": ('"report"', '"repirt"'),
    "another data set": ('"mnist_5k"', '"mnist_6k"'),
    "a field renamed": ('"precision"', '"precisiom"'),
    "no config": ('"config"', '"confog"'),
    "no classes": ('"num_classes"', '"num_clashes"'),
    "classes a text": ('"num_classes": 10', '"num_classes": "a"'),
    "other classes": ('"num_classes": 10', '"num_classes": 11'),
    "batch size a text": ('"batch_size": 32', '"batch_size": "a"'),
    "fewer seeds": ('"seeds": [0, 3]', '"seeds": [0]'),
    "seeds a text": ('"seeds": [0, 3]', '"seeds": ["a"]'),
    "no seeds": ('"seeds": [0, 3]', '"seeds": []'),
}
"""Words of the record of best/, and what they are changed into."""

CHECKPOINTS = {
    "best missing": lambda best: shutil.rmtree(best),
    "best empty": lambda best: [shutil.rmtree(path) if path.is_dir() else path.unlink() for path in best.iterdir()],
    "step empty": lambda best: [shutil.rmtree(path) for path in best.glob("[0-9]*/*") if path.is_dir()],
    "arrays missing": lambda best: [shutil.rmtree(path) for path in best.glob("*/arrays")],
    "record missing": lambda best: [shutil.rmtree(path) for path in best.glob("*/record")],
    "a byte changed": lambda best: spoil(array_file(best)),
    "cut short": lambda best: array_file(best).write_bytes(array_file(best).read_bytes()[:1000]),
    "array file empty": lambda best: array_file(best).write_bytes(b""),
    "array file gone": lambda best: array_file(best).unlink(),
    **{name: lambda best, change=change: spoil(record_file(best), *change) for name, change in RECORDS.items()},
    "record not JSON": lambda best: record_file(best).write_text("{"),
    "record a list": lambda best: record_file(best).write_text("[]"),
    "record empty": lambda best: record_file(best).write_text(""),
}


@pytest.mark.usefixtures("dropped_futures")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine.*never awaited")
@pytest.mark.parametrize("damage", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_damaged_checkpoints(synthetic, finished, tmp_path, capfd, damage):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    damage(folder / "best")
    helpers.assert_refused(capfd, tmp_path, helpers.evaluate, folder, "--output", tmp_path / "out", says=str(folder))


def idx(shape, value=0):
    count = 1
    for size in shape:
        count *= size
    return bytes([0, 0, 8, len(shape)]) + b"".join(struct.pack(">I", size) for size in shape) + bytes([value]) * count


IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
RIGHT = {LABELS: (60_000,), TEST_LABELS: (10_000,), TEST_IMAGES: (10_000, 28, 28)}  # the first image file is harmed

DATA_FILES = {
    "one file of four": ("fashion_mnist", None),
    "an empty file": ("fashion_mnist", b""),
    "not IDX": ("fashion_mnist", b"hello"),
    "cut short": ("fashion_mnist", idx((60_000, 28, 28))[:1000]),
    "labels for images": ("fashion_mnist", idx((60_000,))),
    "too few images": ("fashion_mnist", idx((10_000, 28, 28))),
    "gzip cut short": ("fashion_mnist", gzip.compress(idx((60_000, 28, 28)), 1)[:100]),
    "a wrong checksum": ("mnist", b"hello"),
}


@pytest.mark.parametrize(("dataset", "contents"), DATA_FILES.values(), ids=DATA_FILES)
def test_placed_data_files(tmp_path, capfd, dataset, contents):
    placed = tmp_path / "data" / "downloads" / "manual" / dataset
    placed.mkdir(parents=True)
    for name, shape in RIGHT.items():
        (placed / name).write_bytes(idx(shape))
    if contents is not None:
        (placed / IMAGES).write_bytes(contents)
    words = RUN.replace("mnist_5k", dataset).split()
    words += ["--data-dir", tmp_path / "data", "--output", tmp_path / "run"]
    helpers.assert_refused(capfd, tmp_path, helpers.run, *words, says=str(placed))


def test_a_data_folder_that_cannot_be(tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    words = [*RUN.split(), "--data-dir", tmp_path / "file", "--output", tmp_path / "run"]
    helpers.assert_refused(capfd, tmp_path, helpers.run, *words, says="--data-dir")
