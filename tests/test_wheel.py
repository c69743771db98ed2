"""Wheel and sdist, installed alone in a fresh environment, run README's first example: oldest and newest versions."""

import pathlib
import re
import subprocess
import sys
import tomllib
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lower_bounds():
    """`jax>=0.10.1` as `jax==0.10.1`, and so on: the oldest versions that pyproject allows."""
    found = []
    for requirement in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
        found.append(f"{name}=={bound}" if bound.count(".") == 2 else f"{name}=={bound}.0")
    return found


def example():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", readme, flags=re.DOTALL)[1]


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def test_lower_bounds_are_versions():
    assert lower_bounds()[0].startswith("jax==0.")
    assert len(lower_bounds()) == len(PROJECT["dependencies"])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """{kind: file} of a wheel and an sdist, from a copy of what git tracks."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    run("git", "clone", "--quiet", ROOT, source)
    environment = folder / "builder"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "build")
    run(python, "-m", "build", "--outdir", folder / "dist", source)
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.mark.long
@pytest.mark.parametrize("versions", ["oldest", "newest"])
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_example_runs(built, kind, versions, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pinned = lower_bounds() if versions == "oldest" else ["--upgrade"]
    run(python, "-m", "pip", "install", "--quiet", built[kind], *pinned)
    (tmp_path / "example.py").write_text(example(), encoding="utf-8")
    run(python, "-W", "error", "example.py", cwd=tmp_path)
    where = run(python, "-c", "import fconv_jax; print(fconv_jax.__file__)", cwd=tmp_path)
    assert str(environment) in where
    files = run(python, "-m", "pip", "show", "--files", "fconv_jax")
    assert "fconv_jax/py.typed" in files
    assert "model.safetensors" in files
    assert "experiments/" not in files


@pytest.mark.long
def test_the_example_fails_without_the_package(tmp_path):
    """Negative control."""
    (tmp_path / "example.py").write_text(example(), encoding="utf-8")
    done = subprocess.run([sys.executable, "-I", "-S", "example.py"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode
