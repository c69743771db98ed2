"""Settings of the whole suite."""

import os
import shutil
import tempfile

# One thread each: the workers of `-n 2` share two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from tests import goldens as stored

_CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def pytest_configure(config):
    """What one worker or one process that a test starts has compiled, none of them compiles again."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.compiled = tempfile.mkdtemp(prefix="compiled-")
        os.environ.update(_CACHE, JAX_COMPILATION_CACHE_DIR=config.compiled)
    # Two workers at once: an entry may be read half written, and is then compiled.
    config.addinivalue_line("filterwarnings", "ignore:Error reading persistent compilation cache entry")


def pytest_unconfigure(config):
    """Removes what `pytest_configure` made."""
    shutil.rmtree(getattr(config, "compiled", ""), ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """A test marked `unoptimized`, and the processes it starts, compile in half the time."""
    import jax  # after `pytest_configure` has set what it reads

    unoptimized = item.get_closest_marker("unoptimized") is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(unoptimized)))
        jax.config.update("jax_disable_most_optimizations", unoptimized)
        return (yield)


@pytest.fixture(scope="session")
def goldens():
    """Loads a file of the PyTorch reference's numbers, see `tests.goldens.load`."""
    return stored.load
