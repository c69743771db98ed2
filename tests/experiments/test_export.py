"""One seed of a run becomes files: the seed with the best validation accuracy, unless another is asked for."""

import json

import numpy as np
import pytest

import fconv_jax
from experiments import export
from experiments.reporting import exporting
from experiments.runs.best import Evaluator
from experiments.settings import DATASETS, EXPORT_FORMATS, PREPROCESSING
from tests.experiments import helpers


def run(folder, output, *more):
    return helpers.call(export.main, folder, "--format", "safetensors", "--output", output, *more)


def test_every_format_has_a_writer_and_every_data_set_an_input():
    assert exporting._WRITERS.keys() == EXPORT_FORMATS.keys()
    assert PREPROCESSING.keys() == DATASETS.keys()


@pytest.mark.parametrize("seed", [None, 0, 3])
def test_a_seed_is_exported_and_loaded(seed, finished, tmp_path):
    results = json.loads((finished / "results.json").read_text())
    best = results["seeds"][int(np.argmax(results["validation_accuracy"]))]
    assert run(finished, tmp_path / "out", *([] if seed is None else ["--seed", seed])) == 0
    source = fconv_jax.pretrained.read_config(tmp_path / "out")["source"]
    row = results["seeds"].index(best if seed is None else seed)
    assert source["seed"] == results["seeds"][row]
    assert source["chosen"] == ("the best validation accuracy" if seed is None else "asked for")
    assert source["test_accuracy"] == results["test_accuracy"][row]
    expected = Evaluator(finished).model(row).conv.kernel[...]
    np.testing.assert_array_equal(fconv_jax.from_pretrained(tmp_path / "out").conv.kernel[...], expected)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{results['test_accuracy'][row]:.4f}" in card
    assert "$" not in card


@pytest.mark.parametrize(
    ("results", "row"),
    [
        (None, 0),  # converted
        ({"seeds": [4, 5, 6], "failed_seeds": [], "validation_accuracy": [0.5, 0.7, 0.7]}, 1),
        ({"seeds": [4, 5, 6], "failed_seeds": [5], "validation_accuracy": [0.5, 0.7, 0.6]}, 2),
        ({"seeds": [4, 5], "failed_seeds": [4, 5], "validation_accuracy": [0.1, 0.15]}, 1),
    ],
)
def test_the_best_seed(results, row):
    assert exporting._best(results) == row


def test_bad_input(finished, tmp_path, capfd):
    (tmp_path / "there").mkdir()
    for arguments, says in [
        ((tmp_path / "none", tmp_path / "out"), "no finished run"),
        ((finished, tmp_path / "out", "--seed", 7), "has the seeds 0, 3, not 7"),
        ((finished, tmp_path / "out", "--seed", -1), "at least 0"),
        ((finished, tmp_path / "there"), "exists"),
        ((finished, tmp_path / "out", "--format", "pickle"), "choose from safetensors"),
    ]:
        helpers.assert_refused(capfd, tmp_path, run, *arguments, says=says)
