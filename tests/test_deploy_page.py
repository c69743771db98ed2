"""The page on deployment: its program runs, its table says what the files say, its links lead somewhere."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import fconv_jax
from experiments import export
from fconv_jax import pretrained

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_its_programs_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export.main(shlex.split(re.search(r"python -m experiments.export (lenet.*)", PAGE)[1])) == 0
    capsys.readouterr()
    programs = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(programs) == 4
    for program in programs:
        exec(compile(program, "deploy.md", "exec"), {"__name__": "page"})
    assert (tmp_path / "mine" / pretrained.WEIGHTS).exists()
    said = capsys.readouterr().out
    table = re.search(r"`lenet_fconv_invariant_mnist` \|.*\| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)[1]
    assert said.startswith(f"{table}\n[")
    assert "'conv4': (5, 5, 192, 256)" in said


@pytest.mark.skipif("ONNXRUNTIME" not in os.environ, reason="ONNXRUNTIME names no unpacked release of onnxruntime")
def test_its_program_in_cpp_answers_as_jax_does(tmp_path):
    model = fconv_jax.from_pretrained("lenet_fconv_invariant_mnist")
    fconv_jax.export.to_onnx(model, tmp_path / "digits.onnx")
    (tmp_path / "digits.cpp").write_text(re.search(r"```cpp\n(.*?)```", PAGE, flags=re.DOTALL)[1])
    subprocess.run(re.search(r"^g\+\+ .*$", PAGE, flags=re.MULTILINE)[0], shell=True, cwd=tmp_path, check=True)
    image = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    done = subprocess.run(["./digits"], cwd=tmp_path, input=image.tobytes(), capture_output=True, check=True)
    expected = model(jnp.asarray(image.reshape(1, 28, 28, 1) / 255, jnp.float32))[0]
    found = [float(line) for line in done.stdout.split()]
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=1e-5 * float(jnp.abs(expected).max())
    )  # six digits printed


def test_its_table_says_what_the_files_say():
    rows = re.findall(r"^\| `(setting\d_\w+)`.*\| (\d) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)
    assert {name for name, _, _ in rows} == set(pretrained.SHIPPED.values())
    for name, seed, accuracy in rows:
        source = pretrained.read_config(name)["source"]
        assert (source["seed"], source["test_accuracy"]) == (int(seed), float(accuracy))


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert target.startswith("http") or (ROOT / "docs" / target).exists(), target
