"""Two real processes on this machine train together: the results of one process, files written once."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.experiments import helpers, small_digits


def start(tmp_path, name, **variables):
    command = [sys.executable, "-m", "experiments.run", *helpers.QUICK, "--output", str(tmp_path / name)]
    inherited = small_digits.environment(tmp_path / "site")
    environment = {key: value for key, value in inherited.items() if not key.startswith(("XLA_", "JAX_"))}
    environment |= {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    """Their outputs; none is left running."""
    try:
        done = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), done
    return [out for out, _ in done]


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(finished, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    processes = [start(tmp_path, "two", **together, JAX_PROCESS_ID=str(index)) for index in range(2)]
    outputs = finish(*processes)
    assert "test accuracy" in outputs[0]
    assert outputs[1] == ""
    assert "rank" not in outputs[0]  # and not gloo
    one, two = (json.loads((folder / "results.json").read_text()) for folder in (finished, tmp_path / "two"))
    np.testing.assert_allclose(two["train_loss"], one["train_loss"], rtol=1e-5)
    np.testing.assert_allclose(two["test_accuracy"], one["test_accuracy"], rtol=1e-6)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in finished.iterdir()
    )


def test_half_an_address_is_bad_input(tmp_path):
    process = start(tmp_path, "half", JAX_COORDINATOR_ADDRESS="127.0.0.1:1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "JAX_NUM_PROCESSES" in err.splitlines()[-1]
    assert "Traceback" not in err
