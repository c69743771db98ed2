"""The report's table from any finished cells, and the paired comparison."""

import numpy as np
import pytest

from experiments.reporting import tables
from tests.experiments import helpers


def test_failed_runs_are_marked_and_steps_counted():
    (row,) = tables.table_rows([helpers.cell("lenet")])
    assert row["runs"] == [(0.9, False), (0.8, False), (0.1, True)]
    assert row["steps"] == 2 * 14  # 3,500 images in batches of 256
    assert tables.table_rows([helpers.cell("lenet", setting=4)])[0]["steps"] == 2 * 69


def test_the_reports_mean_stands_beside_mnist_only():
    assert tables.table_rows([helpers.cell("lenet")])[0]["report"] is None
    assert tables.table_rows([helpers.cell("lenet", dataset="mnist")])[0]["report"] == 0.987


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
    assert table.rows[0][3:] == ["0.167"] * 10


def test_a_network_that_has_not_left_chance_is_said_to():
    stuck = helpers.cell("alexnet_fconv", accuracy=(0.1, 0.1), failed=(0, 1), seeds=(0, 1))
    notes = tables.accuracy_table([stuck, helpers.cell("alexnet_fconv", setting=2)]).notes
    said = [note for note in notes if "had not left chance" in note]
    assert len(said) == 1
    assert "setting 1" in said[0]
    assert "28 steps" in said[0]
    assert "report's initial" in said[0]
