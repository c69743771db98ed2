"""experiments.evaluate: the run's own test again, other settings, other data, one angle after another."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from experiments.data import Split
from experiments.data.rotation import rotate_each, uniform_angles
from experiments.reporting import evaluation
from experiments.rules import InputError
from experiments.runs import reading
from experiments.runs.best import Evaluator, write_best
from experiments.runs.reading import read_uniform
from experiments.training.network import num_parameters
from tests.experiments import helpers, small_digits

pytestmark = pytest.mark.unoptimized  # evaluations are compared with the run's own


@pytest.fixture
def own(finished, tmp_path):
    """The finished run, with nothing but what evaluate may need."""
    shutil.copytree(finished / "best", tmp_path / "run" / "best")
    return tmp_path / "run"


def test_repeats_the_runs_test_from_its_best_folder_alone(synthetic, own, finished):
    before = helpers.tree(own)
    assert helpers.evaluate(own) == 0
    evaluated, results = json.loads((own / "evaluation.json").read_text()), helpers.numbers(finished)
    for name in ("model", "setting", "dataset", "seeds", "best_epoch", "test_accuracy", "per_class_accuracy",
                 "confusion", "mean_all", "data_seed"):  # fmt: skip
        assert (
            evaluated[name] == pytest.approx(results[name], rel=1e-12)
            if name == "mean_all"
            else (evaluated[name] == results[name])
        ), name
    after = helpers.tree(own)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"evaluation.json"}


def test_other_test_images_than_the_runs_are_said(synthetic, own, finished, monkeypatch, capsys):
    shutil.copy(finished / "results.json", own)
    assert helpers.evaluate(own) == 0
    assert "another accuracy" not in capsys.readouterr().out
    load = evaluation.data.load

    def other(*args, **options):
        return {
            name: dataclasses.replace(split, images=255 - split.images)
            for name, split in load(*args, **options).items()
        }

    monkeypatch.setattr(evaluation.data, "load", other)
    assert helpers.evaluate(own, "--setting", 3) == 0  # no run's own test
    assert "another accuracy" not in capsys.readouterr().out
    assert helpers.evaluate(own) == 0
    assert "the run itself found another accuracy" in capsys.readouterr().out


def test_another_setting_and_every_angle_elsewhere(synthetic, own, tmp_path):
    before, output = helpers.tree(own), tmp_path / "new" / "out"
    assert helpers.evaluate(own, "--setting", 3, "--angles", "--output", output) == 0
    assert helpers.tree(own) == before
    assert sorted(path.name for path in output.iterdir()) == ["angles.csv", "angles.png", "evaluation.json"]
    evaluated = json.loads((output / "evaluation.json").read_text())
    assert (evaluated["setting"], evaluated["trained_on"]["setting"]) == (3, 1)
    assert np.sum(evaluated["confusion"]) == 2 * 5 * small_digits.SIZES["test"]
    angles, accuracy = evaluated["angles"]["angle"], np.asarray(evaluated["angles"]["accuracy"])
    assert angles == list(range(-180, 181, 15))
    assert accuracy.shape == (2, 25)
    np.testing.assert_array_equal(accuracy[:, 0], accuracy[:, -1])  # -180 and 180 degrees
    upright = Evaluator(own).confusion(small_digits.split("test", False))
    own_accuracy = np.trace(upright, axis1=1, axis2=2) / small_digits.SIZES["test"]
    np.testing.assert_array_equal(accuracy[:, angles.index(0)], own_accuracy)
    rows = list(csv.DictReader((output / "angles.csv").read_text().splitlines()))
    assert len(rows) == 50
    assert rows[30]["seed"] == "3"
    assert rows[30]["angle"] == "-105"
    assert float(rows[30]["accuracy"]) == pytest.approx(accuracy[1, 5], rel=1e-5)
    assert (output / "angles.png").read_bytes().startswith(b"\x89PNG")


def test_each_image_rotated_by_its_own_angle(synthetic, own, tmp_path, capsys):
    assert helpers.evaluate(own, "--setting", 3, "--angles", "--angle-step", 90, "--uniform", "--output", tmp_path) == 0
    written = capsys.readouterr().out
    assert "bilinear" in written
    evaluated = json.loads((tmp_path / "evaluation.json").read_text())
    whose = {"best_digest": evaluated["best_digest"]}
    assert evaluated["angles"]["angle"] == [-180, -90, 0, 90, 180]
    assert evaluated["uniform"]["angle_seeds"] == [0, 1, 2]
    test = small_digits.split("test", False)
    images = rotate_each(test.images[..., 0], uniform_angles(1, len(test.labels)), order=1)[..., None]
    counts = Evaluator(own).confusion(Split(images, test.labels, test.angles))
    expected = np.trace(counts, axis1=1, axis2=2) / len(test.labels)
    assert evaluated["uniform"]["accuracy"]["bilinear"][1] == expected.tolist()
    assert evaluated["uniform"]["accuracy"]["cubic"] != evaluated["uniform"]["accuracy"]["bilinear"]
    assert "uniform.csv" in written
    found = read_uniform(tmp_path, {"seeds": evaluated["seeds"], "dataset": "mnist_5k", **whose})
    np.testing.assert_allclose(found["bilinear"][:, 1], expected, atol=1e-6)
    with pytest.raises(InputError, match="not made from this run"):
        read_uniform(tmp_path, {"seeds": evaluated["seeds"], "dataset": "mnist_5k", "best_digest": "0" * 64})
    with pytest.raises(InputError, match="every seed"):
        read_uniform(tmp_path, {"seeds": [0], "dataset": "mnist_5k", **whose})


def test_seeds_that_failed_are_in_no_mean(synthetic, own, monkeypatch, capsys):
    results = {"failed_seeds": [3], "num_parameters": num_parameters(Evaluator(own).network), "test_accuracy": [0, 0]}
    monkeypatch.setattr(reading, "check_run", lambda run: results)
    assert helpers.evaluate(own, "--angles", "--angle-step", 90, "--uniform") == 0
    evaluated, said = json.loads((own / "evaluation.json").read_text()), capsys.readouterr().out
    good, failed = evaluated["test_accuracy"]
    assert good != failed
    assert (evaluated["failed_seeds"], evaluated["mean"], evaluated["mean_all"]) == ([3], good, (good + failed) / 2)
    assert f"{evaluated['angles']['accuracy'][0][2]:.4f}" in said.partition("accuracy against the angle")[2]
    uniform = said.partition("angles uniform over the circle")[2]
    assert f"{evaluated['uniform']['accuracy']['bilinear'][1][0]:.4f}" in uniform


@pytest.mark.parametrize("failed", [[3], [0, 3]])
def test_best_alone_knows_which_seeds_failed(synthetic, own, tmp_path, failed):
    """As a run leaves it that was killed before its results were written."""
    run = Evaluator(own)
    write_best(tmp_path / "new", run.config, run.network, run.programs.unpad(run.arrays), run.best_epoch, failed)
    assert helpers.evaluate(tmp_path / "new") == 0
    evaluated = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert evaluated["failed_seeds"] == failed
    assert evaluated["mean"] == (evaluated["test_accuracy"][0] if failed == [3] else None)
    assert evaluated["mean_all"] == pytest.approx(np.mean(evaluated["test_accuracy"]))


def test_a_folder_with_the_numbers_of_another_run_is_refused(synthetic, own, tmp_path, capfd):
    (tmp_path / "evaluation.json").write_text(json.dumps({"best_digest": "0" * 64}))
    helpers.assert_refused(capfd, tmp_path, helpers.evaluate, own, "--output", tmp_path, says="is of another run")


def test_a_second_evaluation_keeps_what_the_first_measured(synthetic, own):
    assert helpers.evaluate(own, "--angles", "--angle-step", 90) == 0
    first = json.loads((own / "evaluation.json").read_text())
    assert helpers.evaluate(own, "--uniform") == 0
    both = json.loads((own / "evaluation.json").read_text())
    assert both["angles"] == {"command": first["command"], "device": first["device"], **first["angles"]}
    assert "uniform" in both
    (own / "evaluation.json").write_text(json.dumps(first | {"best_digest": "0" * 64}))  # another network's
    assert helpers.evaluate(own) == 0
    assert "angles" not in json.loads((own / "evaluation.json").read_text())


def test_angles_of_other_data_are_not_kept_beside_a_second_evaluation(synthetic, own, tmp_path):
    output = tmp_path / "out"
    assert helpers.evaluate(own, "--angles", "--angle-step", 90, "--output", output) == 0
    assert "angles" in json.loads((output / "evaluation.json").read_text())
    assert helpers.evaluate(own, "--setting", 3, "--output", output) == 0
    assert "angles" not in json.loads((output / "evaluation.json").read_text())


def test_images_that_are_rotated_already(synthetic, own, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(evaluation, "resolve", lambda *_: "mnist_rot_like")
    arguments = (own, "--dataset", "mnist_rot_like", "--output", tmp_path / "out")
    for option in ("--angles", "--uniform"):
        says = "--angles and --uniform need a data set of upright ones"
        helpers.assert_refused(capfd, tmp_path, helpers.evaluate, *arguments, option, says=says)
    assert helpers.evaluate(*arguments) == 0
    assert "are among those of mnist_5k that trained the network" in capfd.readouterr().out
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["overlaps_training"] is True
    monkeypatch.setattr(evaluation, "resolve", lambda *_: "mnist_5k")
    assert helpers.evaluate(own) == 0
    assert json.loads((own / "evaluation.json").read_text())["overlaps_training"] is False


@pytest.mark.parametrize(
    ("trained", "tested", "expected"),
    [
        ("mnist", "mnist", False), ("mnist", "mnist_5k", True), ("mnist_5k", "mnist", False),
        ("mnist_rot_like", "mnist", True), ("mnist_5k", "mnist_rot", True), ("mnist", "fashion_mnist", False),
    ],
)  # fmt: skip
def test_which_digits_train_a_network_and_test_another(trained, tested, expected):
    assert evaluation.overlap(trained, tested) == expected


def test_a_place_that_cannot_be_written_is_found_before_the_work(own, tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(evaluation.data, "load", lambda *args, **more: pytest.fail("data were loaded"))
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        arguments = (own, "--angles", "--output", output)
        helpers.assert_refused(capfd, tmp_path, helpers.evaluate, *arguments, says="cannot be written")


def test_a_number_of_parameters_that_the_network_does_not_have_is_refused(own, finished, tmp_path, capfd):
    results = json.loads((finished / "results.json").read_text())
    (own / "results.json").write_text(json.dumps(results | {"num_parameters": 1}))
    says = f"num_parameters is 1 in results.json, but the network has {results['num_parameters']}"
    helpers.assert_refused(capfd, tmp_path, helpers.evaluate, own, says=says)


def test_a_step_that_does_not_divide_half_a_turn_is_refused(own, tmp_path, capfd):
    helpers.assert_refused(
        capfd, tmp_path, helpers.evaluate, own, "--angle-step", 5, says="--angle-step is of --angles"
    )
    arguments = (own, "--angles", "--angle-step", 7)
    helpers.assert_refused(capfd, tmp_path, helpers.evaluate, *arguments, says="--angle-step: invalid choice: '7'")
