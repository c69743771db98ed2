"""Checkpoint files: what is read, and that nothing in them is executed."""

import io
import pickle
import sys
import warnings
import zipfile

import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.reference_states import lenet_state


def loaded(path):
    """A network filled from a file."""
    model = fc.models.create("lenet_fconv", rngs=nnx.Rngs(0))
    fc.torch_reference.load_weights(model, fc.torch_reference.read_checkpoint(path))
    return model


def test_an_npz_round_trip(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **{f"module.{name}": value for name, value in lenet_state().items()})
    assert set(fc.torch_reference.read_checkpoint(path)) == set(lenet_state())
    np.testing.assert_array_equal(loaded(path).dense2.bias[...], lenet_state()["fc2.bias"])


class Trap:
    """Unpickled, it creates the file that it names."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def like_torch(trap):
    """What `torch.save` writes, with code in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": trap}, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


NO_CHECKPOINTS = {
    "pickled.npz": lambda trap: npz(a=np.array([trap], dtype=object)),
    "bare_pickle.npz": lambda trap: pickle.dumps({"a": trap}),
    "cut.npz": lambda trap: npz(**lenet_state())[:1000],
    "empty.npz": lambda trap: b"",
    "text.npz": lambda trap: b"hello",
    "pickled.pt": like_torch,
    "bare_pickle.pt": lambda trap: pickle.dumps({"a": trap}, protocol=2),
    "empty.pt": lambda trap: b"",
    "text.pth": lambda trap: b"hello",
    "weights.txt": lambda trap: b"hello",
    "weights": lambda trap: b"hello",
    "missing.npz": None,
    "missing.pt": None,
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_one_error_and_never_executed(tmp_path, name):
    if NO_CHECKPOINTS[name]:
        (tmp_path / name).write_bytes(NO_CHECKPOINTS[name](Trap(tmp_path / "executed")))
    with pytest.raises(ValueError, match=name):
        fc.torch_reference.read_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_a_trap_does_work(tmp_path):
    """Negative control of the test above."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "executed"))).close()
    assert (tmp_path / "executed").exists()


def test_a_pt_file_without_pytorch_says_how_to_read_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pt").write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"needs PyTorch .*pip install torch"):
        fc.torch_reference.read_checkpoint(tmp_path / "weights.pt")


def test_pytorch_files_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value) for name, value in lenet_state().items()}
    state["fc2.bias"] = torch.nn.Parameter(state["fc2.bias"])
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "weights.pt")
    np.testing.assert_array_equal(loaded(tmp_path / "weights.pt").dense2.bias[...], lenet_state()["fc2.bias"])
    torch.save({"a": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "half.pt")
    assert fc.torch_reference.read_checkpoint(tmp_path / "half.pt")["a"].dtype == np.float32
    for name, content in (("tensor.pt", torch.zeros(3)), ("numbers.pt", {"a": 3})):
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match="it holds a"):
            fc.torch_reference.read_checkpoint(tmp_path / name)


def _zip(path, *members):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that stands twice
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)


BOMB = bytes(2**26 + 1)


@pytest.mark.parametrize(
    ("name", "members", "says"),
    [
        ("a.npz", [("w.npy", BOMB)], "would unpack to 67,108,865 bytes"),
        ("a.npz", [(f"w{i}.npy", BOMB[: 2**25]) for i in range(3)], "would unpack to 100,663,296 bytes"),
        ("a.pt", [("archive/data.pkl", b""), ("archive/data/0", BOMB)], "would unpack to"),
        ("a.pth", [("archive/data/0", BOMB)], "would unpack to"),
        ("a.npz", [("w.npy", b""), ("payload.pkl", b"")], "holds 'payload.pkl', which is not an array"),
        ("a.npz", [("w.npy", b""), ("w.npy", b"")], "members of the same name"),
    ],
)
def test_names_and_sizes_are_checked_before_a_member_is_read(tmp_path, monkeypatch, name, members, says):
    _zip(tmp_path / name, *members)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("a member was read"))
    with pytest.raises(ValueError, match=says):
        fc.torch_reference.read_checkpoint(tmp_path / name)
