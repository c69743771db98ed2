"""The trained networks in the package: the seeds that their cards say, their figures, and invariant."""

import csv
import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from experiments import data, export
from experiments.data import Split
from experiments.runs import best
from experiments.runs.best import Evaluator, rotated
from tests.experiments import helpers, small_digits

ROOT = Path(__file__).parents[2]
WEIGHTS = Path(fconv_jax.__file__).parent / "weights"
HEADLINE = ROOT / "checkpoints" / "setting3_lenet_fconv_invariant_mnist_5k"
NETWORKS = sorted(path.name for path in WEIGHTS.iterdir())
# Those of setting 3 have angles too; what the others would show, they show.
MARKS = {"setting1_lenet_mnist_5k": (), "setting1_lenet_fconv_mnist": (), HEADLINE.name: pytest.mark.slow}
PARAMETERS = [pytest.param(name, marks=MARKS.get(name, pytest.mark.long)) for name in NETWORKS]
FIGURES = [pytest.param(name, marks=() if MARKS.get(name) == () else pytest.mark.long) for name in NETWORKS]
INVARIANT = [parameter for parameter in PARAMETERS if "invariant" in parameter.values[0]]
EXACT = 1e-5  # of the largest logit: the order of float32 sums
# Another machine's sums may move a digit or two of 1,000 over the border between two classes.
TWO_DIGITS = 0.002
READS_DIGITS = 0.95  # MNIST's test digits are not in the repository; those of mnist_5k are MNIST's training digits


@pytest.fixture(scope="module")
def folder_of_data(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def digits(folder_of_data, setting):
    """The test images and labels of a setting."""
    test = data.load("mnist_5k", setting, data_dir=folder_of_data, splits=("test",))["test"]
    return test.images, test.labels


def compiled(name):
    """The packaged seed's logits of uint8 images; parameters are arguments: constants would be folded, slowly."""
    graph, state = nnx.split(fconv_jax.from_pretrained(name))
    run = jax.jit(lambda state, images: nnx.merge(graph, state)(images.astype(jnp.float32) / 255))
    return lambda images: run(state, images)


def accuracy(logits, images, labels):
    found = np.concatenate([np.argmax(logits(images[i : i + 250]), -1) for i in range(0, len(labels), 250)])
    return float(np.mean(found == labels))


def results_of(source):
    """The folder of what this project measured of a packaged network's run."""
    run, dataset = source["run"], source["dataset"]
    return ROOT / "results" / dataset / run.removesuffix(f"_{dataset}")


def test_the_rows_that_readme_shows_are_packaged():
    invariant = {f"setting{n}_lenet_fconv_invariant_mnist_5k" for n in (1, 2, 3, 4)}
    plain = {f"setting1_{model}_mnist_5k" for model in ("lenet", "lenet_fconv")}
    assert invariant | plain <= set(NETWORKS)
    shipped = {f"setting{setting}_lenet_fconv_invariant_mnist" for setting in (1, 3, 4)} | {HEADLINE.name}
    assert {path.parent.name for path in HEADLINE.parent.glob("setting*/best")} == shipped


@pytest.mark.parametrize("name", NETWORKS)
def test_a_packaged_network_is_the_seed_with_the_best_validation_accuracy(name):
    source = fconv_jax.pretrained.read_config(name)["source"]
    results = json.loads((results_of(source) / "results.json").read_text())
    row = results["seeds"].index(source["seed"])
    assert source["run"] == name == f"setting{results['setting']}_{results['model']}_{results['dataset']}"
    assert results["validation_accuracy"][row] == max(results["validation_accuracy"]) == source["validation_accuracy"]
    assert abs(results["test_accuracy"][row] - source["test_accuracy"]) <= TWO_DIGITS
    if "best_digest" in results:  # the same run; the LeNets on mnist_5k were trained again to be packaged
        assert results["best_digest"] == source["best_digest"]
        assert results["test_accuracy"][row] == source["test_accuracy"]
        assert results["best_epoch"][row] == source["best_epoch"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_packaged_network_repeats_its_figures(name, folder_of_data):
    logits = compiled(name)
    source = fconv_jax.pretrained.read_config(name)["source"]
    if source["dataset"] == "mnist":
        assert accuracy(logits, *digits(folder_of_data, 1)) > READS_DIGITS
        return
    headline = accuracy(logits, *digits(folder_of_data, source["setting"]))
    assert abs(headline - source["test_accuracy"]) <= TWO_DIGITS


def measured(source):
    """The accuracy at each angle (a text) of a packaged network's seed."""
    with (results_of(source) / "angles.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == str(source["seed"])]
    return {row["angle"]: float(row["accuracy"]) for row in rows}


@pytest.mark.slow
def test_the_headlines_network_repeats_its_accuracy_on_upright_digits(folder_of_data):
    """A fifth of its figure's digits, those that are not rotated: the others are in the test above."""
    upright = measured(fconv_jax.pretrained.read_config(HEADLINE.name)["source"])["0"]
    assert abs(accuracy(compiled(HEADLINE.name), *digits(folder_of_data, 1)) - upright) <= TWO_DIGITS


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_a_packaged_network_repeats_its_angles(name, folder_of_data):
    logits, source = compiled(name), fconv_jax.pretrained.read_config(name)["source"]
    if source["dataset"] == "mnist" or not (results_of(source) / "angles.csv").exists():
        pytest.skip("its test digits, or its angles, are not here")
    (images, labels), found = digits(folder_of_data, 1), measured(source)
    assert abs(accuracy(logits, images, labels) - found["0"]) <= TWO_DIGITS
    at_45 = accuracy(logits, rotated(images, 45), labels)
    assert abs(at_45 - found["45"]) <= TWO_DIGITS
    assert (at_45 < 0.5) == ("invariant" not in name)  # the reason for the others


@pytest.mark.slow
def test_the_packaged_weights_are_the_checkpoints(tmp_path, capsys):
    """The same bytes, the card's too: what is in the package was made by this command, and can be made again."""
    arguments = [HEADLINE, "--format", "safetensors", "--output", tmp_path / "made"]
    assert helpers.call(export.main, *arguments) == 0
    assert "saved seed" in capsys.readouterr().out
    assert helpers.tree(tmp_path / "made") == helpers.tree(WEIGHTS / HEADLINE.name)


@pytest.mark.parametrize("name", INVARIANT)
def test_an_invariant_network_is_invariant(name, folder_of_data):
    logits = compiled(name)
    images = digits(folder_of_data, 1)[0][::50]
    expected = logits(images)
    for quarters in (1, 2, 3):
        found = logits(np.rot90(images, quarters, axes=(1, 2)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT * float(jnp.abs(expected).max()))


@pytest.mark.slow
@pytest.mark.unoptimized  # equal whatever the order of sums
def test_angles_that_differ_by_quarter_turns_are_tested_once(folder_of_data, monkeypatch):
    evaluator = Evaluator(HEADLINE)
    evaluator.programs.layout = dataclasses.replace(evaluator.programs.layout, eval_size=10)  # at a time
    test = data.load("mnist_5k", 1, data_dir=folder_of_data, splits=("test",))["test"]
    some = Split(test.images[::100], test.labels[::100], test.angles[::100])
    at = [Split(rotated(some.images, angle), some.labels, some.angles) for angle in (-60, 0, 30, 120)]
    counts = [evaluator.confusion(split) for split in at]
    expected = np.stack([np.trace(count, axis1=1, axis2=2) / len(some.labels) for count in counts], axis=1)
    tested = []
    monkeypatch.setattr(best, "rotated", lambda images, angle: tested.append(angle) or rotated(images, angle))
    np.testing.assert_array_equal(evaluator.accuracy_by_angle(some, [-60, 0, 30, 120]), expected)
    assert [angle for angle in tested if angle in (-60, 0, 120)] == [-60, 0]


@pytest.mark.unoptimized
def test_half_precision_is_tested_at_all_angles(monkeypatch):
    evaluator = Evaluator(HEADLINE)
    monkeypatch.setattr(best, "equivariance_error", lambda *_: 0.0)
    assert evaluator._is_blind_to_quarter_turns(np.zeros((32, 28, 28, 1), np.uint8))
    evaluator.config = dataclasses.replace(evaluator.config, precision="bfloat16")
    assert not evaluator._is_blind_to_quarter_turns(np.zeros((32, 28, 28, 1), np.uint8))


def test_all_angles_of_a_plain_network_are_tested(synthetic, finished, monkeypatch):
    tested = []
    monkeypatch.setattr(best, "rotated", lambda images, angle: tested.append(angle) or rotated(images, angle))
    Evaluator(finished).accuracy_by_angle(small_digits.split("test", False), [-180, -90, 0, 180])
    assert {-180, -90, 0} <= set(tested)
    assert 180 not in tested
