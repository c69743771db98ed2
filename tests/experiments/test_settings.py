"""The tables of settings and data sets, against the report."""

import subprocess
import sys

import pytest

from experiments.settings import DATASETS, INVARIANT, MODELS, SETTINGS, SPLITS, protocol


@pytest.mark.parametrize(
    ("number", "train", "validation", "test"),
    [(1, False, False, False), (2, True, False, False), (3, False, True, True), (4, True, True, True)],
)
def test_settings_are_the_reports(number, train, validation, test):
    setting = SETTINGS[number]
    assert setting.number == number
    assert [setting.is_rotated(split) for split in SPLITS] == [train, validation, test]


def test_protocols():
    assert (DATASETS["mnist"].protocol.epochs, DATASETS["mnist"].protocol.batch_size) == (200, 4096)
    assert all(dataset.protocol.learning_rate == 2e-4 for dataset in DATASETS.values())


def test_only_invariant_networks_leave_the_reports_protocol():
    for name in MODELS:
        own = protocol(name, "mnist_5k")
        assert (own == DATASETS["mnist_5k"].protocol) == (name not in INVARIANT)
        assert (own.schedule == "constant" and own.label_smoothing == 0.0) == (name not in INVARIANT)


@pytest.mark.parametrize(("dataset", "upright", "rotated"), [("mnist", 14, 68), ("mnist_5k", 14, 69)])
def test_steps_per_epoch_are_close_to_the_reports(dataset, upright, rotated):
    def steps(setting):
        return -(-DATASETS[dataset].num_images("train", setting) // DATASETS[dataset].protocol.batch_size)

    assert (steps(1), steps(2), steps(3), steps(4)) == (upright, rotated, upright, rotated)


def test_number_of_images():
    mnist = DATASETS["mnist"]
    assert [mnist.num_images(split, 4) for split in SPLITS] == [275_000, 25_000, 50_000]
    assert [mnist.num_images(split, 2) for split in SPLITS] == [275_000, 5_000, 10_000]
    assert sum(DATASETS["mnist_5k"].num_upright(split) for split in SPLITS) == 5_000


def test_importing_is_cheap():
    code = (
        "import sys, experiments.settings, experiments.data;"
        "print([name for name in ('jax', 'scipy', 'tensorflow_datasets', 'requests') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
