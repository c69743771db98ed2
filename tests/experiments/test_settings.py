"""The tables of settings and data sets, against the report."""

import subprocess
import sys

import pytest

import fconv_jax.models
from experiments.rules import InputError
from experiments.settings import DATASETS, FIELDS, MODELS, NAMED, SETTINGS, SPLITS, RunConfig, protocol
from experiments.training.network import build, num_parameters


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
    for name in NAMED:
        own, is_invariant = protocol(name, "mnist_5k"), name.endswith("invariant") or name.startswith("stack")
        assert (own == DATASETS["mnist_5k"].protocol) != is_invariant
        assert (own.schedule == "constant" and own.label_smoothing == 0.0) != is_invariant


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
        "import sys, experiments.settings;"
        "from experiments import run, evaluate, sweep, report, convert, audit, figures, ladder, predict, export, demo;"
        "heavy = ('jax', 'flax', 'orbax', 'scipy', 'tensorflow_datasets', 'requests', 'matplotlib');"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_models_are_those_of_the_library():
    """But for those of images of any size, which no data set here asks for, and the stacks to compare with."""
    any_size = ("resnet18_fconv", "unet_fconv", "edsr_fconv")
    assert fconv_jax.models.MODELS.keys() - set(any_size) == set(NAMED) - {"stack_c4", "stack_c8"}


@pytest.mark.parametrize("name", ["stack_c4", "stack_c8"])
def test_stacks_have_about_the_parameters_of_the_network_that_they_are_compared_with(name):
    ours = num_parameters(build("lenet_fconv_invariant"))
    assert 0.95 * ours < num_parameters(build(name)) <= ours


def test_what_rows_refer_to_is_there():
    for name, spec in MODELS.items():
        assert all(other in NAMED for other in (*spec.beside, spec.plain) if other), name
        assert [len(runs) for runs in spec.report_runs] in ([], [5] * 4), name
        assert (spec.rung is None) == (name in NAMED), name


def test_only_rotated_images_are_rotated_anew():
    contents = {
        "model": "fconv_mnist", "setting": 1, "dataset": "mnist_rot", "data_seed": 0, "seeds": [0], "epochs": 1,
        "batch_size": 1, "learning_rate": 1.0, "init": "report", "precision": "float32", "seed_map": "auto",
    }  # fmt: skip
    assert RunConfig.checked(contents | {"augmentation": "rotations"}).augmentation == "rotations"
    with pytest.raises(InputError, match="augmentation: mnist is upright"):
        RunConfig.checked(contents | {"augmentation": "rotations", "dataset": "mnist"})
    for name, value in (("augmentation", "flips"), ("l2", -1.0), ("schedule", "step")):
        with pytest.raises(InputError, match=f"^{name}: "):
            RunConfig.checked(contents | {name: value})


def test_each_value_is_checked_by_the_rule_of_its_option():
    right = RunConfig("lenet", 3, "mnist_5k", 0, (0, 3), 2, 256, 2e-4, "report", "float32", "auto")
    assert RunConfig.checked(right.to_json()) == right
    for name in FIELDS:
        with pytest.raises(InputError, match=name):
            RunConfig.checked({**right.to_json(), name: {}})
