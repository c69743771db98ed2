"""Where and how a network is trained: the one place that knows backends and devices.

`configure` runs before jax is imported (flags are read once); all else runs after, and imports jax itself.
"""

import dataclasses
import os
import platform
import warnings
from pathlib import Path

from experiments.settings import MODELS, SEED_MAPS


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one program trains all seeds.

    Attributes:
      seed_map: `"vmap"` or `"loop"` (`lax.map`): the same numbers to float32 rounding.  A GPU is
        filled by all seeds at once, a CPU's cache by one after another.
      slice_size: images whose gradient is computed at a time; `None` is the whole batch.
      eval_size: images evaluated at a time.
      steps_per_call: optimizer steps in one call of the compiled program.
      mesh_shape: devices along ("seed", "data").
      slices_together: slices that do not wait for each other, so that cores can share them.
      unrolled: the loop over seeds is written out: inside a loop a CPU takes some 20 times longer for convolutions of
        many channels.
    """

    seed_map: str
    slice_size: int | None
    eval_size: int
    steps_per_call: int
    mesh_shape: tuple[int, int]
    slices_together: int = 1
    unrolled: bool = False


def configure(model: str, num_seeds: int = 1) -> None:
    """Sets what jax reads when it is imported; call it before that, with the network's name and its number of seeds.

    On a CPU, the seeds of a small network are spread over several "devices" where they divide evenly: cores that
    train different seeds wait for each other less than cores that share each operation.

    Compiled programs are kept in the user's cache folder; JAX_ENABLE_COMPILATION_CACHE=false switches
    that off.  Variables that are already set take precedence.  Messages that a user cannot act on (TPU
    look-ups, absl) are switched off.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("JAX_PLATFORMS", "" if _has_gpu() else "cpu")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    flags, large = os.environ.get("XLA_FLAGS", ""), _is_large(model)
    if not large and "xla_cpu_multi_thread_eigen" not in flags:
        # Their products are too small to be shared by cores; XLA runs independent ones side by side instead.
        flags = f"{flags} --xla_cpu_multi_thread_eigen=false"
    devices = 1 if large else _even_share(num_seeds, os.cpu_count() or 1)
    if devices > 1 and os.environ["JAX_PLATFORMS"] == "cpu" and "host_platform_device_count" not in flags:
        flags = f"{flags} --xla_force_host_platform_device_count={devices}"
    if flags:
        os.environ["XLA_FLAGS"] = flags.strip()
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "fconv_jax")
    if _can_be_written(cache):  # else jax would warn of each program
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    warnings.filterwarnings("ignore", message=".*(TPU|CUDA-enabled jaxlib|os.fork).*")


def _can_be_written(folder):
    """Whether a folder is there, or can be made, and files in it."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder) or "."
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def are_several() -> bool:
    """Whether the environment says that this process is one of several that compute together."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return "JAX_COORDINATOR_ADDRESS" in os.environ or any(int(count or 1) > 1 for count in counts)


def layout(model: str, num_seeds: int, batch_size: int, *, seed_map: str = "auto", has_stats: bool = False) -> Layout:
    """Returns how `model` is trained on the devices of this process.

    `seed_map`: `"auto"`, or force `"vmap"` or `"loop"`; `has_stats`: batch statistics, so that a batch is not cut.

    Raises:
      ValueError: an unknown seed map.
    """
    import jax

    if seed_map not in SEED_MAPS:
        raise ValueError(f"seed map (={seed_map!r}) must be one of {', '.join(SEED_MAPS)}")
    large, cpu = _is_large(model), jax.default_backend() == "cpu"
    mesh_shape = _mesh_shape(num_seeds, jax.device_count(), jax.process_count(), split_batch=not has_stats)
    share = -(-batch_size // mesh_shape[1])  # of one device
    # On a CPU, a slice's arrays stay in the cache; on a GPU, those of five large networks fit its memory.
    slice_size = (64 if large else 16) if cpu else (1024 if large else None)
    together = 2 if cpu and not large else 1
    if has_stats or (slice_size is not None and slice_size >= share):
        slice_size = None
    if slice_size is not None:
        rounds = -(-share // (slice_size * together))
        slice_size = -(-share // (rounds * together))  # equal slices: a batch of 100 is 8 x 13
    return Layout(
        seed_map=("loop" if cpu else "vmap") if seed_map == "auto" else seed_map,
        slice_size=slice_size,
        eval_size=250 if cpu else 1000 if has_stats else 5000,  # those with statistics are large, and never cut
        steps_per_call=1 if cpu else 64,
        mesh_shape=mesh_shape,
        slices_together=together,
        unrolled=cpu and has_stats,
    )


def num_at_once(num_devices: int) -> int:
    """How many of these devices compute at the same time: on a CPU there may be more of them than cores."""
    import jax

    return min(num_devices, _num_cores() * jax.process_count()) if jax.default_backend() == "cpu" else num_devices


def device_name() -> str:
    """The devices that jax computes on, in words."""
    import jax

    devices = jax.devices()
    kind = devices[0].device_kind if devices[0].platform != "cpu" else cpu_and_cores()
    return kind if len(devices) == 1 else f"{kind} ({len(devices)} devices)"


def cpu_and_cores() -> str:
    """The processor and the number of cores that this process may use, in words."""
    allowed = _num_cores()
    return f"{cpu_name()} CPU, {allowed} core{'' if allowed == 1 else 's'}"


def cpu_name() -> str:
    """The processor, in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _num_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_large(model):
    return model in MODELS and MODELS[model].large


def _mesh_shape(num_seeds, num_devices, num_processes, split_batch):
    """Devices along ("seed", "data"): whole seeds where they divide, the rest shares batches."""
    if not split_batch:
        return max(min(num_devices, num_seeds), num_processes), 1  # each process computes something
    along_seeds = max(s for s in range(1, num_devices + 1) if num_devices % s == 0 and num_seeds % s == 0)
    return along_seeds, num_devices // along_seeds


def _even_share(num_seeds, num_cores):
    """The most cores, none idle, that can each train the same number of seeds."""
    return max(d for d in range(1, num_cores + 1) if num_seeds % d == 0)


def _has_gpu():
    return os.path.exists("/proc/driver/nvidia/version") or os.path.exists("/dev/nvidia0")
