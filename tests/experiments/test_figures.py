import json

import numpy as np
import pytest

from experiments import data, figures
from experiments.reporting import measurements
from tests.experiments import helpers, small_digits

pytestmark = pytest.mark.unoptimized  # errors far from their bars, or files


def test_errors_fall_with_the_mesh_as_the_theory_says():
    errors = {name: np.array(values) for name, values in measurements.mesh_errors((20, 36, 68)).items()}
    ratios = np.log([36 / 20, 68 / 36])
    orders = {name: np.log(values[:-1] / values[1:]) / ratios for name, values in errors.items()}
    assert (orders["kink"] > 1.8).all()
    assert (orders["smooth"] > 3.5).all()
    assert (np.abs(orders["cut"]) < 0.5).all()  # the control: a mask that a square kernel cuts off stays


@pytest.mark.slow
def test_more_rotations_help_and_a_smoothed_basis_helps():
    images = measurements._image(28, 0.0)
    four, many = (measurements._invariance_error(images, 7, t, "report", True) for t in (4, 16))
    assert many < 0.7 * four
    assert measurements._invariance_error(images, 9, 8, "report", True) < measurements._invariance_error(
        images, 9, 8, "report", False
    )


@pytest.mark.slow
def test_all_figures_are_drawn(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(data, "load", small_digits.load)
    monkeypatch.setattr(measurements, "MESHES", (20, 36))
    monkeypatch.setattr(measurements, "ROTATIONS", (4, 8))
    monkeypatch.setattr(measurements, "KERNELS", (3,))
    out = tmp_path / "figures"
    cell = tmp_path / "results" / "mnist_5k" / "setting3_lenet"
    cell.mkdir(parents=True)
    (cell / "results.json").write_text(json.dumps(helpers.cell("lenet", 3, accuracy=(0.9,), failed=(), seeds=(0,))))
    (cell / "angles.csv").write_text("seed,angle,accuracy\n0,0,0.9\n0,90,0.2\n")
    assert helpers.call(figures.main, "--output", out, "--results", tmp_path / "results") == 0
    said = capfd.readouterr().out
    for name in ("basis.png", "features.png", "mesh.png", "choices.png", "upright.png", "six_nine.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
        assert name in said
    assert json.loads((out / "errors.json").read_text())["mesh_errors"]["kink"][0] > 0
    monkeypatch.setattr(measurements, "_invariance_error", lambda *args: 0.1)  # measured above
    assert helpers.call(figures.main, "--output", out, "--results", tmp_path / "nowhere") == 0
    assert "no gathered runs" in capfd.readouterr().out
    assert (out / "upright.png").exists()
    (tmp_path / "empty").mkdir()
    assert helpers.call(figures.main, "--output", out, "--results", tmp_path / "empty") == 0
    assert "upright" not in capfd.readouterr().out
    assert (out / "mesh.png").exists()
    assert not (out / "upright.png").exists()
    assert not (out / "six_nine.png").exists()


@pytest.mark.parametrize("argv", [(), ("--output",)])
def test_bad_arguments(argv):
    assert helpers.call(figures.main, *argv) == 2


def test_a_gathered_cell_that_is_not_right_is_refused_before_anything_is_drawn(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(data, "load", small_digits.load)
    cell = tmp_path / "results" / "mnist_5k" / "setting3_lenet"
    cell.mkdir(parents=True)
    (cell / "results.json").write_text(json.dumps(helpers.cell("lenet", 3) | {"mean": 0.99}))
    argv = ("--output", tmp_path / "figures", "--results", tmp_path / "results")
    helpers.assert_refused(
        capfd, tmp_path, lambda *words: helpers.call(figures.main, *words), *argv, says="mean does not follow"
    )


def test_results_that_are_a_file(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(data, "load", small_digits.load)
    (tmp_path / "file").write_text("")
    argv = ("--output", tmp_path / "figures", "--results", tmp_path / "file")
    helpers.assert_refused(capfd, tmp_path, lambda *words: helpers.call(figures.main, *words), *argv, says="is a file")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(data, "load", small_digits.load)
    (tmp_path / "file").write_text("")
    assert helpers.call(figures.main, "--output", tmp_path / "file" / "figures") == 2
    assert "choose another --output" in capfd.readouterr().err
