"""Which run is continued: its number of seeds, and the folder that holds its save."""

import argparse
import dataclasses
import json

import pytest

from experiments import data
from experiments.runs import cells, config
from tests.experiments.runs.test_folder import CONFIG


def test_the_save_that_a_sweep_left_in_another_folder_is_found(tmp_path):
    """A sweep keeps the save of settings 1 and 3 in the first one's folder."""
    one, three = (tmp_path / f"setting{number}_lenet_mnist_5k" for number in (1, 3))
    save, own = one / "resume" / "7" / "record", three / "resume" / "2" / "record"
    save.mkdir(parents=True)
    cell = cells.Cell(CONFIG, three, {}, "digest")
    record = {"settings": [1, 3], "config": config.of_save([CONFIG], ["digest"])}
    (save / "metadata").write_text(json.dumps(record))
    assert cells.saved_with(cell) == one
    other = dataclasses.replace(CONFIG, epochs=CONFIG.epochs + 1)
    assert cells.saved_with(dataclasses.replace(cell, config=other)) is None
    for contents in (json.dumps({**record, "settings": [1]}), "{"):
        (save / "metadata").write_text(contents)
        assert cells.saved_with(cell) is None
    (save / "metadata").write_text(json.dumps(record))
    own.mkdir(parents=True)
    (own / "metadata").write_text(json.dumps(record))
    assert cells.saved_with(cell) is None


@pytest.mark.parametrize(("dataset", "seeds"), [("mnist", 3), ("mnist_5k", 2)])
def test_a_resumed_run_is_not_taken_for_that_of_another_data_set(dataset, seeds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "resolve_dataset", lambda *_, **__: (dataset, None))
    for name, contents in (("mnist_5k", [0, 1]), ("mnist", [0, 1, 2])):
        folder = tmp_path / "checkpoints" / f"setting3_lenet_{name}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"seeds": contents}))
    names = ("seeds", "num_seeds", "output", "dataset", "init", "data_dir", "data_seed")
    options = argparse.Namespace(**dict.fromkeys(names), resume=True, setting=3, model="lenet")
    assert config.num_seeds_of(options) == seeds

    def refuses(*_, **__):
        raise data.DataError("some of MNIST's files are missing")

    monkeypatch.setattr(data, "resolve_dataset", refuses)  # as the run itself will say, in a line
    assert config.num_seeds_of(options) == 3
