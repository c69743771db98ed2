"""Networks as files: what is written is read back bit for bit, whole or not at all, and nothing else is believed."""

import json
import os
import pathlib
import pickle
import re
import shutil
import struct

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import fconv_jax
from fconv_jax import pretrained
from fconv_jax.pretrained import CARD, CONFIG, SHIPPED, SUMS, WEIGHTS, from_pretrained, read_config, save_pretrained

NAME = "lenet_fconv_invariant_mnist_5k"
FOLDER = pathlib.Path(pretrained.__file__).parent / "weights" / SHIPPED[NAME]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def state(model):
    return {path: np.asarray(value[...]) for path, value in nnx.to_flat_state(nnx.state(model))}


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "copy")


def sum_up(folder):
    """Writes checksums that fit: what is wrong must be found without them."""
    lines = [f"{pretrained._sha256((folder / name).read_bytes())}  {name}\n" for name in (CONFIG, WEIGHTS, CARD)]
    (folder / SUMS).write_text("".join(lines))


def refused(folder, says):
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    model = fconv_jax.models.create("lenet_fconv_invariant", num_classes=3, rngs=nnx.Rngs(1))
    model.norm1.mean[...] = jnp.arange(8.0)
    config = {"model": "lenet_fconv_invariant", "options": {"num_classes": 3}, "classes": ["a", "b", "ä"]}
    save_pretrained(model, tmp_path / "new" / "mine", config=config, card="# Mine\n")
    found = from_pretrained(str(tmp_path / "new" / "mine"))
    assert state(found).keys() == state(model).keys()
    for path, value in state(model).items():
        np.testing.assert_array_equal(state(found)[path], value, err_msg=str(path))
    assert found.norm1.use_running_average  # in evaluation mode
    assert read_config(tmp_path / "new" / "mine")["classes"] == ["a", "b", "ä"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"mine"}
    assert "conv2.coefficients" in safetensors.numpy.load_file(tmp_path / "new" / "mine" / WEIGHTS)


def test_a_network_that_was_read_is_written_to_the_same_bytes(tmp_path):
    card = (FOLDER / CARD).read_text(encoding="utf-8")
    save_pretrained(from_pretrained(NAME), tmp_path / "again", config=read_config(NAME), card=card)
    assert files(tmp_path / "again") == files(FOLDER)


@pytest.mark.parametrize("name", fconv_jax.models.MODELS)
def test_every_network_has_nothing_but_what_is_kept(name):
    pretrained._structure({"format": "fconv_jax", "format_version": 1, "model": name, "options": {}}, "config")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_names_are_found_wherever_one_stands(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_config(name)["source"]["run"] == SHIPPED[name]
    refused(f"./{name}", "is missing")


def test_what_ships_is_small():
    assert SHIPPED[NAME] == FOLDER.name == f"setting4_{NAME}"
    assert sum(path.stat().st_size for path in FOLDER.parent.rglob("*")) < 9e6  # a LeNet has 1.1e6


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "'model' must be there"),
        ({"model": "lenot"}, "'lenot'"),
        ({"model": "lenet"}, "'conv.kernel' is missing"),
        ({"model": "lenet_fconv", "options": {"num_classes": 9}}, "shape and type"),
        ({"model": "lenet_fconv", "options": {"speed": 9}}, "speed"),
        ({"model": "lenet_fconv", "other": 1}, "'other'"),
        ({"model": "lenet_fconv", "format": "mine"}, "'format'"),
        ({"model": "lenet_fconv", "source": {"loss": float("nan")}}, "JSON"),
        ({"model": "lenet_fconv", "source": {"path": pathlib.Path()}}, "JSON"),
    ],
)
def test_a_config_that_is_not_the_models_is_refused(config, says, tmp_path):
    model = fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=says):
        save_pretrained(model, tmp_path / "mine", config=config, card="")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["folder", "file", "link", "in a file"])
def test_an_existing_folder_is_never_changed(kind, tmp_path):
    model, folder = fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0)), tmp_path / "mine"
    {
        "folder": folder.mkdir,
        "file": folder.touch,
        "link": lambda: folder.symlink_to(tmp_path / "nowhere"),
        "in a file": folder.touch,
    }[kind]()
    target, says = (folder / "below", "cannot be written") if kind == "in a file" else (folder, "exists")
    with pytest.raises(ValueError, match=says):
        save_pretrained(model, target, config={"model": "lenet_fconv"}, card="")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, CARD, SUMS])
def test_a_crash_leaves_nothing(name, tmp_path, monkeypatch):
    write = pathlib.Path.write_bytes

    def crash(path, data):
        write(path, data[:7])
        if path.name == name:
            raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "write_bytes", crash)
    model = fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0))
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(model, tmp_path / "mine", config={"model": "lenet_fconv"}, card="")
    assert not list(tmp_path.iterdir())


def packed(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_arrays(change):
    """The weights, changed."""

    def changed(data):
        arrays = safetensors.numpy.load(data)
        change(arrays)
        return safetensors.numpy.save(arrays)

    return changed


class Code:
    """Unpickled, it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


BROKEN_WEIGHTS = [
    (lambda data: data[:-1], "no safetensors file"),
    (lambda data: data + b"\0", "no safetensors file"),
    (lambda data: b"", "no safetensors file"),
    (lambda data: data[:9], "no safetensors file"),
    (lambda data: struct.pack("<Q", 2**62) + data[8:], "no safetensors file"),
    (lambda data: packed(b"{" + b" " * 2**21 + b"}"), "bytes that it can need"),
    (lambda data: packed(b"[1]"), "no safetensors file"),
    (lambda data: packed({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}), "no safetensors file"),
    (lambda data: packed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"01234567"), "no safetensors"),
    (lambda data: pickle.dumps(Code()), "no safetensors file"),
    (with_arrays(lambda x: x.pop("norm1.var")), "'norm1.var' is missing"),
    (with_arrays(lambda x: x.update(more=np.zeros(3, np.float32))), "'more' is not one of the network's"),
    (with_arrays(lambda x: x.update({"../x": x.pop("norm1.var")})), "'norm1.var' is missing"),
    (with_arrays(lambda x: x.update({"norm1.var": np.zeros((8, 1), np.float32)})), "norm1.var has shape and type"),
    (with_arrays(lambda x: x.update({"norm1.var": np.zeros(8, np.float64)})), "norm1.var has shape and type"),
    (with_arrays(lambda x: x.update({"norm1.var": np.zeros(8, np.int32)})), "norm1.var has shape and type"),
    (with_arrays(lambda x: x.update({"norm1.var": np.zeros(8, np.float16)})), "norm1.var has shape and type"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN_WEIGHTS)
def test_other_weights_are_refused(change, says, copy, monkeypatch):
    monkeypatch.chdir(copy.parent)
    (copy / WEIGHTS).write_bytes(change((copy / WEIGHTS).read_bytes()))
    refused(copy, f"{WEIGHTS} does not have its checksum" if says != "bytes that it can need" else says)
    sum_up(copy)
    refused(copy, says)
    assert not (copy.parent / "executed").exists()


def with_config(**change):
    return lambda text: json.dumps({**json.loads(text), **change})


BROKEN_CONFIGS = [
    (lambda text: "", "is not JSON"),
    (lambda text: text[:-20], "is not JSON"),
    (lambda text: "[" * 100_000, "is not JSON"),
    (lambda text: text.replace("0.99", "NaN"), "is not JSON: NaN"),
    (lambda text: "[]", "'format' must be 'fconv_jax'"),
    (lambda text: '{"model_type": "bert"}', "'format' must be 'fconv_jax'"),
    (lambda text: text + " " * 2**20, "bytes that it can need"),
    (with_config(format_version=0), "format version 0"),
    (with_config(format_version=2), "format version 2"),
    (with_config(model="os.system"), "'os.system'"),
    (with_config(model=["lenet"]), "'model' must be there, of type str"),
    (with_config(model="lenet"), "'conv.bias' is missing"),
    (with_config(options=None), "'options' must be there, of type dict"),
    (with_config(options={"num_classes": 11}), "has shape and type"),
    (with_config(options={"num_classes": 10**12}), "has shape and type"),  # and no memory for as many is asked for
    (with_config(options={"num_classes": -1}), "num_classes"),
    (with_config(options={"num_classes": "ten"}), "num_classes"),
    (with_config(options={"rngs": 0}), "rngs"),
    (with_config(options={"speed": 0}), "speed"),
    (with_config(auto_map={"AutoModel": "code.py"}), "'auto_map' is none of"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN_CONFIGS)
def test_other_configs_are_refused(change, says, copy):
    (copy / CONFIG).write_text(change((copy / CONFIG).read_text()))
    sum_up(copy)
    refused(copy, says)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, CARD])
def test_one_changed_bit_is_found_in_every_file(name, copy):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    refused(copy, f"{name} does not have its checksum")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: "", "must list"),
        (lambda text: text.replace("  config.json", "  ../config.json"), "must list"),
        (lambda text: text + f"{'0' * 64}  ../../secret\n", "must list"),
        (lambda text: text + text.splitlines()[0], "must list"),
        (lambda text: text.replace("  README", " *README"), "must list"),
        (lambda text: text.replace("\n", "\n\0"), "must list"),
    ],
)
def test_other_checksums_are_refused(change, says, copy):
    (copy / SUMS).write_text(change((copy / SUMS).read_text()))
    refused(copy, says)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, CARD, SUMS])
@pytest.mark.parametrize("kind", ["missing", "link", "link beside", "loop", "folder", "pipe"])
def test_what_is_no_file_of_the_folder_is_refused(kind, name, copy, tmp_path):
    path, outside = copy / name, tmp_path / "outside"
    path.rename(copy / "beside" if kind == "link beside" else outside)
    {
        "missing": lambda: None,
        "link": lambda: path.symlink_to(outside),
        "link beside": lambda: path.symlink_to("beside"),
        "loop": lambda: path.symlink_to(name),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    says = {"missing": "is missing", "loop": "cannot be read", "folder": "is not a file", "pipe": "is not a file"}
    refused(copy, f"{copy / name} {says.get(kind, 'is a link')}")


@pytest.mark.parametrize("name", ["nothing", "", "a/b/c", "no\0path", 3, "x" * 5000, "https://example.org/x", "../no"])
def test_what_is_neither_folder_nor_name_is_refused(name):
    refused(name, "folder_or_name")
