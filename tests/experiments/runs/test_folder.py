"""A run's folder: what may be in it, its configuration and its lock."""

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys

import filelock
import pytest

from experiments.rules import InputError
from experiments.runs import config
from experiments.runs import folder as folders
from experiments.runs.exit_codes import BusyError
from experiments.settings import RunConfig

CONFIG = RunConfig("lenet", 3, "mnist_5k", 0, (0, 3), 2, 256, 2e-4, "report", "float32", "auto")


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_new_empty_and_only_locked_folders_are_fine(tmp_path, resume, overwrite):
    folders.check(tmp_path / "new" / "deep", resume=resume, overwrite=overwrite)
    folders.check(tmp_path, resume=resume, overwrite=overwrite)
    (tmp_path / ".lock").touch()
    folders.check(tmp_path, resume=resume, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["a [2]", "[x]", "a\\b"])
def test_a_path_below_which_orbax_cannot_save_is_refused_before_the_work(tmp_path, name):
    for folder in (tmp_path / name, tmp_path / name / "run"):
        with pytest.raises(InputError, match="cannot save below a path that holds"):
            folders.check(folder, resume=False, overwrite=False)
    for fine in ("a[1", "a]", "a*?{b}#"):
        folders.check(tmp_path / fine, resume=False, overwrite=False)


def test_what_file_managers_leave_is_not_a_file_of_the_users(tmp_path):
    (tmp_path / ".DS_Store").touch()
    folders.check(tmp_path, resume=False, overwrite=False)
    folders.check(tmp_path, resume=False, overwrite=True)


def options(**given):
    names = ("seeds", "num_seeds", "output", "dataset", "init", "data_dir", "data_seed")
    return argparse.Namespace(**{**dict.fromkeys(names), "resume": True, "setting": 3, "model": "lenet", **given})


def test_a_resumed_run_has_its_own_number_of_seeds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.num_seeds_of(options()) == 5  # nothing is there
    folder = tmp_path / "checkpoints" / "setting3_lenet_mnist_5k"
    folder.mkdir(parents=True)
    config.write(folder, CONFIG, "digest")
    assert [config.num_seeds_of(options(**more)) for more in ({}, {"output": folder}, {"dataset": "auto"})] == [2] * 3
    assert config.num_seeds_of(options(dataset="mnist")) == 5
    assert config.num_seeds_of(options(num_seeds=3)) == 3
    assert config.num_seeds_of(options(resume=False)) == 5
    (folder / "config.json").write_text('{"seeds": 4}')
    assert config.num_seeds_of(options()) == 5


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


def test_a_run_that_is_killed_while_it_is_cleared_is_not_finished(tmp_path, monkeypatch):
    (tmp_path / "results.json").touch()
    (tmp_path / "best").mkdir()
    monkeypatch.setattr(folders.shutil, "rmtree", lambda path: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        folders.clear(tmp_path)
    assert not folders.is_finished(tmp_path)


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
    assert [contents.pop(name) for name in ("l2", "augmentation")] == [0.0, "none"]
    path.write_text(json.dumps(contents))
    saved = config.read(tmp_path)
    assert [saved[name] for name in ("schedule", "weight_decay", "label_smoothing")] == ["constant", 0.0, 0.0]
    config.check_same(tmp_path, saved, CONFIG, "digest")
    with pytest.raises(InputError, match="started with schedule 'constant', now it is 'cosine'"):
        config.check_same(tmp_path, saved, dataclasses.replace(CONFIG, schedule="cosine"), "digest")


def refusal(tmp_path, **how):
    with pytest.raises(InputError) as caught:
        folders.check(tmp_path, **{"resume": False, "overwrite": False} | how)
    return str(caught.value)


def test_a_folder_is_refused_for_what_is_in_it(tmp_path):
    (tmp_path / "results.json").touch()
    assert "is not empty: --resume continues it" in refusal(tmp_path)
    assert "has no config.json" in refusal(tmp_path, resume=True)
    folders.check(tmp_path, resume=False, overwrite=True)
    (tmp_path / "config.json").touch()
    folders.check(tmp_path, resume=True, overwrite=False)
    (tmp_path / "b.txt").touch()
    (tmp_path / "a.txt").touch()
    assert "holds 'a.txt', which no run wrote" in refusal(tmp_path, overwrite=True)
    folders.check(tmp_path, resume=True, overwrite=False)  # a finished run is left as it is
    (tmp_path / "results.json").unlink()
    (tmp_path / "results.json").symlink_to(tmp_path / "nowhere")  # not finished
    assert "holds 'a.txt', which no run wrote" in refusal(tmp_path, resume=True)
    assert "is a file, or is below one" in refusal(tmp_path / "a.txt")
    assert "is a file, or is below one" in refusal(tmp_path / "a.txt" / "below")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))


OWN = (
    "config.json", "results.json", "curves.csv", "curves.png", "resume", "best", "evaluation.json", "angles.csv",
    "angles.png", "uniform.csv", "audit.json", "audit.png",
)  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_every_file_of_a_run_is_known_and_cleared_whole_or_not(tmp_path, name):
    (tmp_path / "config.json").touch()
    (tmp_path / name).mkdir() if name in ("best", "resume") else (tmp_path / name).touch()
    (tmp_path / f".{name}.part").touch()
    folders.check(tmp_path, resume=True, overwrite=False)
    folders.clear(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / f".{name}.part").touch()
    folders.check(tmp_path, resume=False, overwrite=False)  # alone it is no run
    (tmp_path / f"my_{name}").touch()
    folders.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"my_{name}"]
    assert "which no run wrote" in refusal(tmp_path, overwrite=True)


def test_a_run_is_finished_with_its_results(tmp_path):
    assert not folders.is_finished(tmp_path)
    (tmp_path / "results.json").touch()
    assert folders.is_finished(tmp_path)


def test_files_are_utf8_with_unix_lines_and_end_in_a_newline(tmp_path):
    folders.write_text(tmp_path / "text", "ü\n")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xbc\n"
    folders.write_csv(tmp_path / "table", ["a", "ü"], [[1, 2.5], ["x,y", None]])
    assert (tmp_path / "table").read_bytes() == 'a,ü\n1,2.5\n"x,y",\n'.encode()
    folders.write_json(tmp_path / "json", {"a": [1, (2.5, float("nan"))], "b": {}})
    assert (tmp_path / "json").read_text() == '{\n "a": [\n  1,\n  [\n   2.5,\n   null\n  ]\n ],\n "b": {}\n}\n'


def test_a_write_goes_beside_the_file_and_then_into_its_place(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with folders.replaced(path) as temporary:
        temporary.write_text("new")
        assert temporary == tmp_path / ".results.json.part"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert not temporary.exists()
    with contextlib.suppress(KeyError), folders.replaced(path) as temporary:
        temporary.write_text("cut")
        raise KeyError
    assert path.read_text() == "new"


def test_a_lock_makes_its_folder_and_is_left_in_the_end(tmp_path):
    folder = tmp_path / "a" / "b"
    with folders.locked(folder), pytest.raises(BusyError, match="another process is at work"), folders.locked(folder):
        pass
    with folders.locked(folder):
        assert (folder / ".lock").exists()
    with pytest.raises(KeyError), folders.locked(folder):
        raise KeyError
    with folders.locked(folder):
        pass


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, where):
    (tmp_path / "file").touch()
    cannot = pytest.raises(InputError, match=r"cannot be written \(.+\): choose another --output")
    with cannot, folders.locked(tmp_path / where):
        pass


def test_the_lock_is_asked_for_without_waiting_and_given_back(tmp_path, monkeypatch):
    made, waited = [], []

    class Noting(filelock.FileLock):
        def acquire(self, timeout=None, **options):
            made.append(self)
            waited.append(timeout)
            return super().acquire(timeout=timeout, **options)

    monkeypatch.setattr(folders, "FileLock", Noting)
    with folders.locked(tmp_path):
        assert made[0].is_locked
    assert waited == [0]
    assert not made[0].is_locked


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


@pytest.mark.parametrize("inside", ["best/5", "resume/99", "audits"])
def test_a_folder_in_a_run_is_refused(tmp_path, inside):
    (tmp_path / "run" / "resume").mkdir(parents=True)
    (tmp_path / "config.json").touch()  # of something else
    folders.check_writable(tmp_path / "run" / inside)
    (tmp_path / "run" / "config.json").touch()
    for check in (folders.check_writable, lambda folder: folders.check(folder, resume=False, overwrite=True)):
        with pytest.raises(InputError, match="lies in the run"):
            check(tmp_path / "run" / inside)
    folders.check_writable(tmp_path / "run")
    folders.check_writable(tmp_path / "run" / ".." / "beside")
    with pytest.raises(InputError, match="holds a run"):
        folders.check_no_run(tmp_path / "run")


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(UnicodeEncodeError), folders.replaced(tmp_path / "file") as temporary:
        temporary.write_text("half of it \ud800", encoding="utf-8")
    assert not list(tmp_path.iterdir())
