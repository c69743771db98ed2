"""The report's table from any finished cells, and the paired comparison."""

import json

import numpy as np
import pytest

from benchmarks import compare_accuracy
from experiments.reporting import tables
from tests.experiments import helpers


def test_failed_runs_are_marked_and_steps_counted():
    (row,) = tables.table_rows([helpers.cell("lenet")])
    assert row["runs"] == [(0.9, False), (0.8, False), (0.1, True)]
    assert row["steps"] == 2 * 14  # 3,500 images in batches of 256
    assert tables.table_rows([helpers.cell("lenet", setting=4)])[0]["steps"] == 2 * 69


def test_means_leave_failed_seeds_out_unless_all_failed():
    cell = helpers.cell("lenet")
    values = [[1.0, 2.0], [3.0, 4.0], [50.0, 60.0]]
    assert tables.of_good(cell, values).tolist() == values[:2]
    assert tables.of_good(cell | {"failed_seeds": cell["seeds"]}, values).tolist() == values


REPORTS = {"dataset": "mnist", "epochs": 200, "batch_size": 4096}
"""The report's own protocol."""

UNLIKE = {"epochs": 3, "batch_size": 128, "learning_rate": 1e-3, "schedule": "cosine", "weight_decay": 0.1,
          "label_smoothing": 0.1, "precision": "bfloat16", "data_seed": 1}  # fmt: skip
"""Fields that change what a training comes to, and another value of each."""


def test_the_reports_mean_stands_beside_its_own_protocol_on_mnist_only():
    """And beside other epochs and batches, which are named."""
    own = helpers.cell("lenet", **REPORTS)
    for shorter in ({}, {"epochs": 3}, {"batch_size": 128}):
        assert tables.table_rows([own | shorter])[0]["report"] == 0.9866
    others = [
        {"dataset": "mnist_5k"},
        {"dataset": "fashion_mnist"},
        {"init": "he"},
        *({n: v} for n, v in UNLIKE.items() if n not in ("epochs", "batch_size")),
    ]
    for other in others:
        row = tables.table_rows([own | other])[0]
        assert (row["report"], row["distance"]) == (None, None), other


PRINTED = {"lenet": (0.987, 0.984, 0.620, 0.979), "lenet_fconv": (0.978, 0.979, 0.612, 0.973),
           "alexnet": (0.995, 0.994, 0.675, 0.993), "alexnet_fconv": (0.990, 0.992, 0.671, 0.990)}  # fmt: skip
"""The means that the report itself prints, without its failed runs."""


@pytest.mark.parametrize("model", PRINTED)
def test_the_reports_means_are_those_of_its_runs(model):
    cells = [helpers.cell(model, setting=setting, **REPORTS) for setting in (1, 2, 3, 4)]
    means = [row["report"] for row in tables.table_rows(cells)]
    assert [round(mean, 3) for mean in means] == list(PRINTED[model])


def test_the_distance_from_the_report_is_in_standard_errors_of_both_means():
    ours = (0.970, 0.980, 0.990)
    cell = helpers.cell("lenet", accuracy=ours, failed=(), setting=1, **REPORTS)
    report = [0.986, 0.985, 0.986, 0.988, 0.988]
    error = np.sqrt(np.var(ours, ddof=1) / 3 + max(np.var(report, ddof=1), 0.001**2 / 12) / 5)
    assert tables.table_rows([cell])[0]["distance"] == pytest.approx((0.98 - np.mean(report)) / error)
    table = tables.accuracy_table([cell])
    assert table.head[-1] == "standard errors"
    assert table.rows[0][-2:] == ["0.9866", "-1.1"]
    assert any("standard errors" in note for note in table.notes)
    alone = helpers.cell("lenet", accuracy=(0.98,), seeds=(0,), failed=(), **REPORTS)
    assert tables.table_rows([alone])[0]["distance"] is None


@pytest.mark.parametrize("field", UNLIKE)
def test_only_cells_trained_alike_are_compared(field):
    """Equal numbers of steps are not enough: half the batches of half the epochs make as many."""
    pair = [helpers.cell("lenet_fconv"), helpers.cell("lenet")]
    assert len(tables.comparisons(pair)) == 1
    for unlike in (0, 1):
        changed = [cell | ({field: UNLIKE[field]} if i == unlike else {}) for i, cell in enumerate(pair)]
        assert not tables.comparisons(changed)
    both = [cell | {field: UNLIKE[field]} for cell in pair]
    assert len(tables.comparisons(both)) == 1


@pytest.mark.parametrize("field", UNLIKE)
def test_a_cell_of_another_protocol_is_named(field):
    """Beside cells of their protocols; epochs and batches stand in the row, and are named beside the report's mean."""
    cells = [helpers.cell("lenet", **REPORTS), helpers.cell("lenet_fconv", **REPORTS) | {field: UNLIKE[field]}]
    said = [note for note in tables.accuracy_table(cells).notes if "not by the " in note]
    here = [cell | {"dataset": "mnist_5k"} for cell in cells]
    if field in ("epochs", "batch_size"):
        assert tables.table_rows(cells)[1]["report"] is not None
        assert not [note for note in tables.accuracy_table(here).notes if "not by the " in note]
    if field in tables.FIXED and field != "epochs":
        assert not said
    else:
        assert len(said) == 1
        there = "default" if tables.table_rows(cells)[1]["report"] is None else "there"
        assert f"{field} {UNLIKE[field]} ({there} " in said[0]
        assert "`lenet_fconv`" in said[0]


@pytest.mark.parametrize("field", [None, *UNLIKE])
def test_pytorchs_numbers_stand_beside_those_trained_alike_only(field, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare_accuracy, "RESULTS", tmp_path)
    ours, theirs = helpers.cell("lenet"), helpers.cell("lenet") | ({field: UNLIKE[field]} if field else {})
    theirs |= {"versions": {"torch": "2.13.0"}, "device": "a CPU"}
    files = {"mnist_5k/setting1_lenet/results.json": ours, "benchmarks/pytorch_lenet.json": {"results": [theirs]}}
    for name, contents in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(json.dumps(contents))
    if field:
        with pytest.raises(SystemExit, match=f"not trained alike: {field} differ"):
            compare_accuracy.main()
    else:
        compare_accuracy.main()
        said = capsys.readouterr().out
        assert "| +0.0000 |" in said
        assert "; a CPU, torch 2.13.0, batches of " in said


def test_results_of_before_there_were_schedules_are_compared():
    old = helpers.cell("lenet")
    for name in ("schedule", "weight_decay", "label_smoothing"):
        del old[name]
    assert len(tables.comparisons([helpers.cell("lenet_fconv"), old])) == 1


def test_comparison_is_paired_by_seed_without_failed_ones():
    fconv = helpers.cell("lenet_fconv", accuracy=(0.95, 0.82, 0.7, 0.6), seeds=(0, 1, 2, 7), failed=())
    (row,) = tables.comparisons([fconv, helpers.cell("lenet")])
    assert row["n"] == 2  # seed 2 failed in one, seed 7 is in one only
    assert row["difference"] == pytest.approx(0.035)
    # t(0.975, 1) = 12.706; the differences are 0.05 and 0.02.
    assert row["high"] - row["difference"] == pytest.approx(
        12.706 * np.std([0.05, 0.02], ddof=1) / np.sqrt(2), rel=1e-3
    )


def test_other_initial_weights_are_compared_with_plain_ones_of_the_report():
    cells = [helpers.cell("lenet"), helpers.cell("lenet_fconv"), helpers.cell("lenet_fconv", init="he")]
    assert [row["pair"] for row in tables.comparisons(cells)] == ["lenet_fconv - lenet", "lenet_fconv (he) - lenet"]
    cells.append(helpers.cell("lenet", init="he"))
    assert tables.comparisons(cells)[1]["pair"] == "lenet_fconv (he) - lenet (he)"


def test_unequal_trainings_and_other_settings_are_not_compared():
    assert not tables.comparisons([helpers.cell("lenet_fconv", epochs=3), helpers.cell("lenet")])
    assert not tables.comparisons([helpers.cell("lenet_fconv", setting=3), helpers.cell("lenet")])
    assert not tables.comparisons([helpers.cell("lenet_fconv", dataset="mnist"), helpers.cell("lenet")])


def test_a_single_common_seed_has_no_interval():
    pair = [helpers.cell("lenet_fconv", accuracy=(0.5,), seeds=(0,), failed=()), helpers.cell("lenet")]
    assert tables.comparison_table(pair).rows[0][-1] == "-"


def test_classes_leave_failed_seeds_out():
    fine, failed = [0.5] * 10, [0.0] * 10
    table = tables.class_table([helpers.cell("lenet") | {"per_class_accuracy": [fine, fine, failed]}])
    assert table.rows[0][3:] == ["0.500"] * 10
    all_failed = helpers.cell("lenet", failed=(0, 1, 2)) | {"per_class_accuracy": [fine, failed, failed]}
    table = tables.class_table([all_failed])
    assert table.rows[0][3:] == [""] * 10


def test_a_network_that_has_not_left_chance_is_said_to():
    stuck = helpers.cell("alexnet_fconv", accuracy=(0.1, 0.1), failed=(0, 1), seeds=(0, 1))
    notes = tables.accuracy_table([stuck, helpers.cell("alexnet_fconv", setting=2)]).notes
    said = [note for note in notes if "had not left chance" in note]
    assert len(said) == 1
    assert "setting 1" in said[0]
    assert "28 steps" in said[0]
    assert "report's initial" in said[0]


def test_where_failed_or_chance_is_said_the_rule_stands():
    """After two epochs a validation accuracy under 0.2 may be a slow start."""
    early = helpers.cell("lenet", dataset="mnist", epochs=2, failed=(0, 1, 2), accuracy=(0.15, 0.15, 0.15))
    notes = " ".join(tables.accuracy_table([early]).notes)
    assert "validation accuracy under 0.2" in notes
    assert "stuck" not in notes


def test_a_short_training_says_how_much_it_still_learned():
    curves = {"epochs": 8, "validation_curve": [[0.1] * 5 + [0.5, 0.6, 0.9], [0.1] * 5 + [0.5, 0.6, 0.7], [0.1] * 8]}
    short = helpers.cell("lenet", **REPORTS | curves | {"best_epoch": [8, 8, 1]})
    (said,) = [note for note in tables.accuracy_table([short]).notes if "not by the " in note]
    assert said.endswith(
        "epochs 8 (there 200). That may be why its mean is another: each seed's best epoch is 8, and the validation "
        "accuracy changed by +0.3000 over the last 2 epochs."
    )
    (said,) = [
        note for note in tables.accuracy_table([short | {"best_epoch": [7, 8, 1]}]).notes if "not by the " in note
    ]
    assert "the best epochs are 7 to 8," in said
    (said,) = [
        note for note in tables.accuracy_table([helpers.cell("lenet", **REPORTS | {"epochs": 1})]).notes
        if "not by the " in note
    ]  # fmt: skip
    assert said.endswith("That may be why its mean is another.")
