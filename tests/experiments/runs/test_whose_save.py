"""Which run is continued: its number of seeds, and the folder that holds its save."""

import argparse
import dataclasses
import json

import pytest

from experiments import data
from experiments.rules import InputError
from experiments.runs import cells, config
from experiments.runs import folder as folders
from tests.experiments.runs.test_folder import CONFIG

OLDER = {one.name for one in dataclasses.fields(CONFIG)} - {"l2", "augmentation"} | {"data_digest"}
"""What saves say that were made before these."""


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


def test_a_save_of_before_l2_is_that_of_a_run_without(tmp_path):
    folder, one = tmp_path / "setting3_lenet_mnist_5k", tmp_path / "setting1_lenet_mnist_5k"
    saved = {name: value for name, value in config.of_save([CONFIG], ["digest"]).items() if name in OLDER}
    record = {"settings": [3], "config": saved}
    config.check_save(folder, record, CONFIG, "digest")
    later = dataclasses.replace(CONFIG, l2=0.1)
    with pytest.raises(InputError, match=r"the save was made with l2 0\.0, config.json says 0\.1"):
        config.check_save(folder, record, later, "digest")
    (one / "resume" / "7" / "record").mkdir(parents=True)
    (one / "resume" / "7" / "record" / "metadata").write_text(json.dumps(record))
    cell = cells.Cell(CONFIG, folder, {}, "digest")
    assert cells.saved_with(cell) == one
    assert cells.saved_with(dataclasses.replace(cell, config=later)) is None


def test_a_save_of_two_settings_is_handed_over_before_one_goes_on(tmp_path):
    one, three = (tmp_path / f"setting{number}_lenet_mnist_5k" for number in (1, 3))
    configs = {1: dataclasses.replace(CONFIG, setting=1), 3: CONFIG}
    record = {"settings": [1, 3], "config": config.of_save([*configs.values()], ["a", "b"])}
    for folder, cell, digest in zip((one, three), configs.values(), ("a", "b"), strict=True):
        folder.mkdir()
        config.write(folder, cell, digest)
    (one / "resume" / "7" / "record").mkdir(parents=True)
    (one / "resume" / "7" / "record" / "metadata").write_text(json.dumps(record))
    cell, said = cells.Cell(configs[1], one, {}, "a"), []
    config.write(three, dataclasses.replace(CONFIG, epochs=CONFIG.epochs + 1), "b")
    cells.hand_over([cell], said.append)  # setting 3 was started with other options
    config.write(three, CONFIG, "c")
    cells.hand_over([cell], said.append)  # and with other data
    assert said == []
    assert not (three / "resume").exists()
    config.write(three, CONFIG, "b")
    link = one / "resume" / "7" / "link"
    link.symlink_to("nowhere")
    with pytest.raises(InputError, match=r"cannot be copied into it \(.*No such file"):
        cells.hand_over([cell], said.append)
    link.unlink()
    with folders.locked(three):  # another process is at work on it
        cells.hand_over([cell], said.append)
    cells.hand_over([cell, dataclasses.replace(cell, config=CONFIG, folder=three)], said.append)  # both go on
    assert {path.name for path in three.iterdir()} <= {"config.json", ".lock"}
    cells.hand_over([cell], said.append)
    cells.hand_over([cell], said.append)  # it has it
    assert [three.name in line for line in said] == [True]
    assert (three / "resume" / "7" / "record" / "metadata").read_text() == json.dumps(record)
    (one / "resume" / "7" / "record" / "metadata").write_text("{")
    cells.hand_over([cell], said.append)  # damaged: --overwrite must not stop at it
    assert len(said) == 1


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
