"""What is written of a run: means by hand, strict JSON, whole files or none."""

import io
import json
import math
import re
import subprocess

import numpy as np
import pytest
from rich.console import Console

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


def test_what_the_configuration_says_is_repeated_and_numbers_are_pythons():
    got = results.summarize(
        config((4, 7)), {"train_loss": [[1.0]] * 2, "validation_correct": [[3], [10]]}, np.int32([1, 1]),
        np.int32([[[1, 0], [1, 3]], [[1, 0], [0, 4]]]), num_validation=10, device="a machine",
    )  # fmt: skip
    assert {name: got[name] for name in ("model", "setting", "dataset", "seeds", "epochs", "batch_size")} == {
        "model": "lenet", "setting": 3, "dataset": "mnist_5k", "seeds": [4, 7], "epochs": 2, "batch_size": 256,
    }  # fmt: skip
    assert {name: got[name] for name in ("learning_rate", "schedule", "weight_decay", "label_smoothing")} == {
        "learning_rate": 2e-4, "schedule": "constant", "weight_decay": 0.0, "label_smoothing": 0.0,
    }  # fmt: skip
    assert (got["init"], got["precision"], got["data_seed"]) == ("report", "float32", 0)
    assert got["per_class_accuracy"] == [[1.0, 0.75], [1.0, 1.0]]  # one image of the first class
    assert got["test_accuracy"] == [0.8, 1.0]
    assert got["std"] == pytest.approx(0.2 / math.sqrt(2))  # two seeds are enough
    assert got["confusion"][0] == [[1, 0], [1, 3]]
    assert (got["best_epoch"], got["train_loss"], got["device"]) == ([1, 1], [[1.0], [1.0]], "a machine")
    assert got["versions"] == results.versions()
    assert {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy"} == set(
        results.versions()
    )
    assert results.versions()["numpy"] == np.__version__
    json.dumps(got)  # no number of NumPy's


def test_the_commit_is_the_repositorys_and_says_what_was_changed(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words], check=True)

    code = tmp_path / "experiments" / "runs" / "results.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    monkeypatch.setattr(results, "__file__", str(code))
    assert results.commit() == ""  # no checkout
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert re.fullmatch("[0-9a-f]{7,}", results.commit())
    (code.parent / "new.py").write_text("")
    assert re.fullmatch("[0-9a-f]{7,} and changes", results.commit())
    (code.parent / "new.py").unlink()
    code.write_text("changed = True\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert re.fullmatch("[0-9a-f]{7,} and changes", results.commit())
    monkeypatch.setattr(results, "__file__", str(tmp_path / "inside" / "experiments" / "runs" / "results.py"))
    (tmp_path / "inside").mkdir()
    assert results.commit() == ""  # installed inside somebody else's repository
    monkeypatch.setenv("PATH", "")
    assert results.commit() == ""  # no git


def test_what_trained_a_run_is_named_once():
    a, b = "python -m experiments.run --epochs 12", "python -m experiments.run"
    assert results.with_last([], a) == [a]
    assert results.with_last([a], a) == results.with_last([a], f"{a} --resume") == [a]
    assert results.with_last([f"{a} --resume"], a) == [f"{a} --resume"]
    assert results.with_last([a], f"{b} --resume") == [a, f"{b} --resume"]
    assert results.with_last(["unknown"], a) == ["unknown", a]


def test_curves_and_counts_of_another_number_of_seeds_are_no_results():
    right, correct, losses = [(5, 4)] * 3, [[2]] * 3, [[1.0]] * 3
    for one, two, three in ((right[:2], correct, losses), (right, correct[:2], losses), (right, correct, losses[:2])):
        with pytest.raises(ValueError, match="zip"):
            results.summarize(
                config(), {"train_loss": three, "validation_correct": two}, [1] * 3,
                [[[a, 5 - a], [5 - b, b]] for a, b in one], num_validation=10,
            )  # fmt: skip


@pytest.mark.parametrize("change", [{"seeds": [3]}, {"train_loss": [[1.0], [2.0, 1.0]]}, {"validation_curve": []}])
def test_curves_that_do_not_fit_are_not_written(tmp_path, change):
    whole = {"seeds": [3, 1], "train_loss": [[1.0, 0.5], [2.0, 1.0]], "validation_curve": [[0.1, 0.2], [0, 1]]}
    with pytest.raises(ValueError, match="zip"):
        results.write_curves(tmp_path / "curves.csv", whole | change)
    assert not list(tmp_path.iterdir())


def said(contents):
    """The words of the tables, without their frames."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    results.print_tables(console, contents)
    return " ".join(re.sub("[^ -~]", " ", console.file.getvalue()).split())


def test_the_tables_say_each_seed_and_the_means_without_failed():
    contents = summary([(5, 4), (0, 5), (4, 3)], [[2, 9], [1, 0], [8, 1]], [[1.0, 0.5]] * 3) | {"best_epoch": [2, 1, 1]}
    got = said(contents)
    assert got.startswith(
        "lenet, setting 3, mnist_5k: test accuracy seed best epoch validation test 0 2 0.9000 0.9000 "
        "4 1 0.1000 0.5000 failed 7 1 0.8000 0.7000 mean 0.8000 without failed std 0.1414 mean_all 0.7000 "
        "accuracy of each class, seeds that did not fail 0 1 0.900 0.700 failed seeds ("
    )
    assert got.endswith("): 4")


def test_the_tables_of_seeds_that_did_not_fail():
    got = said(summary([(5, 4), (4, 3)], [[2, 9], [8, 1]], [[1.0, 0.5]] * 2, seeds=(0, 7)))
    assert "mean 0.8000 std 0.1414 mean_all 0.8000" in got
    assert got.endswith("accuracy of each class, seeds that did not fail 0 1 0.900 0.700")


def test_the_tables_where_all_failed_have_no_mean():
    got = said(summary([(1, 4), (0, 5)], [[1], [1]], [[2.3]] * 2, seeds=(0, 7)))
    assert "mean - without failed std - mean_all 0.5000 accuracy of each class 0 1 0.100 0.900 failed seeds (" in got
    assert got.endswith("): 0, 7")


def test_numbers_stand_at_the_right_of_their_columns():
    console = Console(file=io.StringIO(), width=100, color_system=None)
    results.print_tables(console, summary([(5, 4)], [[9]], [[1.0]], seeds=(12345,)))
    lines = console.file.getvalue().splitlines()
    (seed,) = (line for line in lines if "12345" in line)
    (deviation,) = (line for line in lines if " std " in line)
    assert lines[lines.index(seed) + 1].startswith("├")  # a line between the seeds and their mean
    assert deviation.index("std") + 3 == seed.index("12345") + 5


@pytest.mark.parametrize("name", ["best_epoch", "test_accuracy", "per_class_accuracy"])
def test_tables_of_fewer_seeds_than_there_are_are_not_printed(name):
    contents = summary([(5, 4), (4, 3)], [[2, 9], [8, 1]], [[1.0, 0.5]] * 2, seeds=(0, 7))
    with pytest.raises(ValueError, match="zip"):
        said(contents | {name: contents[name][:1]})
