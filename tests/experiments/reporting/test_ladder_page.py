"""The page of the ladders."""

from experiments.reporting import ladder_page
from experiments.settings import RUNGS


def test_runs_at_chance_are_told_apart():
    """One of two seeds is dead as published: the mean gains 45 points, the living one 10."""
    tables = {RUNGS[1]: [0.1, 0.8], RUNGS[2]: [0.9, 0.9], RUNGS[3]: [0.9, 0.9]}
    found = {
        rung: {"num_parameters": 1, "test_accuracy": dict.fromkeys("1234", values)} for rung, values in tables.items()
    }
    init, pooling = (ladder_page._points(rung, {"x": {"name": "x", "rungs": found}}) for rung in RUNGS[2:4])
    assert "+45.0, +45.0" in init
    assert "(without the runs at chance: +10.0, +10.0, +10.0, +10.0)" in init
    assert "chance" not in pooling
    assert "+0.0" in pooling


def test_a_rung_has_the_mean_the_sample_deviation_and_the_points_over_the_rung_above():
    accuracy = {RUNGS[0]: [0.5], RUNGS[1]: [0.8, 0.9], RUNGS[2]: [0.9, 0.9]}
    rungs = {
        rung: {"num_parameters": 1234, "test_accuracy": dict.fromkeys("1234", values)}
        for rung, values in accuracy.items()
    }
    rows = ladder_page._table({"rungs": rungs}).rows
    assert [row[:3] for row in rows] == [
        [RUNGS[0], "1,234", "0.500"],
        [RUNGS[1], "1,234", "0.850 ± 0.071"],  # sqrt((0.05^2 + 0.05^2) / (2 - 1))
        [RUNGS[2], "1,234", "0.900 ± 0.000 (+5.0)"],
    ]
