"""A checkpoint of the PyTorch reference becomes a run's folder that evaluate loads."""

import json
import pathlib
import signal

import numpy as np
import pytest

from experiments import audit, convert, data, evaluate, export
from experiments.reporting import evaluation
from experiments.runs import best
from experiments.runs.best import Evaluator
from fconv_jax import fourier_basis, lifting_filter
from tests.experiments import helpers, small_digits

pytestmark = pytest.mark.unoptimized  # a network is compared with itself


@pytest.fixture
def checkpoint(tmp_path, goldens):
    """A `lenet_fconv` as the reference saves it, with its own basis."""
    rng = np.random.default_rng(0)
    state = {
        "conv1.weights": rng.normal(size=(2, 1, 1, 25)),
        "conv1.c": rng.normal(size=(1, 2, 1, 1)),
        "conv1.Basis": goldens("models")["basis_k5_t8_smooth"],
        "fc1.weight": rng.normal(size=(120, 2304)) / 48,
        "fc1.bias": rng.normal(size=120),
        "fc2.weight": rng.normal(size=(10, 120)) / 11,
        "fc2.bias": rng.normal(size=10),
    }
    path = tmp_path / "reference.npz"
    np.savez(path, **{name: value.astype(np.float32) for name, value in state.items()})
    return path


def test_converted_network_keeps_its_filters_and_is_evaluated(checkpoint, tmp_path, capsys):
    output = tmp_path / "run"
    assert convert.main([str(checkpoint), "--model", "lenet_fconv", "--output", str(output)]) == 0
    options = ["--dataset", "mnist_5k", "--data-dir", str(tmp_path / "data")]
    assert evaluate.main([str(output), *options]) == 0
    evaluation = json.loads((output / "evaluation.json").read_text())
    assert len(evaluation["test_accuracy"]) == 1
    assert evaluation["model"] == "lenet_fconv"
    exported = tmp_path / "exported"
    assert export.main([str(output), "--format", "safetensors", "--output", str(exported)]) == 0
    assert "trained elsewhere" in (exported / "README.md").read_text()

    arrays = Evaluator(output).arrays
    state = np.load(checkpoint)
    theirs = lifting_filter(state["conv1.weights"].transpose(2, 1, 0, 3)[0], state["conv1.Basis"])
    ours = lifting_filter(arrays["params"]["conv"]["coefficients"][0], fourier_basis(5, 8).values)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.slow
def test_a_converted_network_was_trained_elsewhere(checkpoint, tmp_path, monkeypatch, capsys):
    """No data set of ours, no setting, no epoch: nothing that is written or printed names one."""
    titles = []
    monkeypatch.setattr(evaluation, "plot_angles", lambda path, title, **_: titles.append(title))
    monkeypatch.setattr(evaluation, "plot_audit", lambda path, title, *_, **__: titles.append(title))
    monkeypatch.setattr(data, "load", small_digits.load)
    output = tmp_path / "run"
    assert convert.main([str(checkpoint), "--model", "lenet_fconv", "--output", str(output)]) == 0
    assert json.loads((output / "config.json").read_text()) == {"model": "lenet_fconv", "trained": "elsewhere"}
    assert helpers.call(evaluate.main, output, "--dataset", "mnist_5k", "--angles") == 0
    plain = json.loads((output / "evaluation.json").read_text())
    assert (plain["trained_on"], plain["overlaps_training"]) == ("elsewhere", None)
    assert helpers.call(evaluate.main, output, "--dataset", "mnist_5k", "--setting", 3) == 0  # not the first test
    assert json.loads((output / "evaluation.json").read_text()) == plain
    assert json.loads((output / "evaluation_mnist_5k_setting3.json").read_text())["setting"] == 3
    assert helpers.call(audit.main, output) == 0
    assert json.loads((output / "audit.json").read_text())["title"] == titles[1]
    assert titles == ["lenet_fconv, trained elsewhere; tested on mnist_5k", "lenet_fconv, trained elsewhere, seed 0"]
    assert "auto" not in capsys.readouterr().out


def test_there_is_no_training_to_resume(checkpoint, tmp_path, capfd):
    output = tmp_path / "run"
    assert convert.main([str(checkpoint), "--model", "lenet_fconv", "--output", str(output)]) == 0
    words = (*helpers.QUICK, "--output", output, "--resume")
    helpers.assert_refused(
        capfd,
        tmp_path,
        helpers.run,
        *words,
        says=f"error: {output} holds a network that was trained elsewhere: choose another --output",
    )


@pytest.mark.parametrize("there", ["nothing", "a folder", "a link"])
def test_a_conversion_that_is_interrupted_leaves_nothing(there, checkpoint, tmp_path, monkeypatch, capfd):
    def interrupted(*arguments):
        write_best(*arguments)
        signal.raise_signal(signal.SIGINT)

    write_best, own = best.write_best, tmp_path / "own"
    if there == "a folder":
        (tmp_path / "run").mkdir()
    elif there == "a link":
        own.mkdir()
        (tmp_path / "run").symlink_to(own)
    words = (checkpoint, "--model", "lenet_fconv", "--output", tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr(best, "write_best", interrupted)
        assert helpers.call(convert.main, *words) == 130
    assert "the same command starts again" in capfd.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    assert helpers.call(convert.main, *words) == 0
    assert Evaluator(tmp_path / "run").elsewhere


@pytest.mark.parametrize("case", ["missing", "text", "other model", "not empty", "nan"])
def test_what_does_not_fit_is_refused_and_nothing_written(case, checkpoint, tmp_path, capsys):
    output, model = tmp_path / "run", "lenet_fconv"
    if case == "missing":
        checkpoint = tmp_path / "absent.npz"
    elif case == "text":
        checkpoint.write_text("no checkpoint")
    elif case == "other model":
        model = "lenet"
    elif case == "not empty":
        output.mkdir()
        (output / "mine.txt").write_text("keep")
    else:
        state = dict(np.load(checkpoint))
        state["fc1.bias"][3] = np.nan
        np.savez(checkpoint, **state)
    before = sorted(pathlib.Path(tmp_path).rglob("*"))
    with pytest.raises(SystemExit) as stop:
        convert.main([str(checkpoint), "--model", model, "--output", str(output)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "error:" in error.splitlines()[-1]
    assert sorted(pathlib.Path(tmp_path).rglob("*")) == before
