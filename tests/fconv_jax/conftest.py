"""What the tests of the library share."""

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope="session")
def oracle():
    """The module `oracle.py` beside this file (tests are not a package)."""
    path = pathlib.Path(__file__).parent / "oracle.py"
    spec = importlib.util.spec_from_file_location("fconv_jax_test_oracle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
