"""A run's folder: what may be in it, its configuration and its lock."""

import dataclasses
import json
import subprocess
import sys

import pytest

from experiments.rules import InputError
from experiments.runs import config
from experiments.runs import folder as folders
from experiments.settings import RunConfig

CONFIG = RunConfig("lenet", 3, "mnist_5k", 0, (0, 3), 2, 256, 2e-4, "report", "float32", "auto")


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_new_empty_and_only_locked_folders_are_fine(tmp_path, resume, overwrite):
    folders.check(tmp_path / "new" / "deep", resume=resume, overwrite=overwrite)
    folders.check(tmp_path, resume=resume, overwrite=overwrite)
    (tmp_path / ".lock").touch()
    folders.check(tmp_path, resume=resume, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_configuration_returns_as_it_was(tmp_path):
    assert config.read(tmp_path) is None
    config.write(tmp_path, CONFIG, "digest")
    saved = config.read(tmp_path)
    assert saved == {**dataclasses.asdict(CONFIG), "data_digest": "digest"}
    config.check_same(tmp_path, saved, CONFIG, "digest")
    with pytest.raises(InputError, match=r"started with epochs 2, now it is 3"):
        config.check_same(tmp_path, saved, dataclasses.replace(CONFIG, epochs=3), "digest")
    with pytest.raises(InputError, match="data_digest"):
        config.check_same(tmp_path, saved, CONFIG, "another")


def test_clear_removes_what_runs_write_and_nothing_else(tmp_path):
    for name in ("config.json", "results.json", "angles.png", ".curves.csv.part", "notes.txt", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / "best" / "3").mkdir(parents=True)
    folders.clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "notes.txt"]


def test_the_lock_dies_with_its_process(tmp_path):
    code = """if True:
        import sys
        from pathlib import Path
        from experiments.runs import folder as folders
        with folders.locked(Path(sys.argv[1])):
            print("mine", flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(InputError, match="another process is at work"), folders.locked(tmp_path):
            pass
        other.kill()
        other.wait()
        with folders.locked(tmp_path):
            pass


@pytest.mark.parametrize("contents", ["", "[]", "3", '{"model": "lenet"}', '{"model": ["x"]}', '"model"'])
def test_the_model_of_any_folder_is_told_or_empty(tmp_path, contents):
    (tmp_path / "config.json").write_text(contents)
    assert isinstance(config.model_of(tmp_path), str)
    assert config.model_of(tmp_path / "nowhere") == ""
    (tmp_path / "config.json").write_text(json.dumps({"model": "alexnet"}))
    assert config.model_of(tmp_path) == "alexnet"


def test_what_an_unfinished_write_left_is_no_run(tmp_path):
    """A disk that was full at the first file: --resume starts afresh, and so does a new run."""
    (tmp_path / ".config.json.part").write_text("{")
    folders.check(tmp_path, resume=True, overwrite=False)
    folders.check(tmp_path, resume=False, overwrite=False)
    (tmp_path / "notes.part").write_text("mine")
    with pytest.raises(InputError, match="notes"):
        folders.check(tmp_path, resume=True, overwrite=False)
    folders.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.part"]


def test_a_run_from_before_there_were_schedules_is_read(tmp_path):
    config.write(tmp_path, CONFIG, "digest")
    path = tmp_path / "config.json"
    contents = json.loads(path.read_text())
    assert [contents.pop(name) for name in ("schedule", "weight_decay", "label_smoothing")] == ["constant", 0.0, 0.0]
    path.write_text(json.dumps(contents))
    saved = config.read(tmp_path)
    assert [saved[name] for name in ("schedule", "weight_decay", "label_smoothing")] == ["constant", 0.0, 0.0]
    config.check_same(tmp_path, saved, CONFIG, "digest")
    with pytest.raises(InputError, match="started with schedule 'constant', now it is 'cosine'"):
        config.check_same(tmp_path, saved, dataclasses.replace(CONFIG, schedule="cosine"), "digest")


@pytest.mark.parametrize("name", ["best", "resume"])
def test_nothing_is_written_through_a_link(tmp_path, name):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    (run / "config.json").write_text("{}")
    (run / name).symlink_to(other)
    for way in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
        with pytest.raises(InputError, match=f"{name} is a link or a file"):
            folders.check(run, **way)
    (run / "results.json").write_text("{}")
    folders.check(run, resume=True, overwrite=False)  # finished: nothing is written
    (run / name).unlink()
    folders.check(run, resume=False, overwrite=True)
