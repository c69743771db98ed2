"""Options of networks in files: groups and bases as JSON, and whether a network has those that its config says."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax.basis import Bicubic, Fourier
from fconv_jax.group import Group
from fconv_jax.models.invariant import Layer

_OPTIONS: dict[str, Any] = {"Group": Group, "Fourier": Fourier, "Bicubic": Bicubic}
_MODES = ("deterministic", "use_running_average")


def plain(value: Any) -> Any:
    """A config with groups and bases as {class: fields}, and NumPy's numbers as Python's."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    kind = type(value).__name__
    return {kind: dataclasses.asdict(value)} if isinstance(value, tuple(_OPTIONS.values())) else value


def decoded(value: Any) -> Any:
    """An option as `create` takes it."""
    if isinstance(value, dict) and len(value) == 1 and (kind := _OPTIONS.get(next(iter(value)))):
        return kind(**next(iter(value.values())))
    return tuple(map(decoded, value)) if isinstance(value, list) else value  # JSON has no tuples


def differing(model: nnx.Module, made: nnx.Module) -> str:
    """The first module or option that is not as in `made`, where arrays have the same shapes; empty if none."""
    modules = dict(nnx.iter_modules(model))
    for path, module in nnx.iter_modules(made):
        kinds = [type(each) for each in (modules.get(path, module), module)]
        if kinds[0] is not kinds[1]:
            where = f"module {'.'.join(map(str, path))}" if path else "class"
            return f"{where} is {kinds[0].__name__}, the config's {kinds[1].__name__}"
        for name, value in vars(module).items():
            pair = [_told(name, each) for each in (vars(modules.get(path, module)).get(name, value), value)]
            if name not in _MODES and None not in pair and pair[0] != pair[1]:
                return f"{'.'.join(map(str, (*path, name)))} is {pair[0]}, the config's {pair[1]}"
    return ""


def _told(name, value):
    """An option as a text to compare; `None` of what is no option, such as a function or an array."""
    if name in ("dtype", "param_dtype") and value is not None:
        return str(jnp.dtype(value))
    value = value.item() if isinstance(value, np.generic) else value
    if name == "precision" and isinstance(value, str):
        with contextlib.suppress(ValueError):  # the name of a dot algorithm stays
            value = jax.lax.Precision(value)
    if isinstance(value, tuple | list):
        parts = [_told(name, part) for part in value]
        return None if None in parts else f"({', '.join(parts)})"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 is 1
    simple = (int, float, str, type(None), jax.lax.Precision, Layer, *_OPTIONS.values())
    return repr(value) if isinstance(value, simple) else None
