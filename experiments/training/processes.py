"""Several processes, on one machine or many, through `jax.distributed`: they compute together, the first one writes.

Every process runs the same command.  Under SLURM (`srun`) or MPI jax finds the others itself; elsewhere
JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID say who they are.
"""

import os
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from experiments.rules import InputError
from experiments.training.devices import are_several


def join() -> None:
    """Joins the other processes if there are any; call it before jax is used.

    Raises:
      InputError: the environment names a coordinator, but not how many processes there are or which this is.
    """
    if jax.distributed.is_initialized():
        return
    environment = os.environ
    if "JAX_COORDINATOR_ADDRESS" in environment:
        try:
            count, index = int(environment["JAX_NUM_PROCESSES"]), int(environment["JAX_PROCESS_ID"])
        except (KeyError, ValueError) as error:
            raise InputError(
                "JAX_COORDINATOR_ADDRESS also needs JAX_NUM_PROCESSES and JAX_PROCESS_ID as whole numbers"
            ) from error
        jax.distributed.initialize(num_processes=count, process_id=index)
    elif are_several():
        jax.distributed.initialize()
    else:
        return
    if jax.default_backend() == "cpu":
        _keep_gloo_silent()


def _keep_gloo_silent():
    """Drops what C++ writes to standard output: gloo's threads report each connection there, and have no switch."""
    if sys.stdout is None or sys.stdout is not sys.__stdout__ or sys.stdout.fileno() != 1:
        return  # not a standard stream, but for example a notebook's
    sys.stdout.flush()
    options = {"encoding": sys.stdout.encoding, "errors": sys.stdout.errors}
    sys.stdout = open(os.dup(1), "w", buffering=1, **options)  # noqa: SIM115 - lives as long as the process
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def devices(number: int) -> list:
    """Devices of all processes; of fewer than all, each process has its share."""
    found = jax.devices()
    if number < len(found):
        own = {process: [each for each in found if each.process_index == process] for process in range(len(found))}
        found.sort(key=lambda each: (own[each.process_index].index(each), each.process_index))
    return found[:number]


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks to the user."""
    return jax.process_index() == 0


def agreed(flag: bool) -> bool:
    """Whether any process says `flag`: all of them get the same answer."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def place(tree, sharding: NamedSharding):
    """Puts host arrays, the same in every process, onto all devices as `sharding` says."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(x):
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree)


def gather(tree):
    """Host copies of arrays that may be spread over processes."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda x: np.asarray(multihost_utils.process_allgather(x, tiled=True)), tree)
