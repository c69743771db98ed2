"""A sweep takes no cell of other options or data, whatever stands in its folder."""

import functools
import json
import shutil

import pytest

from experiments import data, sweep
from experiments.runs import folder as folders
from tests.experiments import helpers, small_digits

# Many cases that take half a minute together; trainings are compared with each other.
pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]
SWEEP = ["--models", "lenet", "--settings", "1", *helpers.QUICK[4:]]
OTHER_OPTIONS = {
    "--epochs": ("3", "epochs"),
    "--seeds": ("0", "seeds"),
    "--data-seed": ("1", "data_seed"),
    "--learning-rate": ("1e-3", "learning_rate"),
    "--batch-size": ("16", "batch_size"),
    "--precision": ("bfloat16", "precision"),
    "--schedule": ("cosine", "schedule"),
    "--weight-decay": ("0.1", "weight_decay"),
    "--label-smoothing": ("0.1", "label_smoothing"),
    "--l2": ("0.1", "l2"),
    "--epochs left out": (None, "epochs"),
    "--learning-rate left out": (None, "learning_rate"),
    "--seeds left out": (None, "seeds"),
}


@pytest.mark.parametrize("started", [False, True], ids=["finished", "started"])
@pytest.mark.parametrize(("option", "other"), OTHER_OPTIONS.items(), ids=OTHER_OPTIONS)
def test_a_sweep_takes_no_cell_of_other_options(synthetic, finished, tmp_path, capfd, option, other, started):
    """What the command line leaves out is the protocol's."""
    value, name = other
    cell = shutil.copytree(finished, tmp_path / "setting1_lenet_mnist_5k")
    if started:
        (cell / "results.json").unlink()
    words = dict(zip(SWEEP[::2], SWEEP[1::2], strict=True))
    words.pop(option.split()[0], None)
    words |= {option: value} if value else {}
    argv = [*(word for pair in words.items() for word in pair), "--output", str(tmp_path)]
    before = helpers.tree(tmp_path)
    if started:  # a child's work
        argv += ["--child", "1,mnist_5k"]
    assert helpers.call(sweep.main, *argv) == 2
    assert f"was started with {name} " in capfd.readouterr().err
    assert helpers.tree(tmp_path) == before


def test_a_sweep_takes_its_own_cells_and_looks_at_their_data(synthetic, finished, tmp_path, capfd, monkeypatch):
    cell = shutil.copytree(finished, tmp_path / "setting1_lenet_mnist_5k")
    before = helpers.tree(tmp_path)
    assert helpers.call(sweep.main, *SWEEP, "--output", tmp_path) == 0
    assert "finished" in capfd.readouterr().out
    monkeypatch.setattr(data, "load", lambda *args, **more: small_digits.load(*args, **{**more, "data_seed": 9}))
    assert helpers.call(sweep.main, *SWEEP, "--output", tmp_path) == 2
    assert "data_digest" in capfd.readouterr().err
    monkeypatch.setattr(data, "load", small_digits.load)
    assert helpers.tree(tmp_path) == before
    (cell / "config.json").unlink()
    assert helpers.call(sweep.main, *SWEEP, "--output", tmp_path) == 2
    assert "no config.json" in capfd.readouterr().err


def test_a_finished_sweep_asks_for_no_place_to_write(synthetic, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "setting1_lenet_mnist_5k")
    monkeypatch.setattr(folders, "check_writable", lambda folder: pytest.fail("nothing is to be written"))
    assert helpers.call(sweep.main, *SWEEP, "--output", tmp_path, "--child", "1,mnist_5k") == 0


def test_a_pair_is_checked_before_anything_is_written(synthetic, finished, tmp_path, capfd):
    """The cell of setting 3 was made otherwise: nothing is written for setting 1 either."""
    cell = shutil.copytree(finished, tmp_path / "setting3_lenet_mnist_5k")
    config = json.loads((cell / "config.json").read_text()) | {"setting": 3, "epochs": 4}
    (cell / "config.json").write_text(json.dumps(config))
    argv = [*SWEEP, "--output", tmp_path, "--child", "1,mnist_5k"]
    argv[3] = "1,3"
    call = functools.partial(helpers.call, sweep.main)
    helpers.assert_refused(capfd, tmp_path, call, *argv, says="started with epochs 4")
