import json
import shutil
from argparse import Namespace

import pytest

from experiments import audit, data
from experiments.reporting import evaluation
from tests.experiments import helpers, small_digits

pytestmark = pytest.mark.unoptimized  # what breaks does so by far; the time goes into compiling


@pytest.fixture
def digits(monkeypatch):
    """The synthetic data in place of the embedded digits."""
    monkeypatch.setattr(data, "load", small_digits.load)


@pytest.mark.slow
def test_a_network_by_name(digits, tmp_path, capfd):
    out = tmp_path / "out"
    assert helpers.call(audit.main, "--model", "lenet_fconv", "--init", "he", "--output", out) == 0
    said = capfd.readouterr().out
    assert "flatten breaks quarter turns" in said
    assert f"saved in {out}/" in said
    contents = json.loads((out / "audit.json").read_text())
    assert contents["breaking"] == ["flatten"]
    assert [stage["name"] for stage in contents["stages"]][:3] == ["conv", "relu1", "pool"]
    assert contents["stages"][0]["free_errors"]["30.0"] is None  # eight rotations have none by 30 degrees
    assert (out / "audit.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_a_finished_run(digits, finished, tmp_path, capfd):
    finished_run = shutil.copytree(finished, tmp_path / "run")
    assert helpers.call(audit.main, finished_run) == 0
    assert "breaks quarter turns" in capfd.readouterr().out
    assert (finished_run / "audit.json").exists()
    assert helpers.call(audit.main, finished_run, "--output", finished_run / "config.json" / "below") == 2


def test_every_network_that_can_be_named_can_be_audited():
    title, model, _ = evaluation._model(Namespace(model="stack_c4", init=None))
    assert title == "stack_c4, initial weights (report)"
    assert model.conv1.group.num_rotations == 4


@pytest.mark.parametrize(
    "argv", [(), ("nowhere", "--model", "lenet"), ("nowhere",), ("nowhere", "--init", "he"), ("--model", "lenet5")]
)
def test_bad_arguments(tmp_path, argv, capfd):
    argv = [tmp_path / word if word == "nowhere" else word for word in argv]
    assert helpers.call(audit.main, *argv) == 2
    assert "error: " in capfd.readouterr().err
    assert not any(tmp_path.iterdir())
