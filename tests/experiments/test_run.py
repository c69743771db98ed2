"""experiments.run: what a run writes, resumes, refuses and never touches."""

import csv
import json
import math
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from experiments import data
from experiments.runs import folder as folders
from experiments.runs.progress import Bar
from experiments.training import loop
from experiments.training.loop import Loop
from tests.experiments import helpers, small_digits

pytestmark = pytest.mark.unoptimized  # runs are compared with each other

FIELDS = {
    "model", "setting", "dataset", "seeds", "epochs", "batch_size", "learning_rate", "init", "data_seed",
    "num_parameters", "test_accuracy", "mean", "std", "failed_seeds", "mean_all", "best_epoch", "validation_accuracy",
    "per_class_accuracy", "train_loss", "validation_curve", "train_images_per_second", "compile_seconds",
    "wall_seconds", "command", "versions", "device",
}  # fmt: skip


def refuse_constant(text):
    raise AssertionError(f"{text} is not strict JSON")


def test_results_have_every_field(finished):
    results = json.loads((finished / "results.json").read_text(), parse_constant=refuse_constant)
    assert set(results) >= FIELDS
    assert (results["model"], results["setting"], results["dataset"]) == ("lenet", 1, "mnist_5k")
    assert (results["seeds"], results["epochs"], results["batch_size"]) == ([0, 3], 2, 32)
    assert (results["init"], results["data_seed"], results["learning_rate"]) == ("report", 0, 3e-3)
    assert results["num_parameters"] == 278_226
    for name in ("test_accuracy", "validation_accuracy", "best_epoch"):
        assert len(results[name]) == 2
    for name, width in [("per_class_accuracy", 10), ("train_loss", 2), ("validation_curve", 2)]:
        assert [len(row) for row in results[name]] == [width, width]
    for seed in range(2):
        curve = results["validation_curve"][seed]
        assert results["validation_accuracy"][seed] == max(curve)
        assert results["best_epoch"][seed] == 1 + curve.index(max(curve))
        # Synthetic classes are of equal size.
        assert results["test_accuracy"][seed] == pytest.approx(sum(results["per_class_accuracy"][seed]) / 10)
    assert results["mean_all"] == pytest.approx(sum(results["test_accuracy"]) / 2)
    assert results["train_images_per_second"] > 0
    assert results["wall_seconds"] > 0
    assert 0 < results["compile_seconds"] < results["wall_seconds"]
    assert results["command"].startswith("python -m experiments.run --setting 1 --model lenet")
    assert {"python", "jax", "flax"} <= set(results["versions"])
    assert "CPU" in results["device"]


def test_files_of_a_run(finished):
    assert {path.name for path in finished.iterdir()} - {".lock", "resume"} == {
        "config.json", "results.json", "curves.csv", "curves.png", "best",
    }  # fmt: skip
    results = json.loads((finished / "results.json").read_text())
    with (finished / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["epoch"]) for row in rows] == [("0", "1"), ("0", "2"), ("3", "1"), ("3", "2")]
    assert float(rows[3]["train_loss"]) == pytest.approx(results["train_loss"][1][1], rel=1e-5)
    assert float(rows[1]["validation_accuracy"]) == pytest.approx(results["validation_curve"][0][1], rel=1e-5)
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    config = json.loads((finished / "config.json").read_text())
    assert config["seeds"] == [0, 3]
    assert len(config["data_digest"]) == 64


def test_a_run_is_repeated_bit_for_bit_and_says_what_it_does(synthetic, finished, tmp_path, capsys):
    assert helpers.run(*helpers.QUICK, "--output", tmp_path / "again") == 0
    said = capsys.readouterr().out
    assert "expected duration: about" in said
    assert "mean_all" in said
    assert "accuracy of each class" in said
    assert helpers.numbers(tmp_path / "again") == helpers.numbers(finished)
    assert (tmp_path / "again" / "curves.csv").read_bytes() == (finished / "curves.csv").read_bytes()


def test_resuming_a_finished_run_changes_nothing(synthetic, finished, capsys):
    before, times = helpers.tree(finished), {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert helpers.run(*helpers.QUICK, "--output", finished, "--resume") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert helpers.run(*helpers.QUICK[:4], "--output", finished, "--resume") == 0  # the other options are the run's own
    assert helpers.tree(finished) == before
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == times


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--seeds 0,4", "seeds"),
        ("--num-seeds 2", "seeds"),
        ("--epochs 3", "epochs"),
        ("--batch-size 33", "batch_size"),
        ("--learning-rate 3e-4", "learning_rate"),
        ("--init he", "init"),
        ("--precision bfloat16", "precision"),
        ("--seed-map vmap", "seed_map"),
        ("--data-seed 1", "data_seed"),
        ("--model lenet_fconv", "model"),
        ("--setting 2", "setting"),
        ("--dataset fashion_mnist", "dataset"),
    ],
)
def test_resuming_with_another_option(synthetic, finished, capsys, words, named):
    option = words.split()[0]
    kept = [
        word for pair in zip(helpers.QUICK[::2], helpers.QUICK[1::2], strict=True) if pair[0] != option for word in pair
    ]
    if option == "--num-seeds":
        kept = [word for pair in zip(kept[::2], kept[1::2], strict=True) if pair[0] != "--seeds" for word in pair]
    before = helpers.tree(finished)
    assert helpers.run(*kept, *words.split(), "--output", finished, "--resume") == 2
    assert f"was started with {named} " in capsys.readouterr().err
    assert helpers.tree(finished) == before


def test_resuming_with_other_data(monkeypatch, finished, capsys):
    monkeypatch.setattr(data, "load", lambda *args, **options: small_digits.load(*args, **{**options, "data_seed": 9}))
    assert helpers.run(*helpers.QUICK, "--output", finished, "--resume") == 2
    assert "data_digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    "stops", [(1,), pytest.param((2, 4), marks=pytest.mark.slow), pytest.param((3,), marks=pytest.mark.long)], ids=str
)
def test_an_interrupted_run_ends_in_the_same_numbers(synthetic, finished, tmp_path, monkeypatch, capsys, stops):
    """Stopped after the given steps (an epoch has 3, the last one smaller), each time resumed."""
    folder, taken = tmp_path / "run", {"steps": 0}
    steps = Bar.report

    def count(bar, position, num_steps):
        taken["steps"] += bool(position.step)
        if position.step and taken["steps"] in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        steps(bar, position, num_steps)

    monkeypatch.setattr(Bar, "report", count)
    for _ in stops:
        assert helpers.run(*helpers.QUICK, "--output", folder, "--resume") == 130
        assert not (folder / "results.json").exists()
    assert "continue with --resume" in capsys.readouterr().err
    assert helpers.run(*helpers.QUICK, "--output", folder, "--resume") == 0
    assert f"resumed after epoch {stops[-1] // 3}, step {stops[-1] % 3}" in capsys.readouterr().out
    assert taken["steps"] == 6  # none twice
    assert helpers.numbers(folder) == helpers.numbers(finished)


def test_a_long_epoch_is_saved_in_its_middle(synthetic, finished, tmp_path, monkeypatch, capsys):
    """A run that dies there loses little, and ends in the same numbers."""
    folder, report = tmp_path / "run", Bar.report

    def die(bar, position, num_steps):
        if (position.epoch, position.step) == (1, 2):
            raise MemoryError
        report(bar, position, num_steps)

    for name, value in (("SHORTEST_SECONDS", 0), ("SAVING_SHARE", 1e9), ("MIDDLE", 0)):
        monkeypatch.setattr(loop, name, value)
    monkeypatch.setattr(Bar, "report", die)
    assert helpers.run(*helpers.QUICK, "--output", folder) == 1
    monkeypatch.setattr(Bar, "report", report)
    assert helpers.run(*helpers.QUICK, "--output", folder, "--resume") == 0
    assert "resumed after epoch 1, step 1" in capsys.readouterr().out
    assert helpers.numbers(folder) == helpers.numbers(finished)
    (kept,) = (folder / "resume").glob("*/record/metadata")
    results = json.loads((folder / "results.json").read_text())
    assert results["wall_seconds"] >= json.loads(kept.read_text())["position"]["wall_seconds"] > 0


def test_a_run_that_is_stopped_in_its_final_test_has_trained(synthetic, finished, tmp_path, monkeypatch, capsys):
    def stop(loop, setting, split):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SHORTEST_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "best", stop)
        assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run") == 130
    assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run", "--resume", "--data-dir", tmp_path / "d") == 0
    said = capsys.readouterr().out
    assert "resumed after epoch 2, step 0" in said
    assert f"experiments.evaluate {tmp_path / 'run'} --data-dir {tmp_path / 'd'} repeats the test" in " ".join(
        said.split()
    )
    assert helpers.numbers(tmp_path / "run") == helpers.numbers(finished)


def test_a_signal_in_the_last_save_is_heard(synthetic, finished, tmp_path, monkeypatch):
    def save(loop, write, save=Loop._save):
        if loop.position.epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        save(loop, write)

    monkeypatch.setattr(loop, "SHORTEST_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVING_SHARE", 1e-9)  # one save after the first epoch, and the last
        patch.setattr(Loop, "_save", save)
        assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run") == 130
    assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run", "--resume") == 0
    assert helpers.numbers(tmp_path / "run") == helpers.numbers(finished)


def test_other_options_are_refused_before_data_are_prepared(finished, monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda *args, **more: pytest.fail("data were prepared"))
    assert helpers.run(*helpers.QUICK, "--data-seed", 7, "--output", finished, "--resume") == 2
    assert "started with data_seed 0, now it is 7" in capsys.readouterr().err


def test_a_finished_run_may_hold_what_was_made_of_it(synthetic, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    (tmp_path / "run" / "net.onnx").write_text("exported")
    assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run", "--resume") == 0
    assert "nothing to do" in capsys.readouterr().out
    with folders.locked(tmp_path / "run", leave=False):  # an evaluation holds it: nothing is written here
        assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run", "--resume") == 0
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("lost", [["results.json"], ["results.json", "curves.csv", "curves.png"]], ids=len)
def test_a_run_killed_while_it_writes_its_results_is_finished_by_resume(synthetic, finished, tmp_path, lost):
    folder = shutil.copytree(finished, tmp_path / "run")
    for name in lost:
        (folder / name).unlink()
    assert helpers.run(*helpers.QUICK, "--output", folder, "--resume") == 0
    assert helpers.numbers(folder) == helpers.numbers(finished)
    assert helpers.evaluate(folder) == 0
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["test_accuracy"] == helpers.numbers(folder)["test_accuracy"]


def test_a_locked_folder_is_refused(synthetic, finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    for way in ("--overwrite", "--resume"):
        before = helpers.tree(folder)
        with folders.locked(folder):
            assert helpers.run(*helpers.QUICK, "--output", folder, way) == 2
        assert "another process is at work" in capsys.readouterr().err
        assert helpers.tree(folder) == before
        (folder / "results.json").unlink(missing_ok=True)  # a finished run needs no resume, whoever is at work


@pytest.mark.slow
def test_overwrite_starts_anew(synthetic, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "evaluation.json").write_text("{}")
    (folder / ".curves.csv.part").write_text("left over")
    words = [word if word != "0,3" else "3" for word in helpers.QUICK]
    assert helpers.run(*words, "--output", folder, "--overwrite") == 0
    assert not (folder / "evaluation.json").exists()
    assert not (folder / ".curves.csv.part").exists()
    assert helpers.numbers(folder)["seeds"] == [3]


def test_overwrite_keeps_its_hands_off_foreign_files(synthetic, finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "thesis.tex").write_text("years of work")
    before = helpers.tree(folder)
    assert helpers.run(*helpers.QUICK, "--output", folder, "--overwrite") == 2
    assert "'thesis.tex', which no run wrote" in capsys.readouterr().err
    assert helpers.tree(folder) == before


def test_a_seed_whose_loss_is_not_a_number(synthetic, tmp_path, monkeypatch, finished, capsys):
    """Seed 3's parameters are poisoned: it is reported, seed 0 is as in the run without."""

    def poisoned(loop, rows=None, position=None, start=Loop.start):
        start(loop, rows, position)
        params = jax.tree.map(lambda x: x * np.float32([1, np.nan]).reshape(2, *[1] * (x.ndim - 1)),
                              loop.states["params"])  # fmt: skip
        if rows is None:
            loop.states = {**loop.states, "params": jax.device_put(params, loop.programs.sharding)}

    def stop(bar, position, num_steps, report=Bar.report):
        if (position.epoch, position.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        report(bar, position, num_steps)

    monkeypatch.setattr(Loop, "start", poisoned)
    with monkeypatch.context() as patch:
        patch.setattr(Bar, "report", stop)
        assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run") == 130
    assert helpers.run(*helpers.QUICK, "--output", tmp_path / "run", "--resume") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=refuse_constant)
    whole = helpers.numbers(finished)
    assert results["failed_seeds"] == [3]
    assert results["train_loss"][1] == [None, None]
    assert "loss not a number): 3" in capsys.readouterr().out
    for name in ("test_accuracy", "train_loss", "validation_curve", "best_epoch"):
        assert results[name][0] == whole[name][0], name
    assert results["mean"] == results["test_accuracy"][0]
    assert results["std"] is None
    assert all(math.isnan(float(row.split(",")[2])) for row in (tmp_path / "run/curves.csv").read_text().split()[3:])
