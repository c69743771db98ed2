"""Bad input to `run` and `evaluate`: exit code 2, one line beside the usage, nothing written, nothing lost."""

import functools
import json
import re
import shutil
from pathlib import Path

import pytest

from experiments import audit, convert, data, evaluate, export, figures, ladder, predict, report, run, sweep
from experiments.data.files import DataError
from experiments.data.sources import data_directory
from tests.experiments import helpers

pytestmark = pytest.mark.unoptimized  # what is asked is what is refused

RUN = "--setting 1 --model lenet --dataset mnist_5k --seeds 0 --epochs 1 --batch-size 32"


RUN_ARGUMENTS = [
    ("--setting", "0", "choose from"),
    ("--setting", "5", "choose from"),
    ("--setting", "x", "--setting"),
    ("--model", "lenot", "choose from"),
    ("--model", "", "choose from"),
    ("--model", "LeNet", "choose from"),
    ("--dataset", "mnist_6k", "choose from"),
    ("--dataset", "MNIST", "choose from"),
    ("--data-seed", "-1", "at least 0"),
    ("--data-seed", "x", "whole number"),
    ("--data-seed", "1.5", "whole number"),
    ("--seeds", "0,0", "twice"),
    ("--seeds", "0,3,00", "twice"),
    ("--seeds", "a", "whole number"),
    ("--seeds", "0_1", "whole number"),
    ("--epochs", "1_0", "whole number"),
    ("--learning-rate", "1_0", "must be a number"),
    ("--seeds", "0,,1", "whole number"),
    ("--seeds", "", "whole number"),
    ("--seeds", "0,-1", "at least 0"),
    ("--seeds", "1.0", "whole number"),
    ("--seeds", "4294967296", "below 2^32"),
    ("--num-seeds", "0", "at least 1"),
    ("--num-seeds", "-3", "at least 1"),
    ("--num-seeds", "two", "whole number"),
    ("--epochs", "0", "at least 1"),
    ("--epochs", "-1", "at least 1"),
    ("--epochs", "1e3", "whole number"),
    ("--batch-size", "0", "at least 1"),
    ("--batch-size", "-256", "at least 1"),
    ("--batch-size", "many", "whole number"),
    ("--schedule", "linear", "choose from"),
    ("--weight-decay", "nan", "at least 0"),
    ("--weight-decay", "heavy", "at least 0"),
    ("--label-smoothing", "1", "below 1"),
    ("--label-smoothing", "-0.1", "at least 0"),
    ("--label-smoothing", "nan", "at least 0"),
    ("--learning-rate", "0", "above 0"),
    ("--learning-rate", "-1e-3", "expected one argument"),
    ("--learning-rate", "nan", "above 0"),
    ("--learning-rate", "inf", "above 0"),
    ("--learning-rate", "fast", "above 0"),
    ("--init", "xavier", "choose from"),
    ("--precision", "float16", "choose from"),
    ("--precision", "float64", "choose from"),
    ("--seed-map", "pmap", "choose from"),
    ("--frobnicate", "1", "unrecognized"),
    ("--epoch", "1", "did you mean --epochs?"),
    ("--data-sed", "1", "did you mean --data-seed?"),
    ("--model", "lenot", "did you mean lenet?"),
    ("--model", "AlexNet-FConv", "did you mean alexnet_fconv?"),
    ("--dataset", "Fashion-MNIST", "did you mean fashion_mnist?"),
    ("--schedule", "cosin", "did you mean cosine?"),
    ("--num-seeds", "5000000000", "at most 10000"),
    ("--num-seeds", "9" * 5000, "at most 10000"),
    ("--data-seed", "9" * 300, "at most 4294967295"),
    ("--epochs", "9" * 30, "at most 1000000"),
    ("--batch-size", "9" * 30, "at most 1000000"),
    ("--learning-rate", "1e300", "1e-30 to 1e6"),
    ("--learning-rate", "1e-300", "1e-30 to 1e6"),
    ("--weight-decay", "1e39", "at most 1e6"),
    ("--output", "", "is not a path"),
    ("--output", "a\0b", "is not a path"),
    ("--output", "~nobody-of-this-name/x", "no such home folder"),
    ("--data-dir", "~nobody-of-this-name/x", "no such home folder"),
    ("--data-dir", "caf\udce9", "UTF-8"),
    ("--frob\nnicate", "1", "frob\\nnicate"),
    ("--epochs", None, "expected one argument"),
]


@pytest.mark.parametrize(("option", "value", "says"), RUN_ARGUMENTS)
def test_arguments_of_run(synthetic, tmp_path, monkeypatch, capfd, option, value, says):
    monkeypatch.chdir(tmp_path)
    words = RUN.split()
    if option in words:
        at = words.index(option)
        del words[at : at + 2]
    elif option == "--num-seeds":
        words = [word for word in words if word not in ("--seeds", "0")]
    helpers.assert_refused(
        capfd, tmp_path, helpers.run, *words, option, *([value] if value is not None else []), says=says
    )


DOORS = [run, evaluate, sweep, report, convert, audit, figures, ladder, predict, export]


@pytest.mark.parametrize("door", DOORS)
def test_every_path_may_start_at_home_and_no_option_is_abbreviated(door, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    command = door.parser()
    paths = [action for action in command._actions if re.search("DIR|CHECKPOINT|IMAGE|PATH", str(action.metavar))]
    assert paths
    for action in paths:
        assert action.type("~/x") == Path("/home/me/x"), action
    assert not command.allow_abbrev
    assert command.line("use --resume or --output") == (
        "use --resume or --output" if door in (run, sweep) else "use experiments.run --resume or --output"
    )
    # A sweep has it too, but would start all of its runs anew.
    assert command.line("use --overwrite") == ("use --overwrite" if door is run else "use experiments.run --overwrite")


def test_the_data_directory_of_the_environment_may_start_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("TFDS_DATA_DIR", "~/data")
    assert data_directory() == Path("/home/me/data")
    assert data_directory("~/x") == Path("/home/me/x")
    monkeypatch.setenv("TFDS_DATA_DIR", "~nobody-of-this-name/data")
    with pytest.raises(DataError, match="no such home folder"):
        data_directory()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "required"),
        ("--setting 1", "--model"),
        ("--model lenet", "--setting"),
        (f"{RUN} --num-seeds 2", "not allowed with"),
        (f"{RUN} --resume --overwrite", "not allowed with"),
        (f"{RUN} stray", "unrecognized"),
    ],
)
def test_combinations_of_run(synthetic, tmp_path, monkeypatch, capfd, words, says):
    monkeypatch.chdir(tmp_path)
    helpers.assert_refused(capfd, tmp_path, helpers.run, *words.split(), says=says)


def test_output_that_cannot_be(synthetic, tmp_path, capfd):
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    cases = [
        (file, [], "is a file"),
        (file / "below", [], "below one"),
        (file / "far" / "below", ["--resume"], "below one"),
        (tmp_path / "full", [], "not empty"),
        (tmp_path / "full", ["--resume"], "no run wrote"),
        (tmp_path / "full", ["--overwrite"], "no run wrote"),
        (tmp_path / "dangling", [], "cannot be written"),
        (tmp_path / ("x" * 300), [], "cannot be"),
    ]
    for output, more, says in cases:
        helpers.assert_refused(capfd, tmp_path, helpers.run, *RUN.split(), "--output", output, *more, says=says)


def test_a_place_that_cannot_be_written_is_found_before_data_are_prepared(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(data, "load", lambda *args, **more: pytest.fail("data were prepared"))
    place = tmp_path / "dangling"
    place.symlink_to(tmp_path / "nowhere")
    words = ("--models lenet --settings 1 --dataset mnist_5k --child 1,mnist_5k --output", place / "below")
    sweeps = functools.partial(helpers.call, sweep.main)
    helpers.assert_refused(capfd, tmp_path, sweeps, *words[0].split(), words[1], says="cannot be written")
    helpers.assert_refused(capfd, tmp_path, helpers.run, *RUN.split(), "--output", place, says="cannot be written")
    draws = functools.partial(helpers.call, figures.main)
    helpers.assert_refused(capfd, tmp_path, draws, "--output", place / "below", says="cannot be written")
    reports = functools.partial(helpers.call, report.main)
    helpers.assert_refused(capfd, tmp_path, reports, "--output", place / "below", says="cannot be written")


def without(config, name):
    return {other: value for other, value in config.items() if other != name}


def wrong(**field):
    """What is said of a field that no run can have, and the damage."""
    (name,) = field
    return f"config.json is damaged ({name}: ", lambda config: {**config, **field}


def different(**field):
    """What is said of a field that another run could have, and the damage."""
    ((name, value),) = field.items()
    return f"was started with {name} {value!r}, now it is ", lambda config: {**config, **field}


CONFIGS = {
    "empty": ("Expecting value", lambda config: ""),
    "cut": ("Unterminated string", lambda config: json.dumps(config)[:50]),
    "not JSON": ("Expecting value", lambda config: "model: lenet"),
    "not text": ("can't decode byte 0xff", lambda config: b"\xff\xfe\x00\x01"),
    "a list": ("no configuration", lambda config: []),
    "a number": ("no configuration", lambda config: 3),
    "null": ("no configuration", lambda config: None),
    "nothing in it": ("'model' is missing", lambda config: {}),
    "a field gone": (
        "'epochs' is missing",
        lambda config: {name: value for name, value in config.items() if name != "epochs"},
    ),
    "no digest": (
        "started with data_digest None",
        lambda config: {name: value for name, value in config.items() if name != "data_digest"},
    ),
    "another digest": different(data_digest="0" * 64),
    "seeds a number": wrong(seeds=3),
    "seeds a text": wrong(seeds="03"),
    "no seeds": wrong(seeds=[]),
    "seeds twice": wrong(seeds=[0, 0]),
    "a seed below 0": wrong(seeds=[-1]),
    "a seed a fraction": wrong(seeds=[0.5]),
    "a seed null": wrong(seeds=[None]),
    "epochs a text": wrong(epochs="2"),
    "epochs 0": wrong(epochs=0),
    "epochs true": wrong(epochs=True),
    "epochs a fraction": wrong(epochs=1.5),
    "batch size 0": wrong(batch_size=0),
    "batch size null": wrong(batch_size=None),
    "learning rate a text": wrong(learning_rate="fast"),
    "learning rate not a number": wrong(learning_rate=float("nan")),
    "learning rate below 0": wrong(learning_rate=-1.0),
    "an unknown schedule": wrong(schedule="linear"),
    "weight decay below 0": wrong(weight_decay=-1.0),
    "label smoothing of 1": wrong(label_smoothing=1.0),
    "unknown init": wrong(init="xavier"),
    "init a list": wrong(init=["he"]),
    "unknown precision": wrong(precision="float16"),
    "unknown seed map": wrong(seed_map="pmap"),
    "seed map a list": wrong(seed_map=[]),
    "another model": different(model="alexnet"),
    "unknown model": wrong(model="lenot"),
    "another setting": different(setting=2),
    "setting a text": wrong(setting="1"),
    "unknown dataset": wrong(dataset="mnist_6k"),
    "data seed below 0": wrong(data_seed=-1),
}


@pytest.mark.parametrize(("says", "damage"), CONFIGS.values(), ids=CONFIGS)
def test_damaged_configurations(synthetic, finished, tmp_path, capfd, says, damage):
    """Of a run that is resumed, with and without the option that the damaged one would stand for."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "results.json").unlink()
    contents = damage(json.loads((folder / "config.json").read_text()))
    if not isinstance(contents, (str, bytes)):
        contents = json.dumps(contents)
    (folder / "config.json").write_bytes(contents.encode() if isinstance(contents, str) else contents)
    words = ["--setting", 1, "--model", "lenet", "--output", folder, "--resume"]
    helpers.assert_refused(capfd, tmp_path, helpers.run, *words, says=says)


def test_a_folder_without_configuration_is_not_resumed(synthetic, finished, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "config.json").unlink()
    helpers.assert_refused(
        capfd, tmp_path, helpers.run, *helpers.QUICK, "--output", folder, "--resume", says="no config.json"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "RUN_DIR"),
        ("RUN --setting 7", "choose from"),
        ("RUN --dataset mnist_6k", "choose from"),
        ("RUN --data-seed -1", "at least 0"),
        ("RUN --output FILE/below", "cannot be written"),
        ("RUN --output FILE", "cannot be written"),
        ("RUN stray", "unrecognized"),
        ("RUN --angles=15", "ignored explicit argument"),
        ("nowhere", "is not a folder"),
        ("FILE", "is not a folder"),
        ("EMPTY", "no finished run"),
        ("RUN/best", "no finished run"),
        ("RUN/best/1", "no finished run"),
    ],
)
def test_arguments_of_evaluate(synthetic, finished, tmp_path, monkeypatch, capfd, words, says):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    words = words.replace("RUN", "run").replace("FILE", "file").replace("EMPTY", "empty").split()
    helpers.assert_refused(capfd, tmp_path, helpers.evaluate, *words, says=says)
