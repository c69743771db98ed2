"""Settings of the whole suite."""

import os
import pathlib

# One thread each: the workers of `-n 2` share two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

GOLDENS = pathlib.Path(__file__).parent / "goldens"


@pytest.fixture(scope="session")
def goldens():
    """Loads a file of the PyTorch reference's numbers: `goldens("layers")["case.array"]`."""

    def load(name: str):
        return np.load(GOLDENS / f"{name}.npz", allow_pickle=False)

    return load
