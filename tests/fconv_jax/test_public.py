import json
import subprocess
import sys
import types

import pytest

import fconv_jax

# The names that the design notes promise; the package may have more.
PROMISED = [
    "FieldDropout",
    "FourierBasis",
    "GroupFConv",
    "LiftingFConv",
    "PointwiseFConv",
    "ProjectingFConv",
    "bicubic_basis",
    "blur_pool",
    "disk_mask",
    "equivariance_error",
    "fourier_basis",
    "group_filter",
    "lifting_filter",
    "load_reference_weights",
    "max_over_rotations",
    "mean_over_rotations",
    "models",
    "projecting_filter",
    "read_reference_checkpoint",
    "rotate_features",
    "rotate_image",
    "spatial_max_pool",
    "spatial_mean_pool",
]

# Imports the package where anything but its three dependencies (and theirs) is missing, and says what it did.
ISOLATED = """
import contextlib, io, json, sys

class Missing:
    blocked = ("optax", "orbax", "tensorflow_datasets", "tensorflow", "torch", "scipy", "matplotlib", "rich", "mlxtend",
               "array_record", "PIL", "chex", "experiments")
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


@pytest.fixture(scope="module")
def isolated():
    child = subprocess.run([sys.executable, "-W", "error", "-c", ISOLATED], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    return json.loads(child.stdout)


def test_all_is_complete():
    public = {name for name in vars(fconv_jax) if not name.startswith("_")}
    submodules = {name for name in public if isinstance(getattr(fconv_jax, name), types.ModuleType)}
    assert public - submodules | {"models"} == set(fconv_jax.__all__)
    assert len(set(fconv_jax.__all__)) == len(fconv_jax.__all__)


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names(name):
    assert name in fconv_jax.__all__
    assert getattr(fconv_jax, name) is not None


def test_everything_public_has_a_docstring():
    for name in fconv_jax.__all__:
        assert (getattr(fconv_jax, name).__doc__ or "").strip(), name


def test_importing_prints_nothing_and_does_no_work(isolated):
    assert isolated["output"] == ""
    assert isolated["backends"] == []  # no array was made: that would start a device


def test_importing_needs_jax_flax_and_numpy_only(isolated):
    assert isolated["extra"] == ["fconv_jax"]
