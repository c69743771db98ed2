"""Fixtures of all tests of the programs: compiled programs are shared, and one finished run."""

import gc

import jax
import pytest

from experiments import data
from tests.experiments import helpers


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Programs that several tests compile are compiled once."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def dropped_futures():
    """Collects, inside the test whose filter ignores them, what Orbax drops when a file is damaged."""
    yield
    gc.collect()


@pytest.fixture
def synthetic(monkeypatch):
    """The command lines load the synthetic data."""
    monkeypatch.setattr(data, "load", helpers.load)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, compiled_once):
    """The folder of a finished run on the synthetic data; read it, or copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", helpers.load)
        assert helpers.run(*helpers.QUICK, "--output", folder) == 0
    return folder
