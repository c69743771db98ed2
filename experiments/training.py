"""Training: init, gradient, steps and counts as pure functions, and the one place that maps them over seeds.

A seed's state is a dict of arrays:

    params, stats   parameters and batch statistics
    optimizer       Adam's moments and step count
    best            {setting: {params, stats, correct, epoch}}: the best validation epoch so far

Random numbers are functions of (seed, purpose, epoch, step, position in the batch), never of
how the work is cut, so any seed can be replayed alone and any step can be taken up again.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import fconv_jax
from experiments.backends import Plan

_INITIAL, _ORDER, _DROPOUT = range(3)  # purposes of a seed's random numbers


@dataclasses.dataclass(frozen=True)
class Network:
    """A network without its numbers, and its loss: `graphdef` merged with params and stats is the model.

    `has_stats`: batch statistics make the images of a batch depend on each other, so that a
    batch must not be cut.
    """

    graphdef: nnx.GraphDef
    create: Callable
    num_classes: int
    compute_dtype: jnp.dtype
    has_stats: bool
    label_smoothing: float = 0.0

    def expand(self, params):
        """Returns the parameters with F-Conv coefficients expanded to filters, as `apply` takes them."""
        model = fconv_jax.expand_filters(nnx.merge(self.graphdef, params, self._no_stats, copy=True))
        return nnx.to_pure_dict(nnx.state(model, nnx.Param))

    @functools.cached_property
    def _expanded(self):
        """The structure of the network with expanded filters."""
        model = nnx.eval_shape(lambda: fconv_jax.expand_filters(self.create(rngs=nnx.Rngs(0))))
        return nnx.split(model, nnx.Param, ...)[0]

    @functools.cached_property
    def _no_stats(self):
        model = nnx.eval_shape(lambda: self.create(rngs=nnx.Rngs(0)))
        return nnx.split(model, nnx.Param, ...)[2]

    def apply(self, filters, stats, images, keys=None):
        """Returns (logits float32, new stats) of uint8 images; training mode if `keys` (one an image) are given.

        Args:
          filters: parameters that went through `expand`, which slices of a batch share.
        """
        training = keys is not None
        model = nnx.merge(self._expanded, jax.tree.map(self._cast, filters), stats, copy=True)
        model = nnx.view(model, deterministic=not training, use_running_average=not training, raise_if_not_found=False)
        # A batch that may be cut is convolved inside of loops; one that may not stands alone, seed after seed.
        with fconv_jax.convolution_algorithm("auto" if self.has_stats else "loops"):
            logits = model(self._cast(images.astype(jnp.float32) / 255), rngs=keys)
        return logits.astype(jnp.float32), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def losses(self, logits, labels):
        """Returns the cross-entropy of each image, with the label y smoothed over the n classes.

            loss = -sum_c q_c log softmax(logits)_c,    q_c = (1 - s) [c = y] + s / n

        with the label smoothing s (Szegedy et al., CVPR 2016); s = 0 is the report's loss.
        """
        if self.label_smoothing == 0.0:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, self.num_classes), self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    def _cast(self, x):
        return x.astype(self.compute_dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def build(
    name: str,
    *,
    init: str = "report",
    num_classes: int = 10,
    precision: str = "float32",
    label_smoothing: float = 0.0,
) -> Network:
    """Returns the network `name` of `fconv_jax.models`, without making parameters.

    Args:
      precision: `"float32"` or `"bfloat16"` for the arithmetic; parameters, statistics and the
        loss are float32 either way.

    Raises:
      ValueError: an unknown name, init or precision.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision (={precision!r}) must be 'float32' or 'bfloat16'")
    create = functools.partial(fconv_jax.models.create, name, init=init, num_classes=num_classes)
    return network(create, num_classes=num_classes, precision=precision, label_smoothing=label_smoothing)


def network(
    create: Callable, *, num_classes: int = 10, precision: str = "float32", label_smoothing: float = 0.0
) -> Network:
    """Returns the network that `create(rngs=...)` makes, without making parameters."""
    graphdef, _, stats = nnx.split(nnx.eval_shape(lambda: create(rngs=nnx.Rngs(0))), nnx.Param, ...)
    has_stats = bool(jax.tree.leaves(stats))
    return Network(graphdef, create, num_classes, jnp.dtype(precision), has_stats, label_smoothing)


def abstract_model(network: Network) -> nnx.Module:
    """Returns the network's modules without numbers."""
    return nnx.eval_shape(lambda: network.create(rngs=nnx.Rngs(0)))


def num_parameters(network: Network) -> int:
    """Returns how many numbers a network learns."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract_model(network), nnx.Param)))


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam, with the learning rate of step n (from 0): constant, or falling along half a cosine to zero.

        rate(n) = learning_rate (1 + cos(pi n / num_steps)) / 2    (cosine).

    weight_decay: rate(n) weight_decay w is taken off the weights w, not off biases and norms (Loshchilov, Hutter,
    ICLR 2019).
    """

    learning_rate: float
    schedule: str = "constant"
    weight_decay: float = 0.0
    num_steps: int = 1

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
        updates, (moments, *rest) = self._at(rate).update(
            gradients, (state[0]._replace(count=counts[0]), *rest), params
        )
        moments = moments._replace(count=jnp.broadcast_to(moments.count, counts.shape))
        return optax.apply_updates(params, updates), (moments, *rest)

    def _at(self, rate):
        if self.weight_decay == 0.0:
            return optax.adam(rate)
        return optax.adamw(rate, weight_decay=self.weight_decay, mask=_weights)


def _weights(params):
    """Which parameters are weights: kernels and coefficients."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in ("kernel", "coefficients"), params)


def init(network: Network, settings: tuple[int, ...], optimizer: Adam, seed: jax.Array) -> dict:
    """Returns a seed's state before its first step; `settings` are those whose best epoch is kept."""
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


def step(network: Network, plan: Plan, optimizer: Adam, states: dict, seeds, epoch, index, batches, data):
    """One Adam step of all seeds: Adam on the gradient of the mean loss over each batch's own images.

    Args:
      states, seeds, batches: seeds on axis 0; a batch is int32 `[size]`, which images.
      epoch, index: which step this is (from 0), for dropout.
      data: (images uint8 `[n, 28, 28, 1]`, labels int32 `[n]`).

    Returns:
      the new states, and the batches' mean losses `[seeds]`.
    """
    gradient = functools.partial(seed_gradient, network, plan)
    moving = {"params": states["params"], "stats": states["stats"]}
    losses, gradients, stats = over_seeds(plan, gradient, (0, 0, None, None, 0, None))(
        moving, seeds, epoch, index, batches, data
    )
    params, moments = optimizer.update(states["params"], states["optimizer"], gradients)
    return {**states, "params": params, "stats": stats, "optimizer": moments}, losses


def seed_gradient(network: Network, plan: Plan, state: dict, seed, epoch, index, batch, data):
    """Returns the mean loss, its gradient and the new stats of one seed's batch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _DROPOUT), epoch)
    return batch_gradient(network, plan, state, jax.random.fold_in(key, index), batch, data)


def steps(network, plan, optimizer, batch_size, num_steps, states, seeds, epoch, first, orders, data):
    """`num_steps` steps of all seeds, from step `first` of the epoch; a whole epoch's full batches, or some of them.

    Returns:
      the new states, and the mean losses `[seeds, num_steps]`.
    """

    def one(states, index):
        batches = jax.lax.dynamic_slice_in_dim(orders, index * batch_size, batch_size, axis=1)
        return step(network, plan, optimizer, states, seeds, epoch, index, batches, data)

    if num_steps == 1:  # no loop around it: a CPU runs convolutions inside one far slower
        states, losses = one(states, first)
        return states, losses[:, None]
    states, losses = jax.lax.scan(one, states, first + jnp.arange(num_steps))
    return states, losses.T


def last_step(network, plan, optimizer, size, states, seeds, epoch, index, orders, data):
    """The epoch's last, smaller batch of `size` images: a step like any other."""
    batches = orders[:, orders.shape[1] - size :]
    states, losses = step(network, plan, optimizer, states, seeds, epoch, index, batches, data)
    return states, losses[:, None]


def confusion(network: Network, plan: Plan, params, stats, first, data):
    """Counts `[class, predicted]` int32 over images `first` .. `first + plan.eval_size - 1`, none past the end."""
    images, labels = data
    share = -(-plan.eval_size // plan.mesh_shape[1])
    positions = first + _data_shard(plan) * share + jnp.arange(share)
    counted = (positions < first + plan.eval_size) & (positions < labels.shape[0])
    chosen = jnp.minimum(positions, labels.shape[0] - 1)
    filters = network.expand(params)
    logits = _in_slices(plan, share, lambda rows: network.apply(filters, stats, images[chosen[rows]])[0])
    predicted = jnp.argmax(logits, axis=-1)
    table = jnp.zeros((network.num_classes,) * 2, jnp.int32)
    table = table.at[labels[chosen], predicted].add(counted.astype(jnp.int32))
    return _sum_over_devices(plan, table)


def keep_best(epoch: jax.Array, state: dict, correct: dict) -> dict:
    """Keeps this epoch (from 1) wherever it has more validation images right than all before it.

    Args:
      correct: {setting: number of validation images that this epoch has right}.
    """
    best = {}
    for setting, kept in state["best"].items():
        better = correct[setting] > kept["correct"]
        new = {"params": state["params"], "stats": state["stats"], "correct": correct[setting], "epoch": epoch}
        best[setting] = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, kept)  # noqa: B023 (used at once)
    return {**state, "best": best}


def over_seeds(plan: Plan, function: Callable, in_axes: tuple[int | None, ...]) -> Callable:
    """Maps one seed's `function` over seeds on axis 0 of the arguments with `in_axes` 0: the one place that does.

    All maps give the same numbers to float32 rounding.
    """
    if plan.seed_map == "vmap":
        return jax.vmap(function, in_axes=in_axes)

    def mapped(*args):
        seeded = [arg for arg, axis in zip(args, in_axes, strict=True) if axis == 0]

        def one(row):
            row = iter(row)
            return function(*(next(row) if axis == 0 else arg for arg, axis in zip(args, in_axes, strict=True)))

        if not plan.unrolled:
            return jax.lax.map(one, seeded)
        count = jax.tree.leaves(seeded)[0].shape[0]
        results = [one(jax.tree.map(operator.itemgetter(i), seeded)) for i in range(count)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    return mapped


def batch_gradient(network, plan, state, key, batch, data):
    """Returns the mean loss, its gradient and the new stats of a batch, each device's share in slices, summed."""
    images, labels = data
    size = batch.shape[0]
    share = size if network.has_stats else _share(size, plan)
    positions = _data_shard(plan) * share + jnp.arange(share)
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
    if plan.slice_size is None or network.has_stats:
        total, stats = add(zero, [rows])
    else:
        together = math.gcd(plan.slices_together, share // plan.slice_size)
        total, stats = jax.lax.scan(add, zero, rows.reshape(-1, together, plan.slice_size))
        stats = state["stats"]
    value, gradient = _sum_over_devices(plan, (total[0], *pull_back(total[1])))
    return value, gradient, stats


def _in_slices(plan, size, function):
    """`function` of the rows 0..size-1, slice after slice where the plan has slices."""
    if plan.slice_size is None or size <= plan.slice_size:
        return function(jnp.arange(size))
    padded = -(-size // plan.slice_size) * plan.slice_size
    rows = jnp.minimum(jnp.arange(padded), size - 1).reshape(-1, plan.slice_size)
    return jax.lax.map(function, rows).reshape(padded, -1)[:size]


def _share(size, plan):
    """Images of a batch for each device: whole slices."""
    share = -(-size // plan.mesh_shape[1])
    return share if plan.slice_size is None else -(-share // plan.slice_size) * plan.slice_size


def _data_shard(plan):
    return jax.lax.axis_index("data") if plan.mesh_shape[1] > 1 else 0


def _sum_over_devices(plan, tree):
    return jax.lax.psum(tree, "data") if plan.mesh_shape[1] > 1 else tree
