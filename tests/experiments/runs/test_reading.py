"""results.json is believed where all follows from its counts and curves, and where the run's other files agree."""

import copy
import json
import math

import pytest

from experiments import report
from experiments.rules import InputError
from experiments.runs import reading
from tests.experiments import helpers

LATER = ("schedule", "weight_decay", "label_smoothing", "l2", "augmentation")
GOOD = helpers.cell("lenet")


def put(*path):
    """Changes what stands at a path, the last word, in results.json."""
    *names, last, value = path

    def edit(contents):
        at = contents
        for name in names:
            at = at[name]
        at[last] = value(at[last]) if callable(value) else value

    return edit


EDITS = {
    "accuracy 5": put("test_accuracy", 0, 5.0),
    "accuracy a little better": put("test_accuracy", 0, 0.9005),
    "accuracy below 0": put("test_accuracy", 0, -0.9),
    "accuracy NaN": put("test_accuracy", 0, math.nan),
    "accuracy infinite": put("test_accuracy", 0, math.inf),
    "accuracy null": put("test_accuracy", 0, None),
    "accuracy a text": put("test_accuracy", 0, "0.9"),
    "an accuracy too few": put("test_accuracy", [0.9, 0.8]),
    "mean": put("mean", 0.86),
    "mean null": put("mean", None),
    "mean NaN": put("mean", math.nan),
    "mean true": put("mean", True),
    "std": put("std", 0.0),
    "std null": put("std", None),
    "mean_all": put("mean_all", 0.85),
    "a failed seed more": put("failed_seeds", [1, 2]),
    "a failed seed less": put("failed_seeds", []),
    "a failed seed of no run": put("failed_seeds", [2, 9]),
    "best epoch": put("best_epoch", 0, 2),
    "best epoch 0": put("best_epoch", 0, 0),
    "validation accuracy": put("validation_accuracy", 0, 0.6),
    "validation curve": put("validation_curve", 0, 1, 0.9),
    "validation curve above 1": put("validation_curve", 0, [1.5, 1.5]),
    "class accuracy": put("per_class_accuracy", 0, 3, 0.95),
    "a class too few": put("per_class_accuracy", 0, lambda row: row[:-1]),
    "a count": put("confusion", 0, 3, 3, 181),
    "a count below 0": put("confusion", 0, 3, 5, -1),
    "a count of half an image": put("confusion", 0, 3, 5, 0.5),
    "a huge count": put("confusion", 0, 3, 5, 10**30),
    "counts of other images": put("confusion", 0, lambda rows: [rows[1], rows[0], *rows[2:]]),
    "no counts": put("confusion", lambda rows: [[[0] * 10] * 10] * 3),
    "seeds twice": put("seeds", [0, 0, 2]),
    "seeds cut": put("seeds", [0]),
    "seeds more": put("seeds", [0, 1, 2, 3]),
    "a seed below 0": put("seeds", 0, -1),
    "a loss below 0": put("train_loss", 0, [-1.0, 1.0]),
    "a loss that is no number": put("train_loss", 0, [None, 1.0]),
    "a loss NaN": put("train_loss", 0, [math.nan, 1.0]),
    "a loss a text": put("train_loss", 0, ["1", 1.0]),
    "a loss that no float32 is": put("train_loss", 0, [1e300, 1.0]),
    "epochs": put("epochs", 3),
    "epochs a text": put("epochs", "2"),
    "batch size 0": put("batch_size", 0),
    "learning rate 0": put("learning_rate", 0.0),
    "precision": put("precision", "float8"),
    "unknown schedule": put("schedule", "linear"),
    "unknown weights": put("init", "../../x"),
    "unknown model": put("model", "lenot"),
    "path for a model": put("model", "../../../escaped"),
    "model a list": put("model", ["lenet"]),
    "unknown data": put("dataset", "../mnist"),
    "setting 5": put("setting", 5),
    "setting a text": put("setting", "1"),
    "setting true": put("setting", True),
    "data seed": put("data_seed", -1),
    "no parameters": put("num_parameters", 0),
    "half a parameter": put("num_parameters", 1.5),
    "a number too long to print": put("num_parameters", 10**400),
    "seconds below 0": put("wall_seconds", -1.0),
    "seconds infinite": put("wall_seconds", math.inf),
    "seconds a text": put("wall_seconds", "60"),
    "speed null": put("train_images_per_second", None),
    "command a number": put("command", 3),
    "device null": put("device", None),
    "versions a list": put("versions", []),
    "a version a number": put("versions", "jax", 1),
    "commit a number": lambda contents: contents.update(commit=3),
    "digest a number": lambda contents: contents.update(best_digest=3),
    "digest a word": lambda contents: contents.update(best_digest="abc"),
    **{f"no {name}": (lambda contents, name=name: contents.pop(name)) for name in GOOD
       if name not in LATER},
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_results_json_is_refused_in_one_line_and_nothing_written(tmp_path, capfd, edit):
    contents, run = copy.deepcopy(GOOD), tmp_path / "a" / "b" / "run"
    edit(contents)
    run.mkdir(parents=True)
    (run / "results.json").write_text(json.dumps(contents))
    with pytest.raises(InputError, match=r"results\.json is (not a run's results|damaged) ") as refused:
        reading.read(run)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    helpers.assert_refused(
        capfd, tmp_path, lambda *argv: helpers.call(report.main, *argv), run, "--output", tmp_path / "a" / "out",
        says="results.json",
    )  # fmt: skip


def test_what_a_test_of_another_setting_would_count_is_refused(tmp_path):
    """mnist_5k has 1,000 upright test digits, 5,000 with rotated copies."""
    for setting, images in ((1, 500), (3, 100)):
        contents = helpers.cell("lenet", setting, accuracy=(1.0,) * 3, failed=())
        contents["confusion"] = [[[images * (i == j) for j in range(10)] for i in range(10)]] * 3
        (tmp_path / "results.json").write_text(json.dumps(contents))
        with pytest.raises(InputError, match=f"setting {setting} has"):
            reading.read(tmp_path)


def test_what_is_right_is_read_as_it_is(tmp_path):
    nan_loss = helpers.cell("lenet", failed=(2,)) | {"train_loss": [[1.0, 0.5], [1.0, 0.5], [None, None]]}
    nan_loss |= {"validation_curve": [[0.5, 0.5]] * 3, "validation_accuracy": [0.5] * 3}
    one_seed = helpers.cell("lenet", accuracy=(0.9,), seeds=(7,), failed=())
    all_failed = helpers.cell("lenet", failed=(0, 1, 2))
    cases = [GOOD, GOOD | {"best_digest": "0" * 64}, nan_loss, one_seed, all_failed]
    for contents in cases:
        (tmp_path / "results.json").write_text(json.dumps(contents))
        assert reading.read(tmp_path) == contents
    old = {name: v for name, v in GOOD.items() if name not in LATER}
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert reading.read(tmp_path) == GOOD


def table(seeds, upright, dataset=None, digest=None):
    head = "seed,angle,accuracy" + (",dataset,best_digest" if digest else "")
    more = f",{dataset},{digest}" if digest else ""
    rows = [f"{seed},{angle},{value}{more}" for seed, up in zip(seeds, upright, strict=True)
            for angle, value in ((0, up), (90, 0.2))]  # fmt: skip
    return "\n".join([head, *rows, ""])


OWN, RIGHT = "1" * 64, (0.9, 0.8, 0.1)
TABLES = {  # digest in results.json, the table, whether it is the run's
    "its own": (OWN, table((0, 1, 2), RIGHT, "mnist_5k", OWN), True),
    "its own, another machine": (OWN, table((0, 1, 2), (0.9, 0.79, 0.12), "mnist_5k", OWN), True),
    "of another best": (OWN, table((0, 1, 2), RIGHT, "mnist_5k", "2" * 64), False),
    "of other data": (OWN, table((0, 1, 2), RIGHT, "fashion_mnist", OWN), False),
    "two runs' rows": (OWN, table((0, 1, 2), RIGHT, "mnist_5k", OWN).replace(OWN, "2" * 64, 1), False),
    "of no digest": (OWN, table((0, 1, 2), RIGHT), False),
    "of more seeds": (OWN, table((0, 1, 2, 3), (*RIGHT, 0.9), "mnist_5k", OWN), False),
    "of fewer seeds": (OWN, table((0, 1), RIGHT[:2], "mnist_5k", OWN), False),
    "of other seeds": (OWN, table((0, 1, 7), RIGHT, "mnist_5k", OWN), False),
    "of before there were digests": (None, table((0, 1, 2), RIGHT), True),
    "of before, another network's": (None, table((0, 1, 2), (0.9, 0.85, 0.1)), False),
    "of a digest, results of before": (None, table((0, 1, 2), RIGHT, "mnist_5k", OWN), False),
}


@pytest.mark.parametrize(("digest", "text", "fits"), TABLES.values(), ids=TABLES)
def test_a_table_of_angles_is_believed_of_its_own_run_only(tmp_path, digest, text, fits):
    contents = GOOD | ({"best_digest": digest} if digest else {})
    (tmp_path / "angles.csv").write_text(text)
    if fits:
        angles, accuracy = reading.read_angles(tmp_path, contents)
        assert angles.tolist() == [0, 90]
        assert accuracy.shape == (3, 2)
    else:
        with pytest.raises(InputError, match=r"angles\.csv"):
            reading.read_angles(tmp_path, contents)
