"""The report's table from any finished cells, and the command that gathers them."""

import csv
import json

import numpy as np
import pytest

from experiments import report, tables

VERSIONS = {"python": "3", "jax": "1", "flax": "2", "optax": "3"}


def cell(model, setting=1, dataset="mnist_5k", accuracy=(0.9, 0.8, 0.1), failed=(2,), seeds=(0, 1, 2)):
    good = [a for s, a in zip(seeds, accuracy, strict=True) if s not in failed]
    return {
        "model": model, "setting": setting, "dataset": dataset, "seeds": list(seeds), "init": "report",
        "epochs": 2, "batch_size": 256, "test_accuracy": list(accuracy), "failed_seeds": list(failed),
        "mean": float(np.mean(good)), "std": float(np.std(good, ddof=1)), "versions": VERSIONS, "command": "x",
        "device": "a machine", "wall_seconds": 60.0, "train_loss": [[2.0, 1.0]] * len(seeds),
        "validation_curve": [[0.1, 0.5]] * len(seeds),
    }  # fmt: skip


def test_failed_runs_are_marked_and_steps_counted():
    (row,) = tables.table_rows([cell("lenet")])
    assert row["runs"] == [(0.9, False), (0.8, False), (0.1, True)]
    assert row["steps"] == 2 * 14  # 3,500 images in batches of 256
    assert tables.table_rows([cell("lenet", setting=4)])[0]["steps"] == 2 * 69


def test_the_reports_mean_stands_beside_mnist_only():
    assert tables.table_rows([cell("lenet")])[0]["report"] is None
    assert tables.table_rows([cell("lenet", dataset="mnist")])[0]["report"] == 0.987


def test_comparison_is_paired_by_seed_without_failed_ones():
    fconv = cell("lenet_fconv", accuracy=(0.95, 0.82, 0.7, 0.6), seeds=(0, 1, 2, 7), failed=())
    (row,) = tables.comparisons([fconv, cell("lenet")])
    assert row["n"] == 2  # seed 2 failed in one, seed 7 is in one only
    assert row["difference"] == pytest.approx(0.035)
    # t(0.975, 1) = 12.706; the differences are 0.05 and 0.02.
    assert row["high"] - row["difference"] == pytest.approx(
        12.706 * np.std([0.05, 0.02], ddof=1) / np.sqrt(2), rel=1e-3
    )


def test_report_gathers_runs_and_keeps_earlier_ones(tmp_path, capsys):
    for number, model in enumerate(("lenet", "lenet_fconv")):
        run = tmp_path / f"run{number}"
        run.mkdir()
        (run / "results.json").write_text(json.dumps(cell(model)))
        (run / "angles.csv").write_text("seed,angle,accuracy\n0,0,0.9\n0,90,0.2\n")
        assert report.main([str(run), "--output", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    assert {path.name for path in (out / "mnist_5k").iterdir()} == {"setting1_lenet", "setting1_lenet_fconv"}
    text = (out / "table2.md").read_text()
    assert "not MNIST" in text and "**0.100**" in text and "lenet_fconv - lenet" in text
    with (out / "table2.csv").open() as file:
        rows = list(csv.reader(file))
    assert len(rows) == 3 and rows[1][2] == "lenet"
    for name in ("figure3.png", "angles.png"):
        assert (out / "figures" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", [None, "not json", "{}", "[]", '{"model": "lenet"}'])
def test_what_is_no_run_is_refused(tmp_path, capsys, content):
    run = tmp_path / "run"
    run.mkdir()
    if content is not None:
        (run / "results.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        report.main([str(run), "--output", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out" / "table2.md").exists()
