"""The page of tests at uniform angles."""

import pytest

from experiments.reporting import uniform_page
from experiments.runs.results import write_uniform
from tests.experiments import helpers

ACCURACY = {"bilinear": [[0.5, 0.7], [0.6, 0.8]], "cubic": [[0.9, 0.9], [0.9, 0.9]]}  # [set of angles][seed]


def cells(tmp_path, *settings):
    kept = {}
    for setting in settings:
        folder = tmp_path / f"setting{setting}"
        folder.mkdir()
        more = {"best_digest": "1" * 64, "num_parameters": 98_858}
        cell = helpers.cell("stack_c8", setting, accuracy=(0.97, 0.95), failed=(), seeds=(0, 4), **more)
        kept[folder] = cell
        found = {"angle_seeds": [0, 1], "accuracy": ACCURACY}
        write_uniform(folder / "uniform.csv", {**cell, "uniform": found})
    return kept


def test_upright_runs_are_listed_with_means_over_sets_of_angles(tmp_path):
    kept = cells(tmp_path, 1, 3)
    assert uniform_page.write(tmp_path, kept) == ["uniform.md"]
    lines = [line for line in (tmp_path / "uniform.md").read_text().splitlines() if line.startswith("| mnist_5k")]
    (line,) = lines  # that of setting 3 was chosen on rotated digits
    assert "| `stack_c8` | 98,858 |" in line
    assert line.endswith("| 0.9600 ± 0.0141 | 0.6500 ± 0.1414 | 0.9000 ± 0.0000 |")


def test_a_seed_that_failed_is_left_out(tmp_path):
    kept = cells(tmp_path, 1)
    kept[tmp_path / "setting1"] |= {"failed_seeds": [4]}
    uniform_page.write(tmp_path, kept)
    (line,) = [line for line in (tmp_path / "uniform.md").read_text().splitlines() if line.startswith("| mnist_5k")]
    assert line.endswith("| 1 | 0.9700 | 0.5500 | 0.9000 |")


@pytest.mark.parametrize(("setting", "dataset"), [(3, "mnist"), (1, "mnist_rot_like")])
def test_without_a_run_of_upright_digits_there_is_no_page(tmp_path, setting, dataset):
    kept = cells(tmp_path, setting)
    for cell in kept.values():
        cell["dataset"] = dataset
    assert uniform_page.write(tmp_path, kept) == []
    assert not (tmp_path / "uniform.md").exists()
