"""Numbers that belong to something else: other options, another best/, another data set, another run in the folder."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest

from experiments import audit, data, report
from experiments.reporting import evaluation
from experiments.runs import folder as folders
from experiments.runs import reading, results
from experiments.runs.progress import Bar
from tests.experiments import helpers, small_digits

# Many cases that take half a minute together; trainings are compared with each other.
pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]


@pytest.fixture
def run(synthetic, finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="session")
def others(tmp_path_factory, finished):
    """Finished runs that differ from the finished one: in the learning rate, and in nothing but the images."""
    root = tmp_path_factory.mktemp("others")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", small_digits.load)
        assert helpers.run(*helpers.QUICK, "--output", root / "rate", "--learning-rate", "1e-3") == 0
        patch.setattr(data, "load", lambda *args, **more: small_digits.load(*args, **{**more, "data_seed": 9}))
        assert helpers.run(*helpers.QUICK, "--output", root / "images") == 0
    return root


@pytest.fixture(scope="session")
def stopped(tmp_path_factory, finished):
    """The folder of a run that was stopped in its second epoch, and saved."""
    folder, report_step = tmp_path_factory.mktemp("stopped") / "run", Bar.report

    def stop(bar, position, num_steps):
        if (position.epoch, position.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        report_step(bar, position, num_steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", small_digits.load)
        patch.setattr(Bar, "report", stop)
        assert helpers.run(*helpers.QUICK, "--output", folder) == 130
    return folder


def digest_of(folder):
    return json.loads((folder / "results.json").read_text())["best_digest"]


def refused(capfd, tmp_path, main, *argv, says):
    helpers.assert_refused(capfd, tmp_path, lambda *words: helpers.call(main, *words), *argv, says=says)


def test_every_derived_file_names_its_best(run, tmp_path):
    assert helpers.evaluate(run, "--angles") == 0
    assert helpers.call(audit.main, run) == 0
    assert helpers.call(report.main, run, "--output", tmp_path / "out") == 0
    digest = json.loads(next((run / "best").glob("*/record/metadata")).read_text())["digest"]
    assert digest_of(run) == digest == digest_of(tmp_path / "out" / "mnist_5k" / "setting1_lenet")
    for name in ("evaluation.json", "audit.json"):
        assert json.loads((run / name).read_text())["best_digest"] == digest
    for folder in (run, tmp_path / "out" / "mnist_5k" / "setting1_lenet"):
        with (folder / "angles.csv").open(newline="") as file:
            assert {(row["dataset"], row["best_digest"]) for row in csv.DictReader(file)} == {("mnist_5k", digest)}
    drawn = [run / "angles.png", run / "audit.png"]
    drawn += [tmp_path / "out" / f"{name}.png" for name in ("angles", "figure3", "confusion")]
    for path in drawn:
        assert digest.encode() in path.read_bytes()
    for name in ("table2.md", "table2.csv", "report.html"):
        assert digest in (tmp_path / "out" / name).read_text()


OTHERS = {
    "data": ("--dataset fashion_mnist", "_fashion_mnist_setting1"),
    "setting": ("--setting 3", "_mnist_5k_setting3"),
    "data seed": ("--data-seed 7 --dataset mnist_5k", "_mnist_5k_setting1_seed7"),
}


@pytest.mark.parametrize(("words", "name"), OTHERS.values(), ids=OTHERS)
def test_another_test_stands_beside_the_runs_own(run, tmp_path, monkeypatch, words, name):
    monkeypatch.setattr(evaluation, "resolve", lambda console, options, dataset, settings: dataset)
    assert helpers.evaluate(run, "--angles") == 0
    before = helpers.tree(run)
    assert helpers.evaluate(run, "--angles", *words.split()) == 0
    after = helpers.tree(run)
    new = {f"evaluation{name}.json", f"angles{name}.csv", f"angles{name}.png"}
    assert after.keys() - before.keys() == new
    assert {n: after[n] for n in before} == before
    assert helpers.run(*helpers.QUICK, "--output", run, "--resume") == 0  # they are no foreign files
    folders.clear(run)
    assert {path.name for path in run.iterdir()} <= {".lock"}


def test_angles_of_other_data_are_drawn_nowhere(run, tmp_path, monkeypatch, capfd):
    """Even under the own name."""
    monkeypatch.setattr(evaluation, "resolve", lambda console, options, dataset, settings: dataset)
    assert helpers.evaluate(run, "--angles", "--dataset", "fashion_mnist", "--output", tmp_path / "there") == 0
    shutil.copy(tmp_path / "there" / "angles.csv", run)
    refused(capfd, tmp_path, report.main, run, "--output", tmp_path / "out", says="was not made from this run")


def test_what_a_run_made_anew_does_not_have_leaves_the_results(run, others, tmp_path):
    out = tmp_path / "out"
    assert helpers.evaluate(run, "--angles") == 0
    assert helpers.call(report.main, run, "--output", out) == 0
    target = out / "mnist_5k" / "setting1_lenet"
    (out / "invariant.md").write_text("of a cell that is gone")
    assert helpers.evaluate(run, "--setting", "3", "--output", target) == 0
    assert {"evaluation_mnist_5k_setting3.json", "angles.csv"} <= {path.name for path in target.iterdir()}
    assert (out / "angles.png").exists()
    assert helpers.call(report.main, others / "rate", "--output", out) == 0
    assert digest_of(target) == digest_of(others / "rate")
    assert {path.name for path in target.iterdir()} == {"config.json", "results.json", "curves.csv"}
    assert not {"angles.png", "invariant.md"} & {path.name for path in out.iterdir()}
    assert "angles.png" not in (out / "report.html").read_text()


def test_old_angles_beside_new_results_are_refused(run, others, tmp_path, capfd):
    assert helpers.evaluate(run, "--angles") == 0
    for name in ("images", "rate"):
        new = shutil.copytree(others / name, tmp_path / name)
        shutil.copy(run / "angles.csv", new)
        refused(capfd, tmp_path, report.main, new, "--output", tmp_path / "out", says="was not made from this run")


def test_results_cut_to_one_seed_have_no_angles_of_two(run, tmp_path, capfd):
    assert helpers.evaluate(run, "--angles") == 0
    contents = json.loads((run / "results.json").read_text())
    cut = contents | {n: contents[n][:1] for n in ("seeds", "confusion", "train_loss", "validation_curve")}
    counted = np.array(cut["confusion"])
    cut |= results.derived(cut["seeds"], counted, cut["train_loss"], cut["validation_curve"])
    (run / "results.json").write_text(json.dumps(cut))
    refused(capfd, tmp_path, report.main, run, "--output", tmp_path / "out", says="seeds")
    for name in ("config.json", "best"):  # nothing left that says so but the angles
        shutil.rmtree(run / name) if name == "best" else (run / name).unlink()
    refused(capfd, tmp_path, report.main, run, "--output", tmp_path / "out", says="angles.csv")


def test_evaluate_and_audit_hold_the_folder(run, tmp_path, capfd, monkeypatch):
    with folders.locked(run):
        for main in (helpers.evaluate, lambda *argv: helpers.call(audit.main, *argv)):
            assert main(run) == 2
            assert "another process is at work" in capfd.readouterr().err
    assert not (run / "evaluation.json").exists()
    whole = evaluation._evaluate

    def overwritten(*args):
        assert helpers.run(*helpers.QUICK, "--output", run, "--overwrite") == 2
        assert "another process is at work" in capfd.readouterr().err
        whole(*args)

    monkeypatch.setattr(evaluation, "_evaluate", overwritten)
    assert helpers.evaluate(run, "--output", tmp_path / "elsewhere") == 0


def test_a_network_that_was_overwritten_meanwhile_is_not_written_down(run, others, tmp_path, capfd, monkeypatch):
    """Where no lock can be had, as in a folder that can only be read."""

    def overwrite(*_):
        shutil.rmtree(run)
        shutil.copytree(others / "rate", run)

    before = evaluation._contents
    monkeypatch.setattr(evaluation, "_contents", lambda *args: (overwrite(), before(*args))[1])
    assert helpers.evaluate(run, "--output", tmp_path / "out") == 2
    assert "was overwritten meanwhile" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_numbers_go_into_the_folder_of_another_run(run, others, tmp_path, capfd):
    other = shutil.copytree(others / "rate", tmp_path / "other")
    for main in (helpers.evaluate, lambda *argv: helpers.call(audit.main, *argv)):
        helpers.assert_refused(capfd, tmp_path, main, run, "--output", other, says="holds another run")
    initial = lambda *argv: helpers.call(audit.main, "--model", "lenet", *argv)  # noqa: E731
    helpers.assert_refused(capfd, tmp_path, initial, "--output", other, says="holds another run")


BESTS = [  # another run, and what is left of this one; of equal configurations only results.json tells
    ("rate", ("config.json", "results.json")), ("rate", ("config.json",)), ("rate", ("results.json",)),
    ("images", ("config.json", "results.json")), ("images", ("results.json",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kept"), BESTS)
def test_a_best_of_another_run_is_refused(run, others, tmp_path, capfd, name, kept):
    shutil.rmtree(run / "best")
    shutil.copytree(others / name / "best", run / "best")
    for file in {"config.json", "results.json"} - set(kept):
        (run / file).unlink()
    doors = [helpers.evaluate, lambda *argv: helpers.call(audit.main, *argv)]
    if "results.json" in kept:
        doors.append(lambda folder: helpers.call(report.main, folder, "--output", tmp_path / "out"))
    for main in doors:
        helpers.assert_refused(capfd, tmp_path, main, run, says="files of different runs")


EDITED = {"epochs": 3, "learning_rate": 1e-3, "batch_size": 16, "data_seed": 1, "precision": "bfloat16", "init": "he",
          "schedule": "cosine", "weight_decay": 0.1, "label_smoothing": 0.1, "seed_map": "loop", "l2": 0.1,
          "seeds": [3, 0]}  # fmt: skip


@pytest.mark.parametrize("which", ["finished", "stopped"])
@pytest.mark.parametrize("name", EDITED)
def test_an_edited_configuration_is_not_resumed(synthetic, request, tmp_path, capfd, name, which):
    """Nor with the option that now stands in it."""
    run = shutil.copytree(request.getfixturevalue(which), tmp_path / "run")
    capfd.readouterr()  # of the fixture
    contents = json.loads((run / "config.json").read_text()) | {name: EDITED[name]}
    (run / "config.json").write_text(json.dumps(contents))
    words = ["--setting", 1, "--model", "lenet", "--output", run, "--resume"]
    says = "" if name == "data_seed" else name  # its data are others, too
    helpers.assert_refused(capfd, tmp_path, helpers.run, *words, says=says)
    value = ",".join(map(str, EDITED[name])) if name == "seeds" else EDITED[name]
    words += [f"--{name.replace('_', '-')}", value]
    helpers.assert_refused(capfd, tmp_path, helpers.run, *words, says=says)


def test_edited_data_are_not_resumed(synthetic, stopped, tmp_path, capfd, monkeypatch):
    """Neither the digest in config.json nor the data themselves can be exchanged; both together neither."""
    run = shutil.copytree(stopped, tmp_path / "run")
    monkeypatch.setattr(data, "load", lambda *args, **more: small_digits.load(*args, **{**more, "data_seed": 9}))
    others = data.digest(data.load("mnist_5k", 1))
    contents = json.loads((run / "config.json").read_text()) | {"data_digest": others}
    (run / "config.json").write_text(json.dumps(contents))
    words = [*helpers.QUICK, "--output", run, "--resume"]
    helpers.assert_refused(capfd, tmp_path, helpers.run, *words, says="data_digest")


def test_a_save_of_before_it_held_the_configuration_is_continued(synthetic, finished, stopped, tmp_path, monkeypatch):
    """As version 0.1 made it; what it says of its epoch is still believed."""
    run = shutil.copytree(stopped, tmp_path / "run")
    record = folders.resume_record(run)
    assert record.pop("config")["epochs"] == 2
    monkeypatch.setattr(folders, "resume_record", lambda folder: record)
    assert helpers.run(*helpers.QUICK, "--output", run, "--resume") == 0
    assert helpers.numbers(run) == helpers.numbers(finished)


def test_a_finished_run_is_not_finished_with_what_denies_it(run, tmp_path, capfd):
    contents = json.loads((run / "results.json").read_text())
    contents["test_accuracy"][0] = 1.0
    (run / "results.json").write_text(json.dumps(contents))
    words = [*helpers.QUICK, "--output", run, "--resume"]
    helpers.assert_refused(capfd, tmp_path, helpers.run, *words, says="test_accuracy does not follow")
    helpers.assert_refused(capfd, tmp_path, helpers.evaluate, run, says="test_accuracy does not follow")


def test_a_cell_in_the_folder_of_another_and_a_link_to_another_run_are_refused(run, others, tmp_path, capfd):
    out = tmp_path / "out"
    assert helpers.call(report.main, run, "--output", out) == 0
    target = out / "mnist_5k" / "setting1_lenet"
    target.rename(target.with_name("setting2_lenet"))
    refused(capfd, tmp_path, report.main, run, "--output", out, says="remove it from there")
    shutil.rmtree(out / "mnist_5k" / "setting2_lenet")
    other = shutil.copytree(others / "rate", tmp_path / "other")
    target.symlink_to(other)
    refused(capfd, tmp_path, report.main, run, "--output", out, says="links to, another run")
    target.unlink()
    target.mkdir()
    shutil.copytree(others / "rate", target, dirs_exist_ok=True)  # trained there
    refused(capfd, tmp_path, report.main, run, "--output", out, says="is, or links to, another run")


def test_what_cannot_be_drawn_is_not_copied(run, tmp_path, monkeypatch, capfd):
    out = tmp_path / "out"

    def fail(*_):
        raise OSError("no space left")

    for place in ("pages.write_html", "plots.plot_confusion", "invariant_page.write"):
        monkeypatch.setattr(f"experiments.reporting.gathering.{place}", fail)
        refused(capfd, tmp_path, report.main, run, "--output", out, says="no space left")
        monkeypatch.undo()


def test_a_run_written_while_it_is_read_is_not_mixed(run, others, tmp_path, monkeypatch, capfd):
    before = reading.read_angles

    def overwrite(folder, results):
        shutil.rmtree(run)
        shutil.copytree(others / "rate", run)
        return before(folder, results)

    monkeypatch.setattr(reading, "read_angles", overwrite)
    assert helpers.call(report.main, run, "--output", tmp_path / "out") == 2
    assert "was written while it was read" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
