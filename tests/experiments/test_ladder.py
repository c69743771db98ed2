"""The ladder of repairs: its networks, and its command on a few digits."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from experiments import climbing, ladder, ladder_page, rungs, training
from experiments.rungs import LADDERS, PLAIN, RUNGS

NAMES = tuple(LADDERS)


def make(name, rung):
    return functools.partial(LADDERS[name], RUNGS[rung])


def count(create):
    return training.num_parameters(training.network(create))


def test_each_rung_adds_one_repair():
    changes = [repairs.__dict__ for repairs in RUNGS.values()]
    for before, after in itertools.pairwise(changes):
        assert [name for name in after if after[name] != before[name]] and sum(after.values()) == sum(
            before.values()
        ) + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_last_rung_has_nearly_the_parameters_of_the_plain_network(name):
    plain = count(PLAIN[name])
    assert 0.95 * plain < count(make(name, "equal parameters")) <= plain


def test_the_first_rung_is_the_published_network():
    published = fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0))
    first = make("lenet_fconv", "as published")(rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.RandomState(0).uniform(size=(2, 28, 28, 1)), jnp.float32)
    np.testing.assert_array_equal(first(x), published(x))


@pytest.mark.parametrize("name", NAMES)
def test_only_the_mean_over_space_makes_quarter_turns_exact(name):
    x = jnp.asarray(np.random.RandomState(0).uniform(size=(1, 28, 28, 1)), jnp.float32)
    changes = {}
    for rung in list(RUNGS)[1:]:  # with the published weights and seed 0, both features are dead: nothing changes
        model = make(name, rung)(rngs=nnx.Rngs(0))
        model.eval()
        run = jax.jit(model.__call__)
        changes[rung] = float(jnp.abs(run(jnp.rot90(x, axes=(1, 2))) - run(x)).max() / jnp.abs(run(x)).max())
    exact = [rung for rung, change in changes.items() if change < 1e-5]
    assert exact == ["mean over space", "equal parameters"], changes


def test_the_command_trains_writes_the_page_and_keeps_what_there_is(lab, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(climbing, "load", lab.load)
    few = {name: RUNGS[name] for name in ("as published", "variance-preserving init")}
    monkeypatch.setattr(climbing, "RUNGS", few)
    argv = ("--model", "lenet_fconv", "--seeds", "0,1", "--epochs", "5", "--output", tmp_path)
    assert lab.call(ladder.main, *argv) == 0
    file = tmp_path / "ladder" / "lenet_fconv.json"
    first = json.loads(file.read_text())
    assert list(first["rungs"]) == [climbing.PLAIN_NAME, *few]
    accuracy = first["rungs"]["as published"]["test_accuracy"]
    assert sorted(accuracy) == ["1", "2", "3", "4"] and np.shape(accuracy["3"]) == (2,)
    page = (tmp_path / "why-fconv-lost.md").read_text()
    assert f"{np.mean(accuracy['3']):.3f}" in page and "variance-preserving init" in page
    assert (tmp_path / "figures" / "ladder.png").read_bytes()[:4] == b"\x89PNG"
    capfd.readouterr()
    assert lab.call(ladder.main, *argv) == 0  # nothing is trained twice
    assert json.loads(file.read_text()) == first and "test accuracy" not in capfd.readouterr().out
    assert lab.call(ladder.main, *argv[:-2], "--learning-rate", "0.1", "--output", tmp_path) == 2
    assert "another learning_rate" in capfd.readouterr().err


def test_a_damaged_ladder_and_a_folder_that_cannot_be_written(lab, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(climbing, "load", lab.load)
    file = tmp_path / "ladder" / "lenet_fconv.json"
    file.parent.mkdir()
    for text in ("[1]", "{", '{"rungs": 3}'):
        file.write_text(text)
        assert lab.call(ladder.main, "--model", "lenet_fconv", "--output", tmp_path) == 2
        assert "is damaged" in capfd.readouterr().err and file.read_text() == text
    assert lab.call(ladder.main, "--model", "lenet_fconv", "--output", file) == 2
    assert "choose another --output" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--epochs", "7"), ("--epochs", "0"), ("--batch-size", "64"), ("--model", "lenet"), ("--seeds", "")],
)
def test_bad_arguments(lab, tmp_path, option, value):
    argv = {"--model": "lenet_fconv", "--output": str(tmp_path / "out"), option: value}
    assert lab.call(ladder.main, *(word for pair in argv.items() for word in pair)) == 2
    assert not any(tmp_path.iterdir())


def test_a_flatten_is_what_the_mean_over_space_replaces():
    names = [name for name, _ in rungs.LadderLeNet(RUNGS["mean over space"], rngs=nnx.Rngs(0)).stages]
    assert "flatten" not in names and names[3:5] == ["max_over_rotations", "mean_over_space"]


def test_runs_at_chance_are_told_apart(tmp_path):
    """One of two seeds is dead as published: the mean gains 45 points, the living one 10."""
    tables = {"as published": [0.1, 0.8], "variance-preserving init": [0.9, 0.9], "symmetric pooling": [0.9, 0.9]}
    found = {
        rung: {"num_parameters": 1, "test_accuracy": dict.fromkeys("1234", values)} for rung, values in tables.items()
    }
    texts = {
        rung: ladder_page._cause(rung, "", {"x": {"name": "x", "rungs": found}})
        for rung in tables
        if rung != "as published"
    }
    assert "+45.0, +45.0" in texts["variance-preserving init"]
    assert "(without the runs at chance: +10.0, +10.0, +10.0, +10.0)" in texts["variance-preserving init"]
    assert "chance" not in texts["symmetric pooling"] and "+0.0" in texts["symmetric pooling"]
