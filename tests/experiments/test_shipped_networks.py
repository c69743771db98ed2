"""The trained networks in checkpoints/ and, one seed of each, in the package: what their cards say, and invariant."""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from experiments import data, export
from experiments.runs.best import rotated
from tests.experiments import helpers

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "checkpoints").glob("setting*_lenet_fconv_invariant_mnist_5k"))
MARKS = [(), pytest.mark.long, pytest.mark.slow, pytest.mark.long]  # setting 3 has angles too; 2 and 4 only what 1 has
PARAMETERS = [pytest.param(path, id=path.name[:8], marks=marks) for path, marks in zip(SHIPPED, MARKS, strict=True)]
EXACT = 1e-5  # of the largest logit: the order of float32 sums
# Another machine's sums may move a digit or two of 1,000 over the border between two classes.
TWO_DIGITS = 0.002


@pytest.fixture(scope="module")
def folder_of_data(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def digits(folder_of_data, setting):
    """The test images and labels of a setting."""
    test = data.load("mnist_5k", setting, data_dir=folder_of_data, splits=("test",))["test"]
    return test.images, test.labels


def compiled(folder):
    """The packaged seed's logits of uint8 images; parameters are arguments: constants would be folded, slowly."""
    graph, state = nnx.split(fconv_jax.from_pretrained(folder.name))
    run = jax.jit(lambda state, images: nnx.merge(graph, state)(images.astype(jnp.float32) / 255))
    return lambda images: run(state, images)


def accuracy(logits, images, labels):
    found = np.concatenate([np.argmax(logits(images[i : i + 250]), -1) for i in range(0, len(labels), 250)])
    return float(np.mean(found == labels))


def test_all_four_settings_are_shipped():
    assert [path.name[:8] for path in SHIPPED] == ["setting1", "setting2", "setting3", "setting4"]
    assert (SHIPPED[2] / "angles.csv").exists()  # trained upright, tested rotated: over all angles


@pytest.mark.parametrize("folder", PARAMETERS)
def test_a_shipped_network_repeats_its_figures(folder, folder_of_data):
    logits = compiled(folder)
    results = json.loads((folder / "results.json").read_text())
    assert f"setting{results['setting']}" == folder.name[:8]
    source = fconv_jax.pretrained.read_config(folder.name)["source"]
    row = results["seeds"].index(source["seed"])
    assert results["validation_accuracy"][row] == max(results["validation_accuracy"])
    headline = accuracy(logits, *digits(folder_of_data, results["setting"]))
    assert abs(headline - results["test_accuracy"][row]) <= TWO_DIGITS
    images, labels = digits(folder_of_data, 1)
    if (folder / "angles.csv").exists():
        with (folder / "angles.csv").open() as file:
            found = {(row["seed"], row["angle"]): float(row["accuracy"]) for row in csv.DictReader(file)}
        upright, seed = accuracy(logits, images, labels), str(results["seeds"][row])
        assert abs(upright - found[seed, "0"]) <= TWO_DIGITS
        assert abs(accuracy(logits, rotated(images, 45), labels) - found[seed, "45"]) <= TWO_DIGITS


def test_the_plain_network_repeats_the_figures_in_results(folder_of_data):
    """It ships without checkpoints: beside the invariant ones, to be compared with them."""
    folder = ROOT / "results" / "mnist_5k" / "setting1_lenet"
    source = fconv_jax.pretrained.read_config("setting1_lenet_mnist_5k")["source"]
    results = json.loads((folder / "results.json").read_text())
    row = results["seeds"].index(source["seed"])
    assert results["validation_accuracy"][row] == max(results["validation_accuracy"])
    logits = compiled(Path("setting1_lenet_mnist_5k"))
    images, labels = digits(folder_of_data, 1)
    assert abs(accuracy(logits, images, labels) - results["test_accuracy"][row]) <= TWO_DIGITS
    with (folder / "angles.csv").open() as file:
        found = {(row["seed"], row["angle"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    at_45 = accuracy(logits, rotated(images, 45), labels)
    assert abs(at_45 - found[str(source["seed"]), "45"]) <= TWO_DIGITS
    assert at_45 < 0.5  # the reason for the others


@pytest.mark.parametrize("folder", PARAMETERS)
def test_the_packaged_weights_are_the_checkpoints(folder, tmp_path, capsys):
    """The same bytes, the card's too: what is in the package was made by this command, and can be made again."""
    arguments = [folder, "--format", "safetensors", "--output", tmp_path / "made"]
    assert helpers.call(export.main, *arguments) == 0
    assert "saved seed" in capsys.readouterr().out
    packaged = Path(fconv_jax.__file__).parent / "weights" / folder.name
    assert helpers.tree(tmp_path / "made") == helpers.tree(packaged)


@pytest.mark.parametrize("folder", PARAMETERS)
def test_a_shipped_network_is_invariant(folder, folder_of_data):
    logits = compiled(folder)
    images = digits(folder_of_data, 1)[0][::50]
    expected = logits(images)
    for quarters in (1, 2, 3):
        found = logits(np.rot90(images, quarters, axes=(1, 2)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT * float(jnp.abs(expected).max()))
