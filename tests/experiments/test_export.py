"""One seed of a run becomes files: the seed with the best validation accuracy, unless another is asked for."""

import json
import shutil

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx

import fconv_jax
from experiments import export
from experiments.reporting import exporting
from experiments.rules import InputError
from experiments.runs.best import Evaluator
from experiments.settings import DATASETS, EXPORT_FORMATS, PREPROCESSING
from tests.experiments import helpers

pytestmark = pytest.mark.unoptimized  # a network is compared with itself


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


def test_a_seed_is_exported_to_onnx_and_stablehlo(finished, tmp_path):
    file, program = tmp_path / "net.onnx", tmp_path / "net.stablehlo"
    assert helpers.call(export.main, finished, "--format", "onnx", "--output", file, "--seed", 3) == 0
    assert helpers.call(export.main, finished, "--format", "stablehlo", "--output", program, "--seed", 3) == 0
    evaluator = Evaluator(finished)
    images = np.random.default_rng(0).uniform(size=(2, 28, 28, 1)).astype(np.float32)
    expected = evaluator.model(evaluator.config.seeds.index(3))(images)
    logits = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    exported = jax.export.deserialize(bytearray(program.read_bytes()))
    np.testing.assert_allclose(exported.call(images), expected, rtol=1e-5, atol=1e-5)
    told = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(told["source"])["seed"] == 3
    assert json.loads(told["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(told["preprocessing"])["kind"] == "digit"


def test_a_network_that_ships_is_exported(tmp_path, capfd):
    name, file = "lenet_fconv_invariant_mnist_5k", tmp_path / "net.onnx"
    assert helpers.call(export.main, name, "--format", "onnx", "--output", file) == 0
    assert "setting4" in onnx.load(file).metadata_props.__str__()
    for more, says in (((file,), "exists"), ((tmp_path / "x", "--seed", "0"), "is one network")):
        helpers.assert_refused(
            capfd, tmp_path, helpers.call, export.main, name, "--format", "onnx", "--output", *more, says=says
        )
    folder = fconv_jax.pretrained._SHIPPED / "setting4_lenet_fconv_invariant_mnist_5k"
    shutil.copytree(folder, tmp_path / "changed")
    (tmp_path / "changed" / "model.safetensors").write_bytes(b"changed")
    words = (export.main, tmp_path / "changed", "--format", "onnx", "--output", tmp_path / "z")
    helpers.assert_refused(capfd, tmp_path, helpers.call, *words, says="does not have its checksum")
    words = (export.main, "nope", "--format", "onnx", "--output", tmp_path / "z")
    helpers.assert_refused(capfd, tmp_path, helpers.call, *words, says="must be a folder of save_pretrained, or one of")
    words = (export.main, name, "--format", "stablehlo", "--output", tmp_path / "no" / "where")
    helpers.assert_refused(capfd, tmp_path, helpers.call, *words, says="cannot be written")
    words = (export.main, name, "--format", "safetensors", "--output", tmp_path / "y")
    helpers.assert_refused(capfd, tmp_path, helpers.call, *words, says="copy it")


def test_a_network_for_any_size_needs_one_in_a_file(tmp_path, capfd):
    options = {"depth": 1, "width": 1, "group": 4}
    model = fconv_jax.models.create("unet_fconv", rngs=nnx.Rngs(0), **options)
    fconv_jax.save_pretrained(model, tmp_path / "net", config={"model": "unet_fconv", "options": options}, card="c")
    words = (export.main, tmp_path / "net", "--format", "onnx", "--output", tmp_path / "net.onnx")
    helpers.assert_refused(capfd, tmp_path, helpers.call, *words, says="give --size")
    assert helpers.call(*words, "--size", 12) == 0
    (images,) = onnxruntime.InferenceSession(str(tmp_path / "net.onnx")).get_inputs()
    assert images.shape[1:] == [12, 12, 1]
    name = "lenet_fconv_invariant_mnist_5k"  # of one size
    words = (export.main, name, "--format", "onnx", "--output", tmp_path / "x.onnx", "--size", 20)
    helpers.assert_refused(capfd, tmp_path, helpers.call, *words, says="is for onnx and stablehlo files")


def test_a_folder_with_the_name_of_a_network_that_ships(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(finished, tmp_path / "setting1_lenet_mnist_5k") == 0
    for word, own in (("setting1_lenet_mnist_5k", False), ("./setting1_lenet_mnist_5k", True)):
        file = tmp_path / f"{own}.onnx"
        assert helpers.call(export.main, word, "--format", "onnx", "--output", file) == 0
        told = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        assert (json.loads(told["source"])["seeds"] == [0, 3]) == own


def test_a_network_of_the_programs_alone(tmp_path):
    with pytest.raises(InputError, match=r"is no network of fconv_jax\.models: --format onnx or"):
        exporting._safetensors(None, tmp_path / "out", {"model": "experiments.training.stacks:stack"}, "card", ())


def test_rotated_images_are_called_so_whatever_the_setting():
    source = {"dataset": "mnist_rot_like", "setting": 1, "precision": "float32", "seed": 0, "seeds": [0], "run": "r"}
    source |= {"chosen": "c", "best_epoch": 1, "test_accuracy": 0.9, "validation_accuracy": 0.9, "best_digest": "d"}
    config = {"model": "lenet", "preprocessing": {"text": "t"}, "source": source | {"trained": "c"}}
    card = exporting._card(config, {"mean": 0.9, "std": None})
    assert "trained on rotated images, validated and tested on rotated ones" in card


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
    shutil.copytree(finished, tmp_path / "killed")  # between best/ and results.json
    (tmp_path / "killed" / "results.json").unlink()
    shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "best")
    for arguments, says in [
        ((tmp_path / "none", tmp_path / "out"), "no finished run"),
        ((tmp_path / "killed", tmp_path / "out"), "is not finished: experiments.run --resume finishes it"),
        ((tmp_path / "copy", tmp_path / "out"), "it has a run's numbers only; name the run's own folder"),
        ((finished, tmp_path / "out", "--seed", 7), "has the seeds 0, 3, not 7"),
        ((finished, tmp_path / "out", "--seed", -1), "at least 0"),
        ((finished, tmp_path / "there"), "exists"),
        ((finished, tmp_path / "out", "--format", "pickle"), "choose from safetensors, onnx, stablehlo"),
    ]:
        helpers.assert_refused(capfd, tmp_path, run, *arguments, says=says)
