"""Fixtures of all tests of the programs: one finished run."""

import gc

import jax
import pytest

from experiments import data
from tests.experiments import helpers, small_digits


@pytest.fixture
def dropped_futures():
    """Collects, inside the test whose filter ignores them, what Orbax drops when a file is damaged."""
    yield
    gc.collect()


@pytest.fixture
def synthetic(monkeypatch):
    """The command lines load the synthetic data."""
    monkeypatch.setattr(data, "load", small_digits.load)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run on the synthetic data; read it, or copy it.

    Compiled without XLA's optimizations whichever test comes first: others are compared with it bit for bit.
    """
    folder, flag = tmp_path_factory.mktemp("finished") / "run", "jax_disable_most_optimizations"
    before = jax.config.read(flag)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", small_digits.load)
        jax.config.update(flag, True)
        assert helpers.run(*helpers.QUICK, "--output", folder) == 0
        jax.config.update(flag, before)
    return folder
