"""Numbers of the PyTorch reference (README.md: what they are, and how they were made)."""

import json
import pathlib

import numpy as np


def load(name: str):
    """The arrays of a file by their names: `load("layers")["case.array"]`."""
    return np.load(pathlib.Path(__file__).parent / f"{name}.npz", allow_pickle=False)


def meta(name: str) -> dict:
    """What a file says of its cases."""
    return json.loads(str(load(name)["meta_json"]))
