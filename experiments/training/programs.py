"""The compiled programs that train all seeds, and the arrays they work on."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments.data import Split
from experiments.training import devices, processes, steps
from experiments.training.devices import Layout
from experiments.training.network import Network

_SEED, _ALL = PartitionSpec("seed"), PartitionSpec()
_STEPS = (0, 0, None, None, 0, None)  # states, seeds, epoch, first step, orders, data: which have the seeds on axis 0


class Programs:
    """All seeds' training on all devices: seeds and batches are spread over a ("seed", "data") mesh.

    States, orders and counts have the seeds on axis 0.  Where seeds do not divide by the
    devices, the last seed is repeated; `rows` drops the repetitions.  `optimizer`: further options of `steps.Adam`.
    """

    def __init__(
        self,
        network: Network,
        layout: Layout,
        seeds: tuple[int, ...],
        settings,
        *,
        batch_size: int,
        learning_rate: float,
        **optimizer,
    ):
        self.network, self.layout, self.settings = network, layout, tuple(settings)
        self.num_seeds, self.batch_size = len(seeds), batch_size
        self.optimizer = steps.Adam(learning_rate, **optimizer)
        shape = layout.mesh_shape
        devices = np.asarray(processes.devices(shape[0] * shape[1])).reshape(shape)
        self.mesh = jax.sharding.Mesh(devices, ("seed", "data"))
        padded = list(seeds) + [seeds[-1]] * (-len(seeds) % shape[0])
        self.seeds = processes.place(np.asarray(padded, np.uint32), self.sharding)

    @property
    def sharding(self) -> NamedSharding:
        """Of everything that has the seeds on axis 0."""
        return NamedSharding(self.mesh, _SEED)

    def rows(self, tree):
        """Host copies of a tree's rows of the real seeds."""
        return jax.tree.map(lambda x: x[: self.num_seeds], processes.gather(tree))

    def place(self, split: Split):
        """Copies a whole split, as uint8, to every device."""
        sharding = NamedSharding(self.mesh, _ALL)
        return processes.place((split.images, split.labels.astype(np.int32)), sharding)

    def abstract_rows(self):
        """Shapes of the real seeds' states, for a restore onto one device."""
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        states = jax.eval_shape(self._init, self.seeds)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self.num_seeds, *x.shape[1:]), x.dtype, sharding=device), states
        )

    def unpad(self, tree):
        """The real seeds' rows of a tree, as they are where none is repeated and all are in this process."""
        whole = self.seeds.shape[0] == self.num_seeds and jax.process_count() == 1
        return tree if whole else self.rows(tree)

    def pad(self, tree):
        """The inverse of `unpad`: rows of the real seeds -> rows of all, spread over the devices."""
        rows = np.minimum(np.arange(self.seeds.shape[0]), self.num_seeds - 1)
        padded = jax.tree.map(lambda x: x[rows] if len(rows) > self.num_seeds else x, tree)
        return processes.place(padded, self.sharding)

    def init(self):
        """The states before the first step."""
        return self._init(self.seeds)

    def num_steps(self, data) -> int:
        """Steps of an epoch, the last smaller one included."""
        return -(-data[1].shape[0] // self.batch_size)

    def orders(self, data, epoch: int):
        """The order in which each seed sees the images in `epoch` (from 0)."""
        return self._orders(data[1].shape[0])(self.seeds, np.int32(epoch))

    def steps(self, states, orders, data, epoch: int, first: int, count: int):
        """Runs steps `first` .. of `epoch`, at most `count` and at most to the last full batch, or the last batch.

        Donates `states`.  Returns the new states, losses `[seeds, steps done]` and the number of steps done.
        """
        full, rest = divmod(data[1].shape[0], self.batch_size)
        done = min(count, full - first) if first < full else 1
        program = self._steps(done, self.batch_size) if first < full else self._last_step(rest)
        moving = {name: value for name, value in states.items() if name != "best"}
        moving, losses = program(moving, self.seeds, np.int32(epoch), np.int32(first), orders, data)
        return {**states, **moving}, losses, done

    def confusion(self, params, stats, data) -> np.ndarray:
        """Counts `[seeds, class, predicted class]` over a whole split."""
        parts = []
        # Many programs that add up over a CPU's devices, given at once, wait for each other until jax aborts.
        waits = self.layout.mesh_shape[1] > 1 and self.mesh.devices.flat[0].platform == "cpu"
        for first in range(0, data[1].shape[0], self.layout.eval_size):
            parts.append(self._confusion(params, stats, np.int32(first), data))
            if waits:
                jax.block_until_ready(parts[-1])
        return self.rows(functools.reduce(jnp.add, parts))

    def seconds_per_image(self, states, data, images: int = 64, rounds: int = 3) -> float:
        """Returns the time of one seed's gradient on one image, all devices working; measured, without compilation."""
        size = min(images, self.batch_size, data[1].shape[0])
        slice_size = min(size, self.layout.slice_size or size)
        layout = dataclasses.replace(self.layout, mesh_shape=(1, 1), slice_size=slice_size)
        size -= size % slice_size
        gradient = jax.jit(functools.partial(steps.batch_gradient, self.network, layout))
        states = {name: states[name] for name in ("params", "stats")}
        row = jax.tree.map(lambda x: x.addressable_shards[0].data[0], states)
        local = jax.tree.map(lambda x: x.addressable_shards[0].data, data)
        arguments = (row, jax.random.key(0), jnp.arange(size), local)
        jax.block_until_ready(gradient(*arguments))
        began = time.monotonic()
        for _ in range(rounds):
            jax.block_until_ready(gradient(*arguments))
        return (time.monotonic() - began) / rounds / size / devices.num_at_once(self.mesh.size)

    def keep_best(self, states, correct: dict, epoch: int):
        """Keeps this epoch (from 1) where it is the best; `correct`: {setting: `[num_seeds]`}.  Donates `states`."""
        padded = {
            str(setting): processes.place(
                np.pad(counts, (0, self.seeds.shape[0] - self.num_seeds), mode="edge").astype(np.int32), self.sharding
            )
            for setting, counts in correct.items()
        }
        return self._keep_best(np.int32(epoch), states, padded)

    @functools.cached_property
    def _init(self):
        one = functools.partial(steps.init, self.network, self.settings, self.optimizer)
        return self._mapped(one, (0,))

    @functools.cache  # noqa: B019 (programs live as long as the process)
    def _orders(self, num_images):
        return self._mapped(functools.partial(steps.epoch_order, num_images), (0, None))

    @functools.cache  # noqa: B019
    def _steps(self, num_steps, batch_size):
        settings = (self.network, self.layout, self.optimizer, batch_size, num_steps)
        return self._program(functools.partial(steps.steps, *settings), _STEPS, donate=(0,))

    @functools.cache  # noqa: B019
    def _last_step(self, size):
        settings = (self.network, self.layout, self.optimizer, size)
        return self._program(functools.partial(steps.last_step, *settings), _STEPS, donate=(0,))

    @functools.cached_property
    def _confusion(self):
        return self._mapped(functools.partial(steps.confusion, self.network, self.layout), (0, 0, None, None))

    @functools.cached_property
    def _keep_best(self):
        return self._mapped(steps.keep_best, (None, 0, 0), donate=(1,))

    def _mapped(self, one, in_axes, donate=()):
        """One seed's function, mapped over seeds and devices and compiled."""
        return self._program(steps.over_seeds(self.layout, one, in_axes), in_axes, donate)

    def _program(self, function, in_axes, donate=()):
        """A function of all of a device's seeds, on axis 0 of the arguments with `in_axes` 0, compiled for the mesh."""
        specs = tuple(_SEED if axis == 0 else _ALL for axis in in_axes)
        # Outputs are alike over "data" by construction (sums over devices), which jax cannot check.
        sharded = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=_SEED, check_vma=False)
        return jax.jit(sharded, donate_argnums=donate)
