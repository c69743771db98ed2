"""A table of angles has a row for each seed and angle, and says whose it is."""

import pytest

from experiments.runs import results

EVALUATION = {
    "dataset": "mnist_5k", "best_digest": "abc", "seeds": [3, 1],
    "angles": {"angle": [-15, 0], "accuracy": [[0.5, 1 / 3], [1.0, 0.25]]},
}  # fmt: skip


def test_a_row_for_each_seed_and_angle(tmp_path):
    results.write_angles(tmp_path / "angles.csv", EVALUATION)
    assert (tmp_path / "angles.csv").read_text().splitlines() == [
        "seed,angle,accuracy,dataset,best_digest", "3,-15,0.5,mnist_5k,abc", "3,0,0.333333,mnist_5k,abc",
        "1,-15,1,mnist_5k,abc", "1,0,0.25,mnist_5k,abc",
    ]  # fmt: skip


@pytest.mark.parametrize("change", [{"seeds": [3]}, {"angles": {"angle": [0], "accuracy": [[0.5, 0.5]] * 2}}])
def test_another_number_of_seeds_or_angles_is_not_written(tmp_path, change):
    with pytest.raises(ValueError, match="zip"):
        results.write_angles(tmp_path / "angles.csv", EVALUATION | change)
    assert not list(tmp_path.iterdir())
