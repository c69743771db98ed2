"""The ladder's command on a few digits."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from experiments import ladder, settings
from experiments.rules import InputError
from experiments.runs import ladder as runs_ladder
from tests.experiments import helpers


@pytest.fixture
def few_rungs(synthetic):
    """Two rungs and the plain network on the synthetic data."""
    rungs, rows = settings.RUNGS[:3], dict(settings.MODELS)
    for name, spec in rows.items():
        if spec.rung and spec.rung not in rungs:
            del settings.MODELS[name]
    yield rungs
    settings.MODELS.clear()  # rows put back one by one would stand at the end
    settings.MODELS.update(rows)


@pytest.mark.long  # twelve trainings; they are a sweep's, which has tests of its own, and so has the page
def test_the_command_trains_writes_the_page_and_keeps_what_there_is(few_rungs, tmp_path, capfd):
    argv = ("--model", "lenet_fconv", "--seeds", "0,1", "--epochs", "5", "--output", tmp_path)
    assert helpers.call(ladder.main, *argv) == 0
    file = tmp_path / "ladder" / "lenet_fconv.json"
    first = json.loads(file.read_text())
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # the runs' folders are gone
    assert list(first["rungs"]) == list(few_rungs)
    accuracy = first["rungs"]["as published"]["test_accuracy"]
    assert sorted(accuracy) == ["1", "2", "3", "4"]
    assert np.shape(accuracy["3"]) == (2,)
    page = (tmp_path / "why-fconv-lost.md").read_text()
    assert f"{np.mean(accuracy['3']):.3f}" in page
    assert "variance-preserving init" in page
    assert (tmp_path / "figures" / "ladder.png").read_bytes()[:4] == b"\x89PNG"
    capfd.readouterr()
    assert helpers.call(ladder.main, *argv) == 0  # nothing is trained twice
    assert json.loads(file.read_text()) == first
    assert "test accuracy" not in capfd.readouterr().out
    assert helpers.call(ladder.main, *argv[:-2], "--learning-rate", "0.1", "--output", tmp_path) == 2
    assert "another learning_rate" in capfd.readouterr().err


def test_a_damaged_ladder_and_a_folder_that_cannot_be_written(synthetic, tmp_path, capfd):
    file = tmp_path / "ladder" / "lenet_fconv.json"
    file.parent.mkdir()
    for text in ("[1]", "{", '{"rungs": 3}'):
        file.write_text(text)
        assert helpers.call(ladder.main, "--model", "lenet_fconv", "--output", tmp_path) == 2
        assert "is damaged" in capfd.readouterr().err
        assert file.read_text() == text
    assert helpers.call(ladder.main, "--model", "lenet_fconv", "--output", file) == 2
    assert "choose another --output" in capfd.readouterr().err


SHIPPED = Path(__file__).parents[2] / "results" / "ladder" / "lenet_fconv.json"
EDITS = {
    "accuracy": lambda ladder: ladder["rungs"]["as published"]["test_accuracy"]["3"].__setitem__(0, 5.0),
    "NaN": lambda ladder: ladder["rungs"]["as published"]["test_accuracy"]["3"].__setitem__(0, math.nan),
    "seeds": lambda ladder: ladder["rungs"]["as published"]["test_accuracy"]["3"].pop(),
    "no setting": lambda ladder: ladder["rungs"]["as published"]["test_accuracy"].pop("3"),
    "another rung": lambda ladder: ladder["rungs"].update({"magic": ladder["rungs"]["as published"]}),
    "parameters": lambda ladder: ladder["rungs"]["as published"].update(num_parameters=-1),
    "doubled seeds": lambda ladder: ladder.update(seeds=[0, 0, 1, 2, 3]),
    "epochs": lambda ladder: ladder.update(epochs=0),
    "another ladder": lambda ladder: ladder.update(name="narrow alexnet_fconv"),
    "other data": lambda ladder: ladder.update(dataset="mnist"),
    "no command": lambda ladder: ladder.pop("command"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_ladder_is_refused(tmp_path, edit):
    contents = json.loads(SHIPPED.read_text())
    file = tmp_path / SHIPPED.name
    file.write_text(json.dumps(contents))
    assert runs_ladder.read(file) == contents
    edit(contents)
    file.write_text(json.dumps(contents))
    with pytest.raises(InputError, match="is damaged"):
        runs_ladder.read(file)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--epochs", "7"), ("--epochs", "0"), ("--batch-size", "64"), ("--model", "lenet"), ("--seeds", "")],
)
def test_bad_arguments(tmp_path, option, value):
    argv = {"--model": "lenet_fconv", "--output": str(tmp_path / "out"), option: value}
    assert helpers.call(ladder.main, *(word for pair in argv.items() for word in pair)) == 2
    assert not any(tmp_path.iterdir())


def test_what_is_refused_leaves_nothing(tmp_path, capfd):
    argv = ("--model", "lenet_fconv", "--data-dir", "/dev/null/x", "--output", tmp_path / "out")
    assert helpers.call(ladder.main, *argv) == 2
    assert not any(tmp_path.iterdir())
