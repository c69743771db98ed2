"""Reading checkpoints of the PyTorch reference, without executing what is in them."""

import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

_UNPACKED_BYTES, _UNPACKED_TIMES = 2**26, 20
"""What a file may unpack to: so many bytes, or so many times its own size.  Weights hardly get smaller when packed."""


def read_checkpoint(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dict that PyTorch saved (`.pt`, `.pth`), or the same arrays in an `.npz`.

    Code inside a file is never executed: `.npz` is read with `allow_pickle=False`, `.pt` with
    `weights_only=True`.  A `.pt` needs PyTorch (`pip install torch`).  A training
    checkpoint that holds the weights as `model_state_dict` or `state_dict` is unwrapped, and the
    prefix `module.` of `DataParallel` is taken off.

    Returns:
      names to arrays, for `load_weights`.

    Raises:
      ValueError: whatever keeps the file from being read, with the path.
    """
    path = pathlib.Path(path)
    readers = {".npz": _read_npz, ".pt": _read_torch, ".pth": _read_torch}
    if path.suffix not in readers:
        raise ValueError(f"{path} must end in .npz, .pt or .pth")
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    state = readers[path.suffix](path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _check_members(path, suffix=""):
    """Checks names and declared sizes of a zip file before anything in it is unpacked."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError("it holds members of the same name")
    if others := [name for name in names if not name.endswith(suffix)]:
        raise ValueError(f"it holds {others[0]!r}, which is not an array")
    total = sum(member.file_size for member in members)
    if total > max(_UNPACKED_BYTES, _UNPACKED_TIMES * path.stat().st_size):
        raise ValueError(f"it would unpack to {total:,} bytes, far more than weights do")


def _read_npz(path):
    try:
        _check_members(path, ".npy")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # NumPy and zipfile raise a dozen kinds for damaged files
        raise ValueError(f"{path} is not a readable .npz of plain arrays: {_first_line(error)}") from error


def _read_torch(path):
    try:
        if zipfile.is_zipfile(path):
            _check_members(path)
    except Exception as error:
        raise ValueError(f"{path} is not a readable PyTorch state dict: {_first_line(error)}") from error
    try:
        import torch  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise ValueError(
            f"{path} needs PyTorch to be read: pip install torch, or save its state dict as .npz "
            "where PyTorch is: np.savez(name, **{key: value.numpy() for key, value in state.items()})"
        ) from error
    try:
        state = _state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return {name: _to_numpy(value, torch) for name, value in state.items()}
    except Exception as error:  # PyTorch's own, pickle's and zipfile's errors
        raise ValueError(f"{path} is not a readable PyTorch state dict: {_first_line(error)}") from error


def _state_dict(content):
    for name in ("model_state_dict", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"it holds a {type(content).__name__} and not a mapping of names to tensors")
    return content


def _to_numpy(tensor, torch):
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"it holds a {type(tensor).__name__} where a tensor is expected")
    tensor = tensor.detach().to_dense()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _first_line(error):
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
