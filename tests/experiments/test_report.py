"""The command that gathers runs: tables, figures, the page."""

import csv
import json
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from experiments import report
from tests.experiments import helpers


def save(folder, cell, angles=None):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(cell))
    (folder / "angles.csv").write_text(helpers.angles(cell) if angles is None else angles)
    return str(folder)


class Page(HTMLParser):
    """Counts what a page holds and what it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_report_gathers_runs_and_keeps_earlier_ones(tmp_path, capsys):
    out = tmp_path / "out"
    for number, model in enumerate(("lenet", "lenet_fconv")):
        assert report.main([save(tmp_path / f"run{number}", helpers.cell(model)), "--output", str(out)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert {path.name for path in (out / "mnist_5k").iterdir()} == {"setting1_lenet", "setting1_lenet_fconv"}
    text = (out / "table2.md").read_text()
    assert "not MNIST" in text
    assert "**0.100**" in text
    assert "lenet_fconv - lenet" in text
    with (out / "table2.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 3
    assert rows[1][2] == "lenet"
    for name in ("figure3.png", "confusion.png", "angles.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    page = Page((out / "report.html").read_text())
    assert page.tags.count("table") == 4
    assert page.sources == ["figure3.png", "confusion.png", "angles.png"]  # files beside it
    assert report.main(["--output", str(out), str(tmp_path / "run0"), "--single-file"]) == 0
    page = Page((out / "report.html").read_text())
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_a_link_to_the_runs_own_folder_needs_no_copy(tmp_path):
    run, out = Path(save(tmp_path / "run", helpers.cell("lenet"))), tmp_path / "out"
    (out / "mnist_5k").mkdir(parents=True)
    (out / "mnist_5k" / "setting1_lenet").symlink_to(run)
    before = helpers.tree(run)
    assert report.main([str(run), "--output", str(out)]) == 0
    assert (out / "mnist_5k" / "setting1_lenet").is_symlink()
    assert helpers.tree(run) == before
    assert "lenet" in (out / "table2.md").read_text()


def test_data_sets_have_figures_of_their_own(tmp_path):
    runs = [helpers.cell("lenet"), helpers.cell("lenet", setting=2), helpers.cell("lenet", dataset="fashion_mnist")]
    named = [save(tmp_path / f"run{number}", contents) for number, contents in enumerate(runs)]
    assert report.main([*named, "--output", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert {"figure3.png", "figure3_fashion_mnist.png", "confusion_fashion_mnist.png"} < names


def test_initial_weights_stand_side_by_side(tmp_path):
    runs = [
        helpers.cell("alexnet_fconv", failed=(0, 1, 2)) | {"mean": None, "std": None},
        helpers.cell("alexnet_fconv", init="he"),
    ]
    named = [save(tmp_path / f"run{number}", contents) for number, contents in enumerate(runs)]
    assert report.main([*named, "--output", str(tmp_path / "out")]) == 0
    kept = {path.name for path in (tmp_path / "out" / "mnist_5k").iterdir()}
    assert kept == {"setting1_alexnet_fconv", "setting1_alexnet_fconv_he"}


HUGE, NULL = 3.4e38, None
LOSSES = {"huge": [HUGE, 1.0], "all huge": [HUGE, HUGE], "not a number": [1.0, NULL], "zero": [0.0, 0.0]}


def test_all_that_a_run_can_write_is_drawn(tmp_path):
    """A loss up to the largest float32, losses that are not numbers, a command that is no UTF-8 and has two lines.

    Each kind is a run of its own setting.
    """
    runs = []
    for setting, losses in enumerate(LOSSES.values(), start=1):
        cell = helpers.cell("lenet", setting, command="python -m experiments.run --output 'a\udcff\n|b'")
        cell |= {"train_loss": [losses] * 3} | (
            {"failed_seeds": [0, 1, 2], "mean": None, "std": None} if NULL in losses else {}
        )
        runs.append(save(tmp_path / f"run{setting}", cell))
    assert report.main([*runs, "--output", str(tmp_path / "out")]) == 0
    rows = [line for line in (tmp_path / "out" / "table2.md").read_text().splitlines() if "experiments.run" in line]
    assert len(rows) == len(LOSSES)
    assert all("a\\udcff \\|b" in row for row in rows)
    again = [str(path) for path in (tmp_path / "out" / "mnist_5k").iterdir()]
    assert report.main([*again, "--output", str(tmp_path / "out")]) == 0


def test_files_beside_the_runs_are_passed_over(tmp_path):
    named = [save(tmp_path / "run", helpers.cell("lenet")), str(tmp_path / "README.md")]
    (tmp_path / "README.md").write_text("# Runs")
    assert report.main([*named, "--output", str(tmp_path / "out")]) == 0
    with pytest.raises(SystemExit):
        report.main([named[1], "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit):  # a file of a run was meant as the run
        report.main([named[0], str(tmp_path / "run" / "results.json"), "--output", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


def test_runs_are_not_taken_for_copies(tmp_path, capfd):
    run = tmp_path / "checkpoints" / "setting1_lenet_mnist_5k"
    (run / "best").mkdir(parents=True)
    (run / "results.json").write_text(json.dumps(helpers.cell("lenet")))
    other = save(tmp_path / "run", helpers.cell("lenet_fconv"))
    arguments = (report.main, other, "--output", tmp_path)
    helpers.assert_refused(capfd, tmp_path, lambda *w: helpers.call(*w), *arguments, says="name another folder")


def test_two_runs_of_one_cell_are_refused(tmp_path, capsys):
    named = [save(tmp_path / f"run{number}", helpers.cell("lenet")) for number in range(2)]
    with pytest.raises(SystemExit) as stop:
        report.main([*named, "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "are runs of one cell" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sixteen_cells_take_seconds(tmp_path):
    models = ("lenet", "lenet_fconv", "alexnet", "alexnet_fconv")
    curves = {"train_loss": [[1.0] * 200] * 5, "validation_curve": [[0.5] * 200] * 5}
    named = []
    for setting in (1, 2, 3, 4):
        for model in models:
            contents = helpers.cell(model, setting, accuracy=(0.9,) * 5, seeds=range(5), failed=(), epochs=200) | curves
            named.append(save(tmp_path / f"{model}{setting}", contents))
    began = time.monotonic()
    assert report.main([*named, "--output", str(tmp_path / "out")]) == 0
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "content", [None, "not json", "{}", "[]", '{"model": "lenet"}', "cut", "short", "unnumbered", "[" * 100_000]
)
def test_what_is_no_run_is_refused(tmp_path, capsys, content):
    run = tmp_path / "run"
    run.mkdir()
    good = helpers.cell("lenet")
    made = {
        "cut": json.dumps(good)[:-20],
        "short": json.dumps(good | {"train_loss": [[1.0], [1.0], [1.0]]}),
        "unnumbered": json.dumps(good | {"test_accuracy": ["a", "b", "c"]}),
    }
    if content is not None:
        (run / "results.json").write_text(made.get(content, content))
    with pytest.raises(SystemExit) as stop:
        report.main([str(run), "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("angles", ["", "garbage", "seed,angle,accuracy\n0,0", "seed,angle,accuracy\n0,0,1.5\n",
                                    "seed,angle,accuracy\n0,0,0.9\n1,0,0.9\n0,90,0.2\n"])  # fmt: skip
def test_a_damaged_table_of_angles_is_refused_before_anything_is_written(tmp_path, capsys, angles):
    run = save(tmp_path / "run", helpers.cell("lenet"), angles)
    with pytest.raises(SystemExit) as stop:
        report.main([run, "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "angles.csv is not a table of angles" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
