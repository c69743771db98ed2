"""Which trainings a sweep makes, and that a pair of settings costs one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from experiments import sweep
from experiments.runs import config
from experiments.runs import folder as folders
from experiments.runs.progress import Bar
from tests.experiments import helpers, small_digits

pytestmark = pytest.mark.unoptimized  # trainings are compared with each other; most of their time is compiling


@pytest.mark.parametrize(
    "arguments",
    [["--settings", "5"], ["--settings", "1,1"], ["--models", "lenet,nonsense"], ["--shard", "0/2"], ["--shard", "3/2"],
     ["--shard", "x"], ["--settings", ""], ["--epochs", "0"],
     ["--resume", "--overwrite"]],
)  # fmt: skip
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        sweep.main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


OPTIONS = helpers.QUICK[4:]  # of `finished` too: what it has compiled is found


@pytest.mark.slow
def test_a_pair_gives_what_single_runs_give_and_is_not_trained_again(synthetic, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", small_digits.environment(tmp_path / "site")["PYTHONPATH"])
    pair = ["--settings", "1,3", "--models", "lenet", *OPTIONS, "--output", str(tmp_path / "sweep")]
    assert sweep.main(pair) == 0
    # A process too: a sweep's child has flags of its own, by which products may round otherwise than in this one.
    alone = ["--setting", "3", "--model", "lenet", *OPTIONS, "--output", str(tmp_path / "alone")]
    subprocess.run([sys.executable, "-m", "experiments.run", *alone], check=True)
    both = [
        json.loads((folder / "results.json").read_text())
        for folder in (tmp_path / "sweep" / "setting3_lenet_mnist_5k", tmp_path / "alone")
    ]
    for name in ("test_accuracy", "train_loss", "validation_curve", "best_epoch", "confusion"):
        assert both[0][name] == both[1][name], name
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob("*") if path.is_file()}
    capfd.readouterr()
    assert sweep.main(pair) == 0
    said = capfd.readouterr().out
    assert "training 1 of 1: lenet, settings 1, 3" in said
    assert said.count("setting3_lenet_mnist_5k") == 1
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob("*") if path.is_file()}


@pytest.fixture
def swept(tmp_path):
    """Runs a sweep of lenet in a process of its own; cells of two epochs of three steps."""
    words = ["--models", "lenet", *OPTIONS, "--output", str(tmp_path / "out")]
    environment = small_digits.environment(tmp_path / "site")

    def start(*more):
        command = [sys.executable, "-m", "experiments.sweep", *words, *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start, tmp_path / "out"


@pytest.mark.slow
def test_failed_trainings_are_named_at_the_end_and_the_others_done(swept):
    start, folder = swept
    damaged = folder / "setting1_lenet_classic_mnist_5k"
    damaged.mkdir(parents=True)
    (damaged / "config.json").write_text("{")
    process = start("--settings", "1", "--models", "lenet_classic,lenet", "--epochs", "1")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "training 2 of 2: lenet, setting 1" in out
    assert (folder / "setting1_lenet_mnist_5k/results.json").exists()
    last = err.strip().splitlines()[-2:]
    assert "failed: lenet_classic, setting 1: " in last[0]
    assert "config.json is damaged" in last[0]
    assert "1 of 2 trainings failed" in last[1]
    assert "Traceback" not in err


def test_what_is_said_of_going_on():
    read = sweep.parser().parse_args
    assert config.again(read([])) == "the same command continues"
    assert config.again(read(["--overwrite"])).startswith("the same command without --overwrite continues, and leaves")


@pytest.mark.slow
def test_overwrite_makes_finished_cells_anew(swept):
    start, folder = swept
    finished = folder / "setting1_lenet_mnist_5k"
    finished.mkdir(parents=True)
    (finished / "config.json").write_text("{")
    (finished / "results.json").write_text("{}")
    process = start("--settings", "1", "--epochs", "1", "--overwrite")
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    results = json.loads((finished / "results.json").read_text())
    assert results["epochs"] == 1
    assert "--overwrite" in results["command"]


@pytest.mark.slow
def test_a_cell_that_another_process_works_on_is_left_to_it(swept):
    start, folder = swept
    with folders.locked(folder / "setting1_lenet_mnist_5k"):
        process = start("--settings", "1")
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "at work on it: lenet, setting 1" in out
    assert "Traceback" not in err
    assert {path.name for path in (folder / "setting1_lenet_mnist_5k").iterdir()} == {".lock"}


@pytest.mark.slow
@pytest.mark.parametrize(  # and SIGTERM at the end
    "number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.long)]
)
def test_a_stopped_sweep_is_continued_by_the_same_command(swept, number):
    start, folder = swept
    more = ("--settings", "1,3", "--epochs", "2000")
    saves, results = folder / "setting1_lenet_mnist_5k" / "resume", folder / "setting1_lenet_mnist_5k" / "results.json"
    process = start(*more)
    wait_for(process, lambda: any(path.name.isdigit() for path in saves.glob("*")))  # a finished save
    process.send_signal(number)
    process.communicate(timeout=60)  # ends when the child has closed its output too
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert not results.exists()
    again = start(*more)
    said = []
    while not (said and "resumed after epoch" in said[-1]):
        said.append(again.stdout.readline())
        assert said[-1], "ended without resuming"
    again.send_signal(signal.SIGTERM)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 130
    assert "the same command continues" in err


def wait_for(process, condition):
    """Until a condition that the process brings about."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_pair_of_which_one_was_started_alone(synthetic, tmp_path, monkeypatch):
    """A save for settings 1 and 3 serves 1 alone; a save for 1 alone makes the sweep train them one by one."""
    options = ["--models", "lenet", "--settings", "1,3", *helpers.QUICK[4:], "--output", str(tmp_path)]
    stop = {"after": 2}
    report = Bar.report

    def count(bar, position, num_steps):
        stop["after"] -= 1
        if stop["after"] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        report(bar, position, num_steps)

    monkeypatch.setattr(Bar, "report", count)
    assert sweep.main([*options, "--child", "1,mnist_5k"]) == 130
    stop["after"] = 2
    alone, three = (tmp_path / f"setting{number}_lenet_mnist_5k" for number in (1, 3))
    assert helpers.run(*helpers.QUICK, "--output", alone, "--resume") == 130  # hands over what belongs to setting 3
    assert [folders.resume_record(alone)["settings"], folders.resume_record(three)["settings"]] == [[1], [1, 3]]
    assert sweep.main([*options, "--child", "1,mnist_5k"]) == 0
    assert helpers.run("--setting", "1", *helpers.QUICK[2:], "--output", tmp_path / "one") == 0
    assert helpers.run("--setting", "3", *helpers.QUICK[2:], "--output", tmp_path / "three") == 0
    assert helpers.numbers(alone) == helpers.numbers(tmp_path / "one")
    assert helpers.numbers(three) == helpers.numbers(tmp_path / "three")


def test_data_that_are_rotated_already_have_one_setting(tmp_path, capfd):
    words = (sweep.main, "--dataset", "mnist_rot_like", "--output", tmp_path / "out")
    helpers.assert_refused(capfd, tmp_path, helpers.call, *words, says="rotated already: use --settings 1")
