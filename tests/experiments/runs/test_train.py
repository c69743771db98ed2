"""A run's folder is looked at again when it is locked, and its save belongs to a training of as many epochs."""

import contextlib
import shutil
from types import SimpleNamespace

import pytest

from experiments.runs import folder as folders
from experiments.runs import train
from experiments.runs.checkpoints import CheckpointError
from tests.experiments import helpers

pytestmark = pytest.mark.unoptimized  # a run is compared with itself


@pytest.fixture
def put(monkeypatch):
    """Lets a function write in the folder just before this process has its lock."""

    def chosen(write, lock=folders.locked):
        @contextlib.contextmanager
        def late(folder, **options):
            with lock(folder, **options):
                write(folder)
                yield

        monkeypatch.setattr(folders, "locked", late)

    return chosen


def test_files_that_came_before_the_lock_are_not_touched(synthetic, tmp_path, capsys, put):
    put(lambda folder: (folder / "thesis.tex").write_text("years of work"))
    assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run") == 2
    assert "is not empty" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "thesis.tex"}


def test_a_run_that_was_finished_before_the_lock_is_left_as_it_is(synthetic, finished, tmp_path, capsys, put):
    before = {}

    def finish(folder):
        shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(".lock"), dirs_exist_ok=True)
        before.update({path: path.stat().st_mtime_ns for path in folder.rglob("*")})

    put(finish)
    assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run", "--resume") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_save_of_a_longer_training_is_not_continued(monkeypatch, tmp_path):
    """Where the save says nothing else of its epochs, as those of version 0.1."""
    states, record = {"best": {"1": {}}}, {"seeds": [0], "position": {"epoch": 3}}
    made = {"restore_record": {}, "restore": (states, record), "check_basis": None, "abstract_model": None}
    for name, value in made.items():
        monkeypatch.setattr(train, name, lambda *_, value=value: value)
    config, programs = SimpleNamespace(seeds=(0,), epochs=2), SimpleNamespace(abstract_rows=lambda: dict(states))
    loop = SimpleNamespace(settings=[1], config=config, programs=programs, network=None)
    with pytest.raises(CheckpointError, match="saved after epoch 3 of a longer training"):
        train._restored(loop, tmp_path)
    config.epochs = 3
    assert train._restored(loop, tmp_path)[1].epoch == 3
