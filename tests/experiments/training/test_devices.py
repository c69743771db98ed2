"""Layouts for the devices at hand, and what is set before jax is imported."""

import math
import os
import types
import warnings

import jax
import pytest

from experiments.training import processes
from experiments.training.devices import are_several, configure, device_name, layout, num_at_once


@pytest.fixture
def gpu(monkeypatch):
    """Layouts believe that they are made for this many GPUs."""

    def pretend(count=1):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(jax, "device_count", lambda: count)

    return pretend


def test_on_a_cpu_seeds_are_looped_over_in_slices():
    made = layout("lenet_fconv", 5, 256)
    assert (made.seed_map, made.slice_size, made.steps_per_call) == ("loop", 16, 1)
    assert layout("lenet_fconv", 5, 256, seed_map="vmap").seed_map == "vmap"
    assert layout("lenet", 5, 16).slice_size is None
    assert (made.slices_together, layout("lenet", 5, 100).slice_size) == (
        2,
        13,
    )  # equal slices, an even number
    assert (layout("alexnet", 5, 256).slice_size, layout("alexnet", 5, 256).slices_together) == (64, 1)
    assert layout("fconv_mnist", 5, 256, has_stats=True).slice_size is None


def test_on_a_gpu_seeds_are_mapped_at_once(gpu):
    gpu()
    made = layout("lenet_fconv", 5, 4096)
    assert (made.seed_map, made.slice_size, made.mesh_shape) == ("vmap", None, (1, 1))
    assert made.steps_per_call > 1
    assert layout("alexnet_fconv", 5, 4096).slice_size == 1024
    assert layout("lenet", 5, 4096, seed_map="loop").seed_map == "loop"


@pytest.mark.parametrize("devices", range(1, 10))
@pytest.mark.parametrize("seeds", [1, 2, 5, 6])
def test_meshes_use_all_devices(gpu, devices, seeds):
    gpu(devices)
    along_seeds, along_data = layout("lenet", seeds, 256).mesh_shape
    assert along_seeds * along_data == devices
    assert along_seeds == math.gcd(devices, seeds)
    # A batch that must stay whole is not spread.
    assert layout("fconv_mnist", seeds, 256, has_stats=True).mesh_shape == (min(devices, seeds), 1)


@pytest.mark.parametrize(("devices", "batch_size", "slices"), [(8, 4096, 1), (2, 4096, 2), (16, 4096, 1), (1, 4096, 4)])
def test_each_device_computes_its_share_of_a_batch_and_no_more(gpu, devices, batch_size, slices):
    gpu(devices)
    made = layout("alexnet_fconv", 1, batch_size)
    assert made.mesh_shape == (1, devices)
    assert (made.slice_size or batch_size // devices) * slices * devices == batch_size


def test_each_process_has_a_device_where_seeds_are_few(gpu, monkeypatch):
    gpu(16)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert layout("fconv_mnist", 5, 16, has_stats=True).mesh_shape == (5, 1)
    assert layout("fconv_mnist", 1, 16, has_stats=True).mesh_shape == (2, 1)
    found = [types.SimpleNamespace(process_index=i // 8, id=i) for i in range(16)]
    monkeypatch.setattr(jax, "devices", lambda: list(found))
    assert [each.id for each in processes.devices(5)] == [0, 8, 1, 9, 2]
    assert [each.id for each in processes.devices(16)] == list(range(16))


def test_an_unknown_map():
    with pytest.raises(ValueError, match=r"seed map \(='pmap'\) must be one of auto, vmap, loop"):
        layout("lenet", 5, 256, seed_map="pmap")


def test_configure_yields_to_what_is_set(monkeypatch):
    monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": "cuda", "XLA_FLAGS": "--one=1"})
    with warnings.catch_warnings():
        configure("lenet")
        assert os.environ["JAX_PLATFORMS"] == "cuda"
        assert os.environ["XLA_FLAGS"] == "--one=1 --xla_cpu_multi_thread_eigen=false"
        configure("lenet")
        assert os.environ["XLA_FLAGS"].count("eigen") == 1
        monkeypatch.setattr(os, "environ", {})
        configure("alexnet_fconv")
    assert "XLA_FLAGS" not in os.environ


@pytest.mark.parametrize(
    ("model", "seeds", "cores", "devices"),
    [("lenet", 5, 2, 1), ("lenet", 10, 2, 2), ("lenet", 5, 16, 5), ("lenet", 1, 8, 1), ("alexnet", 4, 4, 1)],
)
def test_seeds_that_divide_evenly_are_spread_over_cores(monkeypatch, model, seeds, cores, devices):
    monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": "cpu"})
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    with warnings.catch_warnings():
        configure(model, seeds)
    wanted = f"--xla_force_host_platform_device_count={devices}"
    assert (wanted in os.environ.get("XLA_FLAGS", "")) == (devices > 1)
    assert ("device_count" in os.environ.get("XLA_FLAGS", "")) == (devices > 1)


def test_compiled_programs_are_kept_where_they_can_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for place, kept in (("new", True), ("file", False)):
        monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / place / "cache")})
        with warnings.catch_warnings():
            configure("lenet")
        assert ("JAX_COMPILATION_CACHE_DIR" in os.environ) == kept
    assert {path.name for path in tmp_path.iterdir()} == {"file"}  # nothing is made yet


def test_a_number_of_devices_that_is_set_stays(monkeypatch):
    monkeypatch.setattr(
        os, "environ", {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    )
    with warnings.catch_warnings():
        configure("lenet", 8)
    assert os.environ["XLA_FLAGS"].count("device_count") == 1


def test_on_a_gpu_the_host_stays_one_device(monkeypatch):
    monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": "cuda"})
    with warnings.catch_warnings():
        configure("lenet", 8)
    assert "device_count" not in os.environ["XLA_FLAGS"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinities here")
def test_a_machine_has_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1})
    assert "CPU, 1 core" in device_name()
    assert "cores" not in device_name()
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    assert "CPU, 3 cores" in device_name()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinities here")
def test_devices_of_a_cpu_compute_at_once_as_far_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert [num_at_once(count) for count in (1, 2, 5)] == [1, 2, 2]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert num_at_once(10) == 4
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert num_at_once(5) == 5


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False), ({"SLURM_STEP_NUM_TASKS": "1"}, False), ({"OMPI_COMM_WORLD_SIZE": ""}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True), ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1"}, True),
    ],
)  # fmt: skip
def test_the_environment_says_whether_a_process_is_one_of_several(monkeypatch, variables, several):
    monkeypatch.setattr(os, "environ", variables)
    assert are_several() is several
