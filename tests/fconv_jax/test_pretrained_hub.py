"""Weights of the Hugging Face Hub, from its cache, and what must be installed for them."""

import pathlib
import shutil
import sys

import numpy as np
import pytest

from fconv_jax.pretrained import CONFIG, from_pretrained
from tests.fconv_jax.test_pretrained import FOLDER, NAME, refused


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A snapshot of user/net in a cache of the Hub, without a network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    revision = "0123456789" * 4
    snapshot = tmp_path / "hub" / "models--user--net" / "snapshots" / revision
    for path in FOLDER.iterdir():
        blob = snapshot.parents[1] / "blobs" / f"blob_of_{path.name}"
        for folder in (blob.parent, snapshot):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(pathlib.Path("..", "..", "blobs", blob.name))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(revision)
    return snapshot


def test_a_name_of_the_hub_is_found_in_its_cache(hub, tmp_path):
    model = from_pretrained("user/net")
    np.testing.assert_array_equal(model.dense2.kernel[...], from_pretrained(NAME).dense2.kernel[...])
    refused("user/other", "user/other is no folder and cannot be had from the Hub")
    outside = shutil.copy(FOLDER / CONFIG, tmp_path)
    (hub / CONFIG).unlink()
    (hub / CONFIG).symlink_to(outside)
    refused("user/net", "is a link")


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("user/net", "pip install huggingface_hub")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        from_pretrained(NAME)
