"""Settings of the whole suite."""

import os

# One thread each: the workers of `-n 2` share two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from tests import goldens as stored


@pytest.fixture(scope="session")
def goldens():
    """Loads a file of the PyTorch reference's numbers, see `tests.goldens.load`."""
    return stored.load
