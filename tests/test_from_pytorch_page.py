"""The page for PyTorch users: its example runs and gives the reference's numbers, and its names exist."""

import pathlib
import re

import numpy as np

import fconv_jax
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import assert_close
from tests.fconv_jax.reference_states import dense_entries, fconv_entries, lenet_state, norm_entries

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "from-pytorch.md").read_text(encoding="utf-8")


def trained_state(rng):
    """A state dict of the page's network, in training mode."""
    state, basis = {}, fconv_jax.fourier_basis(3, 4)
    for name, *sizes in (("conv1", 8, 1, 1), ("conv2", 8, 8, 4), ("conv3", 6, 8, 1)):
        state |= fconv_entries(name, basis, sizes, seed=len(state))
    return state | norm_entries(rng, "bn.BN", 8) | dense_entries(rng, "fc", 10, 6 * 14 * 14)


def correlate(x, filters):
    """Plain cross-correlation (b, c, h, w) with OIHW filters, one pixel of zeros around."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, filters)


def reference_logits(state, images):
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


def test_the_example_runs_and_gives_the_references_logits(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    state, images = trained_state(rng), rng.uniform(size=(2, 1, 28, 28))
    ours = images.transpose(0, 2, 3, 1).astype(np.float32)
    monkeypatch.chdir(tmp_path)
    np.savez("trained.npz", **state)
    np.savez("lenet.npz", **lenet_state())
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    define, load, load_known = (block for block in blocks if "import torch" not in block)
    names = {}
    exec(compile(define, "from-pytorch.md", "exec"), names)
    exec(compile(load, "from-pytorch.md", "exec"), names)
    assert names["logits"].shape == (2, 10)
    assert_close(names["model"](ours), reference_logits(state, images))
    exec(compile(load_known, "from-pytorch.md", "exec"), names)
    assert names["model"](ours).shape == (2, 10)


def test_every_name_of_ours_in_the_table_exists():
    table = PAGE.split("## Names")[1].split("Arguments:")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")][2:]
    names = {name for row in rows for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\(|`)", row)}
    ours = {name for name in names if not name.startswith("flax.")}
    assert len(ours) > 15
    assert not [name for name in ours if name.split(".")[0] not in fconv_jax.__all__]
    models = re.findall(r'models\.create\("(\w+)"\)', table)
    assert len(models) == 2
    assert set(models) <= set(fconv_jax.models.MODELS)


def test_every_name_of_the_reference_is_in_the_table():
    layers = "Fconv_PCA Fconv_PCA_out Fconv_1X1 ResBlock F_BN F_Dropout GroupPooling GroupMeanPooling MaskModule"
    functions = (
        "PointwiseAvgPoolAntialiased build_mask GetBasis_PCA MaskC BicubicIni Getini_reg Getini reset_parameters"
    )
    arguments = "sizeP inNum outNum tranNum inP padding ifIni bias Smooth iniScale"
    names = f"{layers} {functions} {arguments}".split()
    assert not [name for name in names if not re.search(rf"`[^`]*\b{name}\b", PAGE)]
