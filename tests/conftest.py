"""Settings of the whole suite."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

# One thread each: the workers of `-n 2` share two cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from tests import goldens as stored

_MANY_MAPS = 30_000
_UNOPTIMIZED = pytest.StashKey[bool]()
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


def pytest_collection_finish():
    """What is imported stays: the collector need not look at it each time, which took a tenth of the suite."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each worker has whole files, and so compiles what a file shares once; an idle one takes tests over."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """A test marked `unoptimized`, and the processes it starts, compile in half the time."""
    import jax  # after `pytest_configure` has set what it reads

    unoptimized = item.get_closest_marker("unoptimized") is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(unoptimized)))
        if item.config.stash.get(_UNOPTIMIZED, False) != unoptimized:
            jax.clear_caches()  # what is in memory was compiled the other way; on disk both have their place
        item.config.stash[_UNOPTIMIZED] = unoptimized
        jax.config.update("jax_disable_most_optimizations", unoptimized)
        return (yield)


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """Forgets compiled programs before the process has as many memory maps as Linux allows (65,530): it would crash."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > _MANY_MAPS:
        import jax

        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def goldens():
    """Loads a file of the PyTorch reference's numbers, see `tests.goldens.load`."""
    return stored.load
