"""What is written of a run: means by hand, strict JSON, whole files or none."""

import json
import math

import numpy as np
import pytest

from experiments.runs import folder, results
from experiments.settings import RunConfig


def config(seeds=(0, 4, 7)):
    return RunConfig("lenet", 3, "mnist_5k", 0, seeds, 2, 256, 2e-4, "report", "float32", "auto")


def summary(right, correct, losses, seeds=(0, 4, 7)):
    """Two classes of 5 test images each; `right`: how many of each class a seed has right; 10 validation images."""
    confusion = [[[a, 5 - a], [5 - b, b]] for a, b in right]
    curves = {"train_loss": losses, "validation_correct": correct}
    return results.summarize(config(seeds), curves, [1] * len(seeds), confusion, num_validation=10, num_parameters=7)


def test_means_by_hand():
    got = summary([(5, 4), (3, 4), (5, 5)], [[2, 9], [7, 7], [8, 1]], [[1.0, 0.5]] * 3)
    assert got["test_accuracy"] == [0.9, 0.7, 1.0]
    assert got["validation_accuracy"] == [0.9, 0.7, 0.8]
    assert got["validation_curve"][2] == [0.8, 0.1]
    assert got["mean"] == got["mean_all"] == pytest.approx(2.6 / 3)
    assert got["std"] == pytest.approx(math.sqrt((0.0333333**2 + 0.1666667**2 + 0.1333333**2) / 2), abs=1e-6)
    assert got["per_class_accuracy"] == [[1.0, 0.8], [0.6, 0.8], [1.0, 1.0]]
    assert got["failed_seeds"] == []
    assert got["num_parameters"] == 7


def test_failed_seeds_are_named_by_value_and_left_out():
    """0.2 is not under 0.2; a loss that was once not a number fails, whatever the accuracy."""
    got = summary([(5, 4), (0, 5), (5, 5)], [[2, 1], [1, 0], [9, 9]], [[1.0, 0.5], [2.3, 2.3], [1.0, math.nan]])
    assert got["failed_seeds"] == [4, 7]
    assert (got["mean"], got["std"]) == (0.9, None)
    assert got["mean_all"] == pytest.approx(0.8)


def test_all_failed():
    got = summary([(0, 5)] * 3, [[1, 1]] * 3, [[2.3, math.inf]] * 3)
    assert (got["mean"], got["std"], got["mean_all"]) == (None, None, 0.5)
    assert got["failed_seeds"] == [0, 4, 7]


def test_a_class_without_images_counts_as_nothing_right():
    confusion = np.int32([[[0, 0], [2, 6]]])
    curves = {"train_loss": [[1.0]], "validation_correct": [[5]]}
    got = results.summarize(config((0,)), curves, [1], confusion, num_validation=10)
    assert got["per_class_accuracy"] == [[0.0, 0.75]]
    assert got["test_accuracy"] == [0.75]
    assert got["std"] is None


def test_json_is_strict_and_written_in_one_piece(tmp_path):
    path = tmp_path / "some.json"
    folder.write_json(path, {"a": math.nan, "b": [1.5, -math.inf, (math.inf, "ü")], "c": {"d": None}})
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, None, [None, "ü"]], "c": {"d": None}}
    before = path.read_bytes()
    with pytest.raises(TypeError):
        folder.write_json(path, {"a": object()})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["some.json"]


def test_curves_are_rows_of_seed_and_epoch(tmp_path):
    contents = {"seeds": [3, 1], "train_loss": [[1.0, 0.5], [2.0, math.nan]], "validation_curve": [[0.1, 0.2], [0, 1]]}
    results.write_curves(tmp_path / "curves.csv", contents)
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines == ["seed,epoch,train_loss,validation_accuracy", "3,1,1,0.1", "3,2,0.5,0.2", "1,1,2,0", "1,2,nan,1"]
