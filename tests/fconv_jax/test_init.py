"""What the package offers, needs and installs."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import types
import zipfile

import pytest

import fconv_jax

ROOT = pathlib.Path(__file__).parents[2]

# The names that the design notes promise; the package may have more.
PROMISED = re.findall(
    r"\w+",
    """
    Bicubic FieldDropout Fourier FourierBasis Group GroupFConv LiftingFConv ProjectingFConv bicubic_basis blur_pool
    disk_mask equivariance_error fourier_basis from_vectors group_filter initializers lifting_filter max_over_group
    mean_over_group mirror_field mirror_image mirror_vectors models projecting_filter restrict rotate_field rotate_image
    rotate_vectors spatial_max_pool spatial_mean_pool to_vectors torch_reference upsample
    """,
)

# Imports the package where anything but its three dependencies (and theirs) is missing, and says what it did.
ISOLATED = """
import contextlib, io, json, sys

class Missing:
    blocked = ("optax", "orbax", "tensorflow_datasets", "tensorflow", "torch", "scipy", "matplotlib", "rich", "mlxtend",
               "array_record", "PIL", "chex", "safetensors", "huggingface_hub", "experiments")
    def find_spec(self, name, path=None, target=None):
        caller = sys._getframe(1)
        while caller and caller.f_globals.get("__name__", "").startswith("importlib"):
            caller = caller.f_back
        asked_by = caller.f_globals.get("__name__", "") if caller else ""
        if name.split(".")[0] in self.blocked and asked_by.split(".")[0] == "fconv_jax":
            raise ImportError(f"{asked_by} imports {name}")
        return None

sys.meta_path.insert(0, Missing())
before = set(sys.modules)
import jax, flax.nnx, numpy
needed = set(sys.modules)
output = io.StringIO()
with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
    import fconv_jax
extra = {name.split(".")[0] for name in set(sys.modules) - needed} - set(sys.stdlib_module_names)
import jax._src.xla_bridge as bridge
print(json.dumps({"output": output.getvalue(), "extra": sorted(extra), "backends": sorted(bridge._backends)}))
"""


def test_all_is_complete():
    public = {name for name in vars(fconv_jax) if not name.startswith("_")}
    submodules = {name for name in public if isinstance(getattr(fconv_jax, name), types.ModuleType)}
    assert public - submodules | {"export", "initializers", "models", "torch_reference"} == set(fconv_jax.__all__)
    assert len(set(fconv_jax.__all__)) == len(fconv_jax.__all__)


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names(name):
    assert name in fconv_jax.__all__
    assert getattr(fconv_jax, name) is not None


def test_everything_public_has_a_docstring():
    for name in fconv_jax.__all__:
        assert (getattr(fconv_jax, name).__doc__ or "").strip(), name


def test_importing_needs_jax_flax_and_numpy_only_prints_nothing_and_does_no_work():
    child = subprocess.run([sys.executable, "-W", "error", "-c", ISOLATED], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    # No array was made: that would start a backend.
    assert json.loads(child.stdout) == {"output": "", "extra": ["fconv_jax"], "backends": []}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy (a build writes into its folder) by setuptools alone, without a network."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("fconv_jax", "experiments", "tests/fconv_jax", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, "wheels"], cwd=folder, check=True, capture_output=True)
    (path,) = (folder / "wheels").iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_library_alone(wheel):
    names = set(wheel.namelist())
    files = [*(ROOT / "fconv_jax").rglob("*.py"), *(ROOT / "fconv_jax/weights").glob("*/*")]
    sources = {path.relative_to(ROOT).as_posix() for path in files}
    info = f"fconv_jax-{fconv_jax.__version__}.dist-info"
    assert {name for name in names if not name.startswith(info)} == sources | {"fconv_jax/py.typed"}
    assert f"{info}/licenses/LICENSE" in names
    assert wheel.read(f"{info}/top_level.txt").split() == [b"fconv_jax"]


def test_there_is_one_version(wheel):
    """Pyproject takes it from the package; the citation repeats it."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", fconv_jax.__version__)
    metadata = wheel.read(f"fconv_jax-{fconv_jax.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {fconv_jax.__version__}\n" in metadata
    assert f"\nversion: {fconv_jax.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
