"""Init, gradient, steps and counts as pure functions, and the one place that maps them over seeds.

A seed's state is a dict of arrays:

    params, stats   parameters and batch statistics
    optimizer       Adam's moments and step count
    best            {setting: {params, stats, correct, epoch}}: the best validation epoch so far

Random numbers are functions of (seed, purpose, epoch, step, position in the batch), never of
how the work is cut, so any seed can be replayed alone, and training can resume at any step.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.training.devices import Layout
from experiments.training.network import Network

_INITIAL, _ORDER, _DROPOUT = range(3)  # purposes of a seed's random numbers


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam, with the learning rate of step n (from 0): constant, falling along half a cosine to zero, or in steps.

        rate(n) = learning_rate (1 + cos(pi n / num_steps)) / 2           (cosine)
        rate(n) = learning_rate / 5^k,  k = [n >= .3 num_steps] + [n >= .6 num_steps]    (steps).

    weight_decay: rate(n) weight_decay w is taken off the weights w, not off biases and norms (Loshchilov, Hutter,
    ICLR 2019).  l2: l2 w is added to the gradient of every parameter w, before Adam.
    """

    learning_rate: float
    schedule: str = "constant"
    weight_decay: float = 0.0
    num_steps: int = 1
    l2: float = 0.0

    def init(self, params):
        """The state of one seed."""
        return self._at(self.learning_rate).init(params)

    def update(self, params, state, gradients):
        """One step of all seeds, entry by entry; they have all made the same number of steps.

        With the step count as one number, the powers in Adam's corrections are not computed for every entry.
        """
        counts, rest = state[0].count, state[1:]
        rate = self.learning_rate
        if self.schedule == "cosine":
            rate = optax.cosine_decay_schedule(rate, self.num_steps)(counts[0])
        elif self.schedule == "steps":
            falls = {math.ceil(self.num_steps * share / 10): 0.2 for share in (3, 6)}
            rate = optax.piecewise_constant_schedule(rate, falls)(counts[0])
        if self.l2 > 0.0:
            gradients = jax.tree.map(lambda gradient, w: gradient + self.l2 * w, gradients, params)
        updates, (moments, *rest) = self._at(rate).update(
            gradients, (state[0]._replace(count=counts[0]), *rest), params
        )
        moments = moments._replace(count=jnp.broadcast_to(moments.count, counts.shape))
        return optax.apply_updates(params, updates), (moments, *rest)

    def _at(self, rate) -> Any:  # optax types the states of all optimizers alike
        if self.weight_decay == 0.0:
            return optax.adam(rate)
        return optax.adamw(rate, weight_decay=self.weight_decay, mask=_weights)


def _weights(params):
    """Which parameters are weights: kernels and coefficients."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in ("kernel", "coefficients"), params)


def init(network: Network, settings: tuple[int, ...], optimizer: Adam, seed: jax.Array) -> dict:
    """Returns a seed's state before its first step; each of `settings` keeps its own best epoch."""
    key = jax.random.fold_in(jax.random.key(seed), _INITIAL)
    _, params, stats = nnx.split(network.create(rngs=nnx.Rngs(params=key)), nnx.Param, ...)
    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    best = {"params": params, "stats": stats, "correct": jnp.int32(-1), "epoch": jnp.int32(0)}
    # Copies, since a state is donated and its arrays must not share memory.
    kept = {str(setting): jax.tree.map(jnp.copy, best) for setting in settings}
    return {"params": params, "stats": stats, "optimizer": optimizer.init(params), "best": kept}


def epoch_order(num_images: int, seed: jax.Array, epoch: jax.Array) -> jax.Array:
    """Returns the order `[num_images]` in which a seed sees the images in `epoch` (from 0)."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _ORDER), epoch)
    return jax.random.permutation(key, num_images)


def step(network: Network, layout: Layout, optimizer: Adam, states: dict, seeds, epoch, index, batches, data):
    """One Adam step of all seeds: Adam on the gradient of the mean loss over each batch's own images.

    `states`, `seeds` and `batches` have the seeds on axis 0; a batch is int32 `[size]`, which images. `epoch` and
    `index` say which step this is (from 0), for dropout. `data`: (images uint8 `[n, 28, 28, 1]`, labels int32 `[n]`).

    Returns:
      the new states, and the batches' mean losses `[seeds]`.
    """
    gradient = functools.partial(seed_gradient, network, layout)
    moving = {"params": states["params"], "stats": states["stats"]}
    losses, gradients, stats = over_seeds(layout, gradient, (0, 0, None, None, 0, None))(
        moving, seeds, epoch, index, batches, data
    )
    params, moments = optimizer.update(states["params"], states["optimizer"], gradients)
    return {**states, "params": params, "stats": stats, "optimizer": moments}, losses


def seed_gradient(network: Network, layout: Layout, state: dict, seed, epoch, index, batch, data):
    """Returns the mean loss, its gradient and the new stats of one seed's batch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _DROPOUT), epoch)
    return batch_gradient(network, layout, state, jax.random.fold_in(key, index), batch, data)


def steps(network, layout, optimizer, batch_size, num_steps, states, seeds, epoch, first, orders, data):
    """`num_steps` steps of all seeds, from step `first` of the epoch; a whole epoch's full batches, or some of them.

    Returns:
      the new states, and the mean losses `[seeds, num_steps]`.
    """

    def one(states, index):
        batches = jax.lax.dynamic_slice_in_dim(orders, index * batch_size, batch_size, axis=1)
        return step(network, layout, optimizer, states, seeds, epoch, index, batches, data)

    if num_steps == 1:  # no loop around it: a CPU runs convolutions inside one far slower
        states, losses = one(states, first)
        return states, losses[:, None]
    states, losses = jax.lax.scan(one, states, first + jnp.arange(num_steps))
    return states, losses.T


def last_step(network, layout, optimizer, size, states, seeds, epoch, index, orders, data):
    """The epoch's last, smaller batch of `size` images: a step like any other."""
    batches = orders[:, orders.shape[1] - size :]
    states, losses = step(network, layout, optimizer, states, seeds, epoch, index, batches, data)
    return states, losses[:, None]


def confusion(network: Network, layout: Layout, params, stats, first, data):
    """Counts `[class, predicted]` int32 over images `first` .. `first + layout.eval_size - 1`, none past the end."""
    images, labels = data
    share = -(-layout.eval_size // layout.mesh_shape[1])
    positions = first + _data_shard(layout) * share + jnp.arange(share)
    counted = (positions < first + layout.eval_size) & (positions < labels.shape[0])
    chosen = jnp.minimum(positions, labels.shape[0] - 1)
    filters = network.expand(params)
    logits = _in_slices(layout, share, lambda rows: network.apply(filters, stats, images[chosen[rows]])[0])
    predicted = jnp.argmax(logits, axis=-1)
    table = jnp.zeros((network.num_classes,) * 2, jnp.int32)
    table = table.at[labels[chosen], predicted].add(counted.astype(jnp.int32))
    return _sum_over_devices(layout, table)


def keep_best(epoch: jax.Array, state: dict, correct: dict) -> dict:
    """Keeps this epoch (from 1) wherever it has more validation images right than all before it.

    `correct`: {setting: number of validation images that this epoch has right}.
    """
    best = {}
    for setting, kept in state["best"].items():
        better = correct[setting] > kept["correct"]
        new = {"params": state["params"], "stats": state["stats"], "correct": correct[setting], "epoch": epoch}
        best[setting] = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, kept)  # noqa: B023 (used at once)
    return {**state, "best": best}


def over_seeds(layout: Layout, function: Callable, in_axes: tuple[int | None, ...]) -> Callable:
    """Maps one seed's `function` over seeds on axis 0 of the arguments with `in_axes` 0: the one place that does.

    All maps give the same numbers to float32 rounding.
    """
    if layout.seed_map == "vmap":
        return jax.vmap(function, in_axes=in_axes)

    def mapped(*args):
        seeded = [arg for arg, axis in zip(args, in_axes, strict=True) if axis == 0]

        def one(row):
            row = iter(row)
            return function(*(next(row) if axis == 0 else arg for arg, axis in zip(args, in_axes, strict=True)))

        if not layout.unrolled:
            return jax.lax.map(one, seeded)
        count = jax.tree.leaves(seeded)[0].shape[0]
        results = [one(jax.tree.map(operator.itemgetter(i), seeded)) for i in range(count)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    return mapped


def batch_gradient(network, layout, state, key, batch, data):
    """Returns the mean loss, its gradient and the new stats of a batch, each device's share in slices, summed."""
    images, labels = data
    size = batch.shape[0]
    share = size if network.has_stats else _share(size, layout)
    positions = _data_shard(layout) * share + jnp.arange(share)
    chosen = batch[jnp.minimum(positions, size - 1)]
    weights = (positions < size).astype(jnp.float32) / size  # a share's last slice may reach past the end
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, positions)

    filters, pull_back = jax.vjp(network.expand, state["params"])

    def loss(filters, rows):
        logits, stats = network.apply(filters, state["stats"], images[chosen[rows]], keys[rows])
        losses = network.losses(logits, labels[chosen[rows]])
        return jnp.sum(jnp.where(weights[rows] > 0, losses * weights[rows], 0.0)), stats

    value_and_gradient = jax.value_and_grad(loss, has_aux=True)

    def add(total, slices):
        # Slices of one round do not wait for each other.
        parts = [value_and_gradient(filters, rows) for rows in slices]
        for (value, _), gradient in parts:
            total = jax.tree.map(jnp.add, total, (value, gradient))
        return total, parts[-1][0][1]

    rows = jnp.arange(share)
    zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, filters))
    if layout.slice_size is None or network.has_stats:
        total, stats = add(zero, [rows])
    else:
        together = math.gcd(layout.slices_together, share // layout.slice_size)
        total, stats = jax.lax.scan(add, zero, rows.reshape(-1, together, layout.slice_size))
        stats = state["stats"]
    value, gradient = _sum_over_devices(layout, (total[0], *pull_back(total[1])))
    return value, gradient, stats


def _in_slices(layout, size, function):
    """`function` of the rows 0..size-1, slice after slice where the layout has slices."""
    if layout.slice_size is None or size <= layout.slice_size:
        return function(jnp.arange(size))
    padded = -(-size // layout.slice_size) * layout.slice_size
    rows = jnp.minimum(jnp.arange(padded), size - 1).reshape(-1, layout.slice_size)
    return jax.lax.map(function, rows).reshape(padded, -1)[:size]


def _share(size, layout):
    """Images of a batch for each device: whole slices."""
    share = -(-size // layout.mesh_shape[1])
    return share if layout.slice_size is None else -(-share // layout.slice_size) * layout.slice_size


def _data_shard(layout):
    return jax.lax.axis_index("data") if layout.mesh_shape[1] > 1 else 0


def _sum_over_devices(layout, tree):
    return jax.lax.psum(tree, "data") if layout.mesh_shape[1] > 1 else tree
