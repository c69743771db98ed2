"""README's example runs, and its commands are the ones that CI and the programs have."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from experiments import demo, export, predict, run

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_examples_run_and_the_first_is_invariant():
    example, _, trained = blocks("python")
    exec(compile(trained, "README.md", "exec"), {"__name__": "readme"})
    assert "fc.assert_equivariant" in example
    assert len([line for line in example.splitlines() if line]) == 10
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


def test_the_example_can_fail():
    """Negative control: one rotation alone is not invariant."""
    example, *_ = blocks("python")
    plain = example.replace("fc.max_over_group", "lambda x: x[..., 0, :]")
    assert plain != example
    with pytest.raises(AssertionError, match="relative equivariance error"):
        exec(compile(plain, "README.md", "exec"), {"__name__": "readme"})


def test_every_command_is_accepted():
    doors = {"run": run, "predict": predict, "export": export, "demo": demo}
    parsers = {name: door.parser() for name, door in doors.items()}
    found = re.findall(r"python -m experiments\.(\w+)([^\n`#&]*)", "\n".join(blocks("bash")))
    assert {name for name, _ in found} == set(parsers)
    for name, arguments in found:
        parsers[name].parse_args(shlex.split(arguments))


def test_a_strangers_commands_run_as_written(tmp_path, monkeypatch, capsys):
    """A photograph of a dark stroke on paper is named, and the exported file answers without JAX."""
    monkeypatch.chdir(tmp_path)
    photograph = np.full((300, 200), 220, np.uint8)
    photograph[60:240, 90:112] = 30
    Image.fromarray(photograph).save("photo.jpg")
    commands = next(block for block in blocks("bash") if "experiments.predict" in block)
    for name, arguments in re.findall(r"python -m experiments\.(\w+)([^\n`#&]*)", commands):
        if name != "demo":  # it serves until it is stopped: tests/experiments/test_demo.py
            assert {"predict": predict, "export": export}[name].main(shlex.split(arguments)) == 0
    assert "photo.jpg: 1 (" in capsys.readouterr().out
    without_jax = next(block for block in blocks("python") if "onnxruntime" in block)
    names = {"__name__": "readme"}
    exec(compile(without_jax, "README.md", "exec"), names)
    assert names["logits"].shape == (1, 10)


def test_ci_runs_the_test_command():
    test_command = blocks("bash")[1].strip().removeprefix(".venv/bin/python ")
    assert f'{test_command} -m "not long"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_its_table_says_what_the_runs_say():
    rows = re.findall(r"^\| (MNIST|mnist_5k) \| `(\w+)` \| ([\d,]+) \| (.*?) \| (.*?) \|", README, flags=re.MULTILINE)
    assert len(rows) >= 5
    for dataset, model, parameters, *shown in rows:
        for setting, text in zip((1, 3), shown, strict=True):
            folder = ROOT / "results" / dataset.lower() / f"setting{setting}_{model}"
            found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            assert text.strip("*") == f"{found['mean']:.4f} ± {found['std']:.4f}"
            assert parameters == f"{found['num_parameters']:,}"
