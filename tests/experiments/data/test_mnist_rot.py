"""mnist-rot in each of its forms, wrong files, transposed images, and the set made like it."""

import zipfile

import numpy as np
import pytest

from experiments.data import DataError, mnist_rot
from experiments.data.rotation import rotate_each, uniform_angles
from experiments.data.sources import read_embedded
from experiments.settings import DATASETS, SPLITS, Dataset, Protocol

SMALL = Dataset("mnist_rot", 200, 40, 100, Protocol(), settings=(1,))


@pytest.fixture(scope="module")
def upright():
    return read_embedded(DATASETS["mnist_5k"])


@pytest.fixture(scope="module")
def rotated(upright):
    """Digits of all classes, rotated."""
    images, labels = upright["train"]
    chosen = np.random.default_rng(0).permutation(len(labels))[:340]
    images = rotate_each(images[chosen], uniform_angles(0, 340), 1)
    ends = (200, 240)
    return dict(zip(SPLITS, zip(np.split(images, ends), np.split(labels[chosen], ends), strict=True), strict=True))


@pytest.fixture
def folder(tmp_path):
    result = tmp_path / "downloads" / "manual" / "mnist_rot"
    result.mkdir(parents=True)
    return result


def amat(*splits):
    """Lines as in the official files."""
    rows = [np.column_stack([images.reshape(len(images), -1) / 255, labels]) for images, labels in splits]
    return "\n".join("   ".join(f"{x:.6g}" for x in row) for row in np.concatenate(rows)) + "\n"


def place(folder, form, source):
    train, valid, test = (source[split] for split in SPLITS)
    if form == "amat":
        (folder / mnist_rot.TRAIN_AMAT).write_text(amat(train, valid))
        (folder / mnist_rot.TEST_AMAT).write_text(amat(test))
    elif form == "x and y":
        for name, (images, labels) in zip(("train", "valid", "test"), (train, valid, test), strict=True):
            pixels = (images.reshape(len(images), -1) / 255).astype(np.float32)
            np.savez(folder / f"rotated_{name}.npz", x=pixels, y=labels.astype(np.int32))
    else:
        for name, (images, labels) in zip(("train", "valid", "test"), (train, valid, test), strict=True):
            np.savez(folder / f"{name}.npz", data=images[:, None] / 255, labels=labels.astype(float))


def read(folder, upright):
    said = []
    return mnist_rot.read(folder.parents[2], SMALL, upright, said.append), said


def test_arrays_of_either_name_hold_grey_levels_or_fractions(folder, rotated, upright):
    for name, split in zip(("train", "valid", "test"), SPLITS, strict=True):
        images, labels = rotated[split]
        pixels = images if split == "test" else (images / 255 * (1 + 2e-6)).astype(np.float32)
        np.savez(folder / f"rotated_{name}.npz", data=pixels, labels=labels)
    found, _ = read(folder, upright)
    for split in SPLITS:
        np.testing.assert_array_equal(found[split][0], rotated[split][0])


@pytest.mark.parametrize("kind", ["uint8", "int64", "float32", "float64"])
def test_grey_levels_are_read_in_any_type(folder, kind, rotated, upright):
    for name, split in zip(("train", "valid", "test"), SPLITS, strict=True):
        images, labels = rotated[split]
        np.savez(folder / f"{name}.npz", data=images.astype(kind), labels=labels[:, None])
    found, _ = read(folder, upright)
    for split in SPLITS:
        np.testing.assert_array_equal(found[split][0], rotated[split][0])


@pytest.mark.parametrize("below", [".", "mnist_rotation_new"])
@pytest.mark.parametrize("form", ["amat", "x and y", "data and labels"])
def test_each_form_is_read(folder, form, below, rotated, upright):
    (folder / below).mkdir(exist_ok=True)
    place(folder / below, form, rotated)
    found, said = read(folder, upright)
    assert not said
    for split in SPLITS:
        for part, expected in zip(found[split], rotated[split], strict=True):
            assert part.dtype == np.uint8
            np.testing.assert_array_equal(part, expected)


def test_the_official_archive_is_read_and_another_is_not(folder, rotated, upright, monkeypatch):
    place(folder, "amat", rotated)
    names = (mnist_rot.TRAIN_AMAT, mnist_rot.TEST_AMAT)
    with zipfile.ZipFile(folder / "mnist_rotation_new.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(folder / name, f"mnist_rotation_new/{name}")
            (folder / name).unlink()
    with pytest.raises(DataError, match="not the official file of 58,424,278 bytes"):
        read(folder, upright)
    content = (folder / "mnist_rotation_new.zip").read_bytes()
    monkeypatch.setattr(mnist_rot, "ZIP_BYTES", len(content))
    monkeypatch.setattr(mnist_rot, "ZIP_MD5", mnist_rot.hashlib.md5(content).hexdigest())
    found, _ = read(folder, upright)
    np.testing.assert_array_equal(found["test"][0], rotated["test"][0])


def test_transposed_images_are_found_and_put_right(folder, rotated, upright):
    place(folder, "x and y", {split: (images.swapaxes(1, 2), labels) for split, (images, labels) in rotated.items()})
    found, said = read(folder, upright)
    assert len(said) == 1
    assert "transposed" in said[0]
    np.testing.assert_array_equal(found["train"][0], rotated["train"][0])


def test_one_transposed_split_is_put_right_alone(folder, rotated, upright):
    images, labels = rotated["test"]
    place(folder, "x and y", {**rotated, "test": (images.swapaxes(1, 2), labels)})
    found, said = read(folder, upright)
    assert ["transposed (test)" in line for line in said] == [True]
    for split in SPLITS:
        np.testing.assert_array_equal(found[split][0], rotated[split][0])


def test_few_digits_of_any_draw_say_which_way_they_are(upright):
    images, labels = upright["train"]
    for seed in range(20):
        chosen = np.random.default_rng(seed).permutation(len(labels))[:100]
        some = rotate_each(images[chosen], uniform_angles(seed, 100), 1)
        assert not mnist_rot.is_transposed(some, labels[chosen], *upright["test"]), seed
        assert mnist_rot.is_transposed(some.swapaxes(1, 2), labels[chosen], *upright["test"]), seed


def large(path):
    """A small file that would unpack to more than a gigabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data.npy", "w") as member:
        for _ in range(1025):
            member.write(bytes(2**20))


def text_member(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "text")
        archive.writestr("labels", "text")


def test_files_that_are_placed_after_the_error_are_found(folder, rotated, upright):
    (folder / "link").symlink_to("nowhere")
    with pytest.raises(DataError, match="is not in"):
        read(folder, upright)
    place(folder, "x and y", rotated)
    assert read(folder, upright)[0].keys() == rotated.keys()


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda folder: None, "is not in"),
        (lambda folder: (folder / mnist_rot.TRAIN_AMAT).write_text("0 1 2\n"), "3 numbers a line instead of 785"),
        (lambda folder: (folder / mnist_rot.TRAIN_AMAT).write_text("zero\n"), "no table of numbers"),
        (lambda folder: (folder / mnist_rot.TRAIN_AMAT).write_text("\n"), "is empty"),
        (lambda folder: np.savez(folder / "train.npz", data=[["a"] * 784], labels=[1]), "holds no numbers"),
        (lambda folder: np.savez(folder / "train.npz", data=np.zeros((0, 784)), labels=np.zeros(0)), "no numbers"),
        (lambda folder: (folder / mnist_rot.TEST_AMAT).write_text("0\n"), f"{mnist_rot.TRAIN_AMAT} can't be read"),
        (
            lambda folder: (folder / "rotated_train.npz").write_bytes(b"text"),
            "does not hold 'x' and 'y', or 'data'",
        ),
        (lambda folder: (folder / "rotated_train.npz").write_bytes(b""), "does not hold 'x' and 'y', or 'data'"),
        (lambda folder: large(folder / "train.npz"), "would unpack to 1,074,790,400 bytes"),
        (lambda folder: text_member(folder / "train.npz"), "holds no numbers"),
        (lambda folder: np.savez(folder / "train.npz", data=[[2.0] * 784], labels=[1]), "not from 0 to 1"),
        (lambda folder: np.savez(folder / "train.npz", data=[[0.5] * 784], labels=[1.5]), "not whole numbers"),
        (lambda folder: np.savez(folder / "train.npz", data=[[0.5] * 783], labels=[1]), "783 pixels for 1 labels"),
        (lambda folder: np.savez(folder / "train.npz", data=[{}], labels=[1]), "does not hold 'x'"),
        (lambda folder: np.savez(folder / "train.npz", data=np.zeros((784, 2)), labels=[1, 2]), "of shape 784x2"),
        (lambda folder: np.savez(folder / "train.npz", data=[[0.5] * 784], labels=[256]), "not whole numbers from 0"),
        (
            lambda folder: np.savez(folder / "train.npz", data=np.eye(3, 784), labels=np.eye(3, 10)),
            "shape 3x10, not one",
        ),
        (lambda folder: np.savez(folder / "train.npz", data=np.zeros((3, 784)), labels=[1, 2, 3]), "no light digits"),
        (lambda folder: np.savez(folder / "train.npz", data=1 - np.eye(3, 784), labels=[1, 2, 3]), "no light digits"),
        (lambda folder: np.savez(folder / "train.npz", data=[[-255] * 784], labels=[1]), "not from 0 to 1"),
        (lambda folder: np.savez(folder / "train.npz", data=[[254.5] * 784], labels=[1]), "not from 0 to 1"),
        (lambda folder: np.savez(folder / "train.npz", data=[[1e300] * 784], labels=[1]), "not from 0 to 1"),
    ],
)
def test_wrong_files_are_named(folder, upright, break_it, says):
    break_it(folder)
    with pytest.raises(DataError, match=says.replace("(", r"\(")):
        read(folder, upright)


def test_another_number_of_images_is_refused(folder, rotated, upright):
    place(folder, "x and y", rotated | {"test": tuple(x[:-1] for x in rotated["test"])})
    with pytest.raises(DataError, match="test has 99 images instead of 100"):
        read(folder, upright)


def test_a_label_that_is_no_digit_is_refused(folder, rotated, upright):
    images, labels = rotated["test"]
    place(folder, "x and y", rotated | {"test": (images, np.where(labels == 9, 10, labels))})
    with pytest.raises(DataError, match="test has the label 10, labels are 0 to 9"):
        read(folder, upright)


def test_dim_grey_levels_are_read(folder, rotated, upright):
    dim = {split: (images // 4, labels) for split, (images, labels) in rotated.items()}
    for name, split in zip(("train", "valid", "test"), SPLITS, strict=True):
        np.savez(folder / f"{name}.npz", data=dim[split][0], labels=dim[split][1])
    np.testing.assert_array_equal(read(folder, upright)[0]["test"][0], dim["test"][0])


def test_whole_numbers_of_0_and_1_are_black_and_white(folder, rotated, upright):
    for name, split in zip(("train", "valid", "test"), SPLITS, strict=True):
        np.savez(folder / f"{name}.npz", data=(rotated[split][0] > 127).astype(np.uint8), labels=rotated[split][1])
    np.testing.assert_array_equal(read(folder, upright)[0]["test"][0], 255 * (rotated["test"][0] > 127))


def test_what_is_made_like_it_is_digits_of_mnist_each_once(upright):
    dataset = Dataset("mnist_rot_like", 20, 5, 30, Protocol(), settings=(1,), source="mnist")
    mnist = {split: tuple(part[:: len(part) // 40][:40] for part in parts) for split, parts in upright.items()}
    assert all(len(set(labels)) > 5 for _, labels in mnist.values())  # they are sorted by class
    found = mnist_rot.make_like(dataset, mnist, 7)
    assert [len(found[split][0]) for split in SPLITS] == [20, 5, 30]
    images, labels = (np.concatenate([mnist[s][part] for s in ("validation", "train", "test")]) for part in (0, 1))
    chosen = np.random.default_rng(0).permutation(120)[:55]
    np.testing.assert_array_equal(np.random.default_rng(0).permutation(70_000)[:3], [38_636, 44_088, 42_448])
    np.testing.assert_array_equal(np.concatenate([found[split][1] for split in SPLITS]), labels[chosen])
    expected = rotate_each(images[chosen], uniform_angles(7, 55), 1)
    np.testing.assert_array_equal(np.concatenate([found[split][0] for split in SPLITS]), expected)
    other = mnist_rot.make_like(dataset, mnist, 8)
    for split in SPLITS:  # other angles, but no digit changes its split
        np.testing.assert_array_equal(other[split][1], found[split][1])
    assert (other["train"][0] != found["train"][0]).any()
