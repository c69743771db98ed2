"""Which trainings a sweep makes, and that a pair of settings costs one."""

import json

import pytest

from experiments import run, sweep


def test_settings_that_train_on_the_same_images_share_a_training():
    assert sweep.shares((1, 2, 3, 4), ("lenet",), (0, 1)) == [("lenet", (1, 3)), ("lenet", (2, 4))]
    assert sweep.shares((3,), ("lenet", "alexnet"), (0, 1)) == [("lenet", (3,)), ("alexnet", (3,))]


def test_shards_part_the_whole():
    models = ("lenet", "lenet_fconv", "alexnet")
    whole = sweep.shares((1, 2, 3, 4), models, (0, 1))
    parts = [sweep.shares((1, 2, 3, 4), models, (i, 4)) for i in range(4)]
    assert sorted(whole) == sorted(training for part in parts for training in part)


@pytest.mark.parametrize(
    "arguments",
    [["--settings", "5"], ["--settings", "1,1"], ["--models", "lenet,nonsense"], ["--shard", "0/2"], ["--shard", "3/2"],
     ["--shard", "x"], ["--settings", ""], ["--epochs", "0"]],
)  # fmt: skip
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        sweep.main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_pair_gives_what_single_runs_give_and_is_not_trained_again(tmp_path, capsys):
    options = ["--dataset", "mnist_5k", "--epochs", "2", "--num-seeds", "1", "--batch-size", "1000"]
    options += ["--data-dir", str(tmp_path / "data")]
    pair = ["--settings", "1,3", "--models", "lenet", *options, "--output", str(tmp_path / "sweep")]
    assert sweep.main(pair) == 0
    alone = ["--setting", "3", "--model", "lenet", *options, "--output", str(tmp_path / "alone")]
    assert run.main(alone) == 0
    both = [
        json.loads((folder / "results.json").read_text())
        for folder in (tmp_path / "sweep" / "setting3_lenet_mnist_5k", tmp_path / "alone")
    ]
    for name in ("test_accuracy", "train_loss", "validation_curve", "best_epoch", "confusion"):
        assert both[0][name] == both[1][name], name
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert sweep.main(pair) == 0
    assert capsys.readouterr().out.count("is finished") == 2
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob("*") if path.is_file()}
