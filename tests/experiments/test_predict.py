"""Digits in image files are named as the original images are; what is none, and what cannot be read, is said."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import fconv_jax
from experiments import predict
from experiments.data import digits
from experiments.data.sources import read_embedded
from experiments.reporting import predicting
from experiments.reporting.exporting import export
from experiments.runs import reading
from experiments.runs.best import Evaluator
from experiments.settings import DATASETS, WEIGHTS
from tests.experiments import helpers

pytestmark = pytest.mark.unoptimized  # a network is compared with itself

NETWORKS = predicting.of_weights(WEIGHTS)
(MODEL,) = NETWORKS.models.values()


@pytest.fixture(scope="module")
def mnist():
    """One test image in ten, and their labels."""
    images, labels = read_embedded(DATASETS["mnist_5k"])["test"]
    return images[::10], labels[::10]


def dark_on_light(image, seed=0, size=(200, 300)):
    """An image of 28 x 28 on a sheet of 200 x 300, anywhere in it."""
    draw = np.random.default_rng(seed)
    side = int(draw.integers(100, 190))
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    sheet = Image.new("L", size, 0)
    sheet.paste(large, (int(draw.integers(0, size[0] - side)), int(draw.integers(0, size[1] - side))))
    return Image.fromarray(255 - np.asarray(sheet))


def call(*argv):
    return helpers.call(predict.main, *argv)


@pytest.fixture
def sevens(tmp_path, mnist):
    """Three files of one seven: dark on light, light on dark, and a photograph's grey on grey."""
    image = dark_on_light(mnist[0][np.flatnonzero(mnist[1] == 7)[0]])
    values = np.asarray(image)
    for name, made in {"dark.png": values, "light.jpg": 255 - values, "grey.webp": 90 + values // 4}.items():
        Image.fromarray(made).save(tmp_path / name)
    return [tmp_path / name for name in ("dark.png", "light.jpg", "grey.webp")]


def test_sheets_of_test_digits_are_named_as_the_digits_themselves(mnist):
    images, labels = mnist
    expected = predicting._probabilities(MODEL, images[..., None].astype(np.float32) / 255)
    sheets = [np.asarray(dark_on_light(image, seed), np.float32) / 255 for seed, image in enumerate(images)]
    found = predicting._probabilities(MODEL, np.stack([digits.prepare(sheet) for sheet in sheets])[..., None])
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.95
    assert np.mean(found.argmax(1) == labels) >= 0.95
    assert np.mean(found.max(1) < predicting.LEAST_PROBABILITY) <= 0.06


def test_lines(sevens, tmp_path, capfd):
    blank = tmp_path / "blank.png"
    Image.new("L", (50, 50), 200).save(blank)
    assert call(*sevens, blank) == 0
    lines = capfd.readouterr().out.splitlines()
    for path, line in zip(sevens, lines, strict=False):
        assert re.fullmatch(rf"{path}: 7 \(0\.\d\d\), then \d \(0\.\d\d\), \d \(0\.\d\d\)", line)
    assert lines[3:] == [f"{blank}: no digit", "    probably no digit: nothing stands out from the background"]


def test_an_image_that_is_named_twice_is_answered_twice(sevens, tmp_path, capfd):
    missing = tmp_path / "missing.png"
    assert call(sevens[0], missing, sevens[0], missing) == 2
    written = capfd.readouterr()
    assert len(written.out.splitlines()) == 2
    assert len(written.err.splitlines()) == 2


def test_json(sevens, capfd):
    assert call("--json", "--show", *sevens) == 0
    found = json.loads(capfd.readouterr().out)
    assert [one["file"] for one in found] == list(map(str, sevens))
    for one in found:
        assert one["class"] == "7"
        assert list(one["probabilities"]) == list("0123456789")
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert np.shape(one["pixels"]) == (28, 28)
        assert np.max(one["pixels"]) == 255
        assert one["seeds"] is None
        assert one["doubt"] is None


def test_show(sevens, capfd):
    assert call("--show", sevens[0]) == 0
    lines = capfd.readouterr().out.splitlines()[1:]
    expected = digits.prepare(digits.read(sevens[0]))
    assert [len(line) for line in lines] == [56] * 28
    np.testing.assert_array_equal([[c != " " for c in line[::2]] for line in lines], np.round(expected * 9) > 0)


def test_what_cannot_be_read_does_not_keep_the_others_from_an_answer(sevens, tmp_path, capfd):
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(sevens[0].read_bytes()[:-100])
    assert call(broken, sevens[0], missing) == 2
    captured = capfd.readouterr()
    assert captured.out.startswith(f"{sevens[0]}: 7 ")
    errors = captured.err.splitlines()
    assert len(errors) == 2
    assert all(line.startswith("python -m experiments.predict: error: ") for line in errors)
    assert f"{broken} can't be read" in errors[0]
    assert f"{missing} can't be read" in errors[1]
    assert call("--json", broken, sevens[0]) == 2
    first, second = json.loads(capfd.readouterr().out)
    assert first == {"file": str(broken), "error": errors[0].partition("error: ")[2]}
    assert second["class"] == "7"


@pytest.mark.parametrize(
    ("probabilities", "ink", "says"),
    [
        ([[0.8, 0.2, 0.0], [0.7, 0.2, 0.1]], 100, ["2 of 2 seeds agree"]),
        ([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]], 100, ["1 of 2 seeds agree, seed 3 says b"]),
        ([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3]], 100, ["probably no digit: no class has", "2 of 2 seeds agree"]),
        ([[0.8, 0.2, 0.0], [0.7, 0.2, 0.1]], 400, ["probably no digit: its strokes cover 400", "2 of 2 seeds agree"]),
        ([[0.8, 0.2, 0.0], [0.7, 0.2, 0.1]], 10, ["probably no digit: its strokes cover 10", "2 of 2 seeds agree"]),
    ],
)
def test_remarks(probabilities, ink, says):
    networks = predicting.Networks({"0": None, "3": None}, ["a", "b", "c"])
    answer = predicting._answer(np.full((28, 28), ink / 784), np.array(probabilities), networks)
    assert answer.line().startswith("a (0.")
    remarks = answer.remarks()
    assert len(remarks) == len(says)
    assert all(line.startswith(start) for line, start in zip(remarks, says, strict=True))


def test_all_seeds_of_a_run_answer_and_each_as_its_export(finished, sevens, tmp_path, monkeypatch, capfd):
    results = reading.check_run(finished)
    monkeypatch.setattr(reading, "check_run", lambda run: results | {"failed_seeds": []})  # one of them did
    assert call("--json", "--weights", finished, sevens[0]) == 0
    (answer,) = json.loads(capfd.readouterr().out)
    assert set(answer["seeds"]) == {"0", "3"}
    each = []
    for seed in (0, 3):
        assert export(finished, "safetensors", tmp_path / f"{seed}", seed) == seed
        assert call("--json", "--weights", tmp_path / f"{seed}", sevens[0]) == 0
        (one,) = json.loads(capfd.readouterr().out)
        assert one["class"] == answer["seeds"][str(seed)]
        each.append(list(one["probabilities"].values()))
    np.testing.assert_allclose(np.mean(each, 0), list(answer["probabilities"].values()), rtol=0, atol=1e-6)


def test_bad_input(sevens, tmp_path, capfd, monkeypatch):
    fashion = tmp_path / "fashion"
    fconv_jax.save_pretrained(MODEL, fashion, config={"model": "lenet_fconv_invariant"}, card="")
    digit = {"model": "lenet_fconv_invariant", "preprocessing": {"kind": "digit"}}
    for name, more in {"unnamed": {}, "few": {"classes": ["0", "1"]}, "text": {"preprocessing": "digit"}}.items():
        fconv_jax.save_pretrained(MODEL, tmp_path / name, config=digit | more, card="")
    for arguments, says in [
        ((), "IMAGE"),
        ((sevens[0], "--weights", "no_such_name"), "must be a folder of save_pretrained"),
        ((sevens[0], "--weights", fashion), "does not say that it takes digits"),
        ((sevens[0], "--weights", tmp_path), "is missing"),
        ((sevens[0], "--weights", tmp_path / "unnamed"), "does not name its classes"),
        ((sevens[0], "--weights", tmp_path / "few"), "(10,) outputs for 2 classes"),
        ((sevens[0], "--weights", tmp_path / "text"), "does not say that it takes digits"),
    ]:
        helpers.assert_refused(capfd, tmp_path, call, *arguments, says=says)


def test_a_run_on_other_images_is_refused(finished):
    class Elsewhere:
        config = type("Config", (), {"dataset": "fashion_mnist"})
        elsewhere, run_dir = False, "run"

    with pytest.raises(ValueError, match="was trained on fashion_mnist"):
        predicting.of_run(Elsewhere)
    assert list(predicting.of_run(Evaluator(finished)).models) == ["0"]  # seed 3 failed


def test_seeds_that_failed_are_not_asked(finished, sevens, monkeypatch, capfd):
    results = reading.check_run(finished)
    monkeypatch.setattr(reading, "check_run", lambda run: results | {"failed_seeds": [0]})
    networks = predicting.of_run(Evaluator(finished))
    assert list(networks.models) == ["3"]
    assert "seeds that failed are not asked: 0" in capfd.readouterr().err
    kernel = networks.models["3"].dense1.kernel
    kernel[...] = np.full(kernel.shape, np.nan, np.float32)
    with pytest.raises(ValueError, match="are not finite numbers"):
        predicting.predict(sevens, networks)
