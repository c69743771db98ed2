"""Trained networks as files for keeping: weights in safetensors, what they are in JSON, a card and checksums."""

import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax import models
from fconv_jax._options import decoded, differing, plain

FORMAT, FORMAT_VERSION = "fconv_jax", 1
CONFIG, WEIGHTS, CARD, SUMS = "config.json", "model.safetensors", "README.md", "SHA256SUMS"
_LISTED = (CONFIG, WEIGHTS, CARD)
_REQUIRED = {"format": str, "format_version": int, "model": str, "options": dict}
_INFORMATIVE = ("classes", "preprocessing", "source")
_SHIPPED = pathlib.Path(__file__).with_name("weights")
_MOST_TEXT = 2**20
"""Bytes of a config, a card, a list of checksums or the header of the weights; all are a few thousand."""

SHIPPED = {path.name: path.name for path in sorted(_SHIPPED.glob("*/"))}
"""Names that `from_pretrained` knows, to the folders in the package that they stand for."""
# Without a setting: the one for digits at any angle, chosen on rotated digits and, where there is one, trained on them.
SHIPPED |= {name[len("setting3_") :]: name for name in SHIPPED if re.match("setting[34]_.*invariant", name)}


def save_pretrained(model: nnx.Module, folder: str | os.PathLike, *, config: Mapping, card: str) -> None:
    """Writes a network into a new folder, whole or not at all.

    The folder holds `config.json`; `model.safetensors`, parameters and batch statistics by their Flax paths joined by
    "."; `README.md`, the card; and `SHA256SUMS` of the three (`sha256sum -c SHA256SUMS` checks them too).  All of it
    is written beside the folder and then renamed.  The same network, config and card give the same bytes.

    Args:
      model: what `fconv_jax.models.create(config["model"], **config["options"], rngs=...)` makes, trained.
      folder: its path, where nothing is yet: a folder that exists is refused, never changed.
      config: `model`, a name of `fconv_jax.models.MODELS`, and `options`, the keyword arguments of `create` (none by
        default), JSON or a `Group`, `Fourier` or `Bicubic`, which the file has as {"Group": {...}}; if known,
        `classes`, the names of the logits, `preprocessing` and `source`.
      card: Markdown for people: what the network is, its data, its figures, its limits.

    Raises:
      ValueError: a config that is not as above, a model that is not what it says, or a folder that exists or cannot
        be written.
      ImportError: without safetensors (`pip install safetensors`).

    >>> import tempfile, fconv_jax
    >>> from flax import nnx
    >>> model = fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fconv_jax.save_pretrained(model, f"{folder}/mine", config={"model": "lenet_fconv"}, card="# Mine")
    ...     fconv_jax.from_pretrained(f"{folder}/mine").conv.coefficients.shape
    (1, 2, 25)
    """
    if not isinstance(model, nnx.Module) or not isinstance(card, str) or not isinstance(config, Mapping):
        kinds = ", ".join(type(each).__name__ for each in (model, config, card))
        raise ValueError(f"model, config and card ({kinds}) must be an nnx.Module, a dict and a text")
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"folder (={folder!r:.200}) must be a path")
    folder = pathlib.Path(folder)
    config = plain({"format": FORMAT, "format_version": FORMAT_VERSION, "options": {}, **config})
    graph, expected, _ = _structure(config, f"config (={config!r:.200})")
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    arrays = {_name(path): np.asarray(value[...]) for path, value in nnx.to_flat_state(state)}
    _check_arrays("model", {name: (x.shape, str(x.dtype)) for name, x in arrays.items()}, expected)
    if other := differing(model, nnx.merge(graph, state)):
        raise ValueError(f"model is not what config says: its {other}")
    try:
        text = json.dumps(config, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"config must be JSON: {error}") from error
    contents = {
        CONFIG: text.encode(),
        WEIGHTS: _safetensors().numpy.save(arrays, {"format": "flax"}),
        CARD: card.encode(),
    }
    for name in (CONFIG, CARD):
        if len(contents[name]) > _MOST_TEXT:
            raise ValueError(f"{name} would hold more than the {_MOST_TEXT:,} bytes that are read again")
    contents[SUMS] = "".join(f"{_sha256(data)}  {name}\n" for name, data in contents.items()).encode()
    if os.path.lexists(folder):
        raise ValueError(f"folder (={folder}) exists: remove it, or name another")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            new = pathlib.Path(beside, "new")
            new.mkdir()
            for name, data in contents.items():
                (new / name).write_bytes(data)
            new.rename(folder)
    except OSError as error:
        raise ValueError(f"folder (={folder}) cannot be written: {error.strerror}") from error


def from_pretrained(folder_or_name: str | os.PathLike) -> nnx.Module:
    """Returns the network in a folder of `save_pretrained`, in evaluation mode.

    All files are compared with their checksums, and the arrays with the network that the config names.  Nothing in the
    files is ever executed.

    Args:
      folder_or_name: one of the names in `fconv_jax.pretrained.SHIPPED`, which ship with the package; a folder (one
        with such a name as "./NAME"); or "user/name" of the Hugging Face Hub, where there is no such folder, with
        huggingface_hub installed (its cache and variables, HF_HUB_OFFLINE, hold).

    Raises:
      ValueError: one line: no such folder or name; a file that is missing, a link, too large, changed, of another
        format or a newer version; or arrays that are not the network's, by name, shape or type.
      ImportError: without safetensors (`pip install safetensors`).

    >>> import fconv_jax
    >>> model = fconv_jax.from_pretrained("lenet_fconv_invariant_mnist")
    >>> model.dense2.kernel.shape
    (64, 10)
    """
    where = _Folder(folder_or_name)
    graph, expected, paths = _structure(where.config, f"{where.folder / CONFIG}")
    most = _MOST_TEXT + sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in expected.values())
    data = where.read(WEIGHTS, most)
    try:
        arrays = _arrays(_safetensors().deserialize(data))
    except ImportError:
        raise
    except Exception as error:  # The library is in Rust and has its own exceptions.
        raise ValueError(f"{where.folder / WEIGHTS} is no safetensors file: {_line(error)}") from error
    found = {name: (x.shape, str(x.dtype)) for name, x in arrays.items()}
    _check_arrays(f"{where.folder / WEIGHTS}", found, expected)
    state = nnx.traversals.unflatten_mapping({paths[name]: jnp.asarray(x) for name, x in arrays.items()})
    model = nnx.merge(graph, state)
    model.eval()
    return model


def read_config(folder_or_name: str | os.PathLike) -> dict:
    """Returns the config of what `from_pretrained` would load, its checksum verified; the weights are not read.

    Raises:
      ValueError: as for `from_pretrained`.
    """
    return _Folder(folder_or_name).config


class _Folder:
    """Where a network lies, its checksums, and its config and card, verified."""

    def __init__(self, folder_or_name):
        self.folder, self._root = _found(folder_or_name)
        lines = self._bytes(SUMS, _MOST_TEXT).decode("utf-8", "replace").splitlines()
        self._sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        if len(lines) != len(_LISTED) or self._sums.keys() != set(_LISTED):
            raise ValueError(f"{self.folder / SUMS} must list {', '.join(_LISTED)} and nothing else")
        text, _ = (self.read(name, _MOST_TEXT) for name in (CONFIG, CARD))
        try:
            self.config = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.folder / CONFIG} is not JSON: {_line(error)}") from error
        _check_config(self.config, f"{self.folder / CONFIG}")

    def read(self, name, most):
        """A file's bytes, which have its checksum."""
        data = self._bytes(name, most)
        if _sha256(data) != self._sums[name]:
            raise ValueError(f"{self.folder / name} does not have its checksum in {SUMS}: use another copy")
        return data

    def _bytes(self, name, most):
        path = self.folder / name
        try:
            # The Hub's cache holds links to its own files; in any other folder a link leads out of it.
            if self._root not in path.resolve(strict=True).parents or (path.is_symlink() and self._root == self.folder):
                raise ValueError(f"{path} is a link: files of a network lie in its folder")
            if not path.is_file():
                raise ValueError(f"{path} is not a file")
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = file.read(min(size, most) + 1)  # Python allocates what it is asked for first
        except FileNotFoundError as error:
            raise ValueError(f"{path} is missing: not a folder of save_pretrained, or not all of it") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, before Python 3.13
            raise ValueError(f"{path} cannot be read: {_line(error)}") from error
        if len(data) > most:
            raise ValueError(f"{path} holds more than the {most:,} bytes that it can need")
        return data


def _found(folder_or_name):
    """(the folder, the folder in which its files must lie)."""
    if isinstance(folder_or_name, str) and folder_or_name in SHIPPED:
        # A package manager may install files as links into its store; they still belong to the package.
        return _SHIPPED / SHIPPED[folder_or_name], pathlib.Path(_SHIPPED.resolve().anchor)
    try:
        folder = pathlib.Path(folder_or_name)
        if os.fspath(folder_or_name) and folder.is_dir():
            return (folder.resolve(),) * 2
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"folder_or_name (={folder_or_name!r:.200}) is no path: {_line(error)}") from error
    if isinstance(folder_or_name, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", folder_or_name):
        return _from_hub(folder_or_name)
    raise ValueError(
        f"folder_or_name (={str(folder_or_name)!r:.200}) must be a folder of save_pretrained, "
        f"or one of {', '.join(SHIPPED)}"
    )


def _from_hub(name):
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(f"{name} is no folder; as a Hub's name it needs pip install huggingface_hub") from error
    try:
        # Its `snapshots/REVISION` links to `blobs`, two levels up.
        folder = pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=[*_LISTED, SUMS])).resolve()
    except Exception as error:  # of a dozen kinds: the name, the network, the cache
        raise ValueError(f"{name} is no folder and cannot be had from the Hub: {_line(error)}") from error
    return folder, folder.parents[1]


def _check_config(config, where):
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{where} is not of fconv_jax: 'format' must be {FORMAT!r}")
    if config.get("format_version") != FORMAT_VERSION:
        version = config.get("format_version")
        raise ValueError(f"{where} has the format version {version!r:.40}, this fconv_jax reads {FORMAT_VERSION}")
    for name, kind in _REQUIRED.items():
        if not isinstance(config.get(name), kind):
            raise ValueError(f"{where}: {name!r} must be there, of type {kind.__name__}")
    if unknown := sorted(map(str, config.keys() - {*_REQUIRED, *_INFORMATIVE})):
        raise ValueError(f"{where}: {unknown[0]!r:.80} is none of {', '.join((*_REQUIRED, *_INFORMATIVE))}")


def _structure(config, where):
    """(graph, {name: (shape, type)}, {name: Flax path}) of the network that a config names; no parameters are made."""
    _check_config(config, where)
    try:
        options = {name: decoded(value) for name, value in config["options"].items()}
        model = nnx.eval_shape(lambda: models.create(config["model"], **options, rngs=nnx.Rngs(0)))
    except (TypeError, ValueError, ArithmeticError, MemoryError) as error:  # the last two: absurd sizes, or none
        raise ValueError(f"{where}: {_line(error)}") from error
    graph, state, others = nnx.split(model, (nnx.Param, nnx.BatchStat), ...)
    if nnx.to_flat_state(others):
        raise ValueError(f"{where}: {config['model']} has state that is neither parameter nor batch statistic")
    flat = {path: (value.shape, str(value.dtype)) for path, value in nnx.to_flat_state(state)}
    return graph, {_name(path): kind for path, kind in flat.items()}, {_name(path): path for path in flat}


def _check_arrays(what, found, expected):
    """Checks names, shapes and types: {name: (shape, type)}."""
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    for names, problem in ((missing, "is missing"), (extra, "is not one of the network's")):
        if names:
            raise ValueError(f"{what}: the array {min(names)!r:.80} {problem}")
    for name, kind in expected.items():
        if found[name] != kind:
            raise ValueError(f"{what}: {name} has shape and type {found[name]}, the network's has {kind}")


def _name(path):
    return ".".join(map(str, path))


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


def _refuse(word):
    raise ValueError(f"{word} is no number of JSON")


def _safetensors():
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("weights need safetensors: pip install safetensors") from error
    return safetensors


def _arrays(parts):
    """{name: array} of what safetensors reads; its own NumPy reader knows no bfloat16."""
    types = {f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)}
    types |= {"BF16": jnp.bfloat16, "BOOL": np.bool_}
    return {name: np.frombuffer(part["data"], types[part["dtype"]]).reshape(part["shape"]) for name, part in parts}
