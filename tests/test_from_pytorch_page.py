"""The page for PyTorch users: its example runs and gives the reference's numbers, and its names exist."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest

import fconv_jax

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "from-pytorch.md"
# Sums of a few hundred float32 products.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def oracle():
    path = ROOT / "tests" / "fconv_jax" / "oracle.py"
    spec = importlib.util.spec_from_file_location("from_pytorch_oracle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_blocks():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [block for block in blocks if "import torch" not in block]


def mixed_basis(k, t, rng):
    """A basis as the reference might have built it: our span, other functions."""
    basis = fconv_jax.fourier_basis(k, t)
    turn, _ = np.linalg.qr(rng.normal(size=(basis.rank, basis.rank)))
    return (basis.values @ turn).astype(np.float32)


def trained_state(rng):
    """A state dict of the page's network, in training mode."""

    def draw(*shape, scale=0.2):
        return (scale * rng.normal(size=shape)).astype(np.float32)

    state = {}
    for name, out_features, in_features, expand in (("conv1", 8, 1, 1), ("conv2", 8, 8, 4), ("conv3", 6, 8, 1)):
        state[f"{name}.weights"] = draw(out_features, in_features, expand, 9, scale=2.0)
        state[f"{name}.c"] = draw(1, out_features, 1, 1)
        state[f"{name}.Basis"] = mixed_basis(3, 4, rng)
    state |= {"bn.BN.weight": 1 + draw(8), "bn.BN.bias": draw(8), "bn.BN.running_mean": draw(8)}
    state |= {"bn.BN.running_var": 1 + draw(8) ** 2, "bn.BN.num_batches_tracked": np.array(5)}
    return state | {"fc.weight": draw(10, 6 * 14 * 14), "fc.bias": draw(10)}


def correlate(x, filters):
    """Plain cross-correlation (b, c, h, w) with OIHW filters, one pixel of zeros around."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, filters)


def reference_logits(state, images, oracle):
    """The page's PyTorch network in evaluation mode, in its own layout, float64."""
    state = {name: value.astype(np.float64) for name, value in state.items()}

    def conv(x, name, kind):
        filters = oracle.expand(kind, state[f"{name}.weights"], state[f"{name}.Basis"])
        bias = np.repeat(state[f"{name}.c"].reshape(-1), 1 if kind == "out" else 4)
        return correlate(x, filters) + bias[:, None, None]

    x = np.maximum(conv(images, "conv1", "lift"), 0)
    x = x.reshape(*x.shape[:2], 14, 2, 14, 2).max((3, 5))
    x = conv(x, "conv2", "reg").reshape(len(images), 8, 4, 14, 14)
    mean, var, weight, bias = (
        state[f"bn.BN.{name}"][:, None, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    x = np.maximum((x - mean) / np.sqrt(var + 1e-5) * weight + bias, 0).reshape(len(images), 32, 14, 14)
    return conv(x, "conv3", "out").reshape(len(images), -1) @ state["fc.weight"].T + state["fc.bias"]


def lenet_state(rng):
    return {
        "conv1.weights": rng.normal(size=(2, 1, 1, 25)),
        "conv1.c": rng.normal(size=(1, 2, 1, 1)),
        "conv1.Basis": mixed_basis(5, 8, rng),
        "fc1.weight": rng.normal(size=(120, 2304)),
        "fc1.bias": rng.normal(size=120),
        "fc2.weight": rng.normal(size=(10, 120)),
        "fc2.bias": rng.normal(size=10),
    }


def test_the_example_runs_and_gives_the_references_logits(tmp_path, monkeypatch, oracle):
    rng = np.random.default_rng(0)
    state = trained_state(rng)
    monkeypatch.chdir(tmp_path)
    np.savez("trained.npz", **state)
    np.savez("lenet.npz", **lenet_state(rng))
    define, load, load_known = python_blocks()
    names = {}
    exec(compile(define, "from-pytorch.md", "exec"), names)
    exec(compile(load, "from-pytorch.md", "exec"), names)
    assert names["logits"].shape == (2, 10)
    images = rng.uniform(size=(2, 1, 28, 28))
    logits = names["model"](images.transpose(0, 2, 3, 1).astype(np.float32))
    expected = reference_logits(state, images, oracle)
    assert np.max(np.abs(logits - expected)) < ROUNDING * np.max(np.abs(expected))
    exec(compile(load_known, "from-pytorch.md", "exec"), names)
    assert names["model"](images.transpose(0, 2, 3, 1).astype(np.float32)).shape == (2, 10)


def test_every_name_of_ours_in_the_table_exists():
    table = PAGE.read_text(encoding="utf-8").split("## Names")[1].split("Arguments:")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")][2:]
    names = {name for row in rows for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\(|`)", row)}
    ours = {name for name in names if not name.startswith("flax.")}
    assert len(ours) > 15
    missing = [name for name in ours if name.split(".")[0] not in fconv_jax.__all__]
    assert not missing
    models = re.findall(r'models\.create\("(\w+)"\)', table)
    assert len(models) == 2
    assert set(models) <= set(fconv_jax.models.MODELS)


def test_every_name_of_the_reference_is_in_the_table():
    page = PAGE.read_text(encoding="utf-8")
    layers = "Fconv_PCA Fconv_PCA_out Fconv_1X1 ResBlock F_BN F_Dropout GroupPooling GroupMeanPooling MaskModule"
    functions = (
        "PointwiseAvgPoolAntialiased build_mask GetBasis_PCA MaskC BicubicIni Getini_reg Getini reset_parameters"
    )
    arguments = "sizeP inNum outNum tranNum inP padding ifIni bias Smooth iniScale"
    missing = [
        name for name in f"{layers} {functions} {arguments}".split() if not re.search(rf"`[^`]*\b{name}\b", page)
    ]
    assert not missing
