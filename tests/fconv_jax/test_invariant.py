"""The invariant networks: exact at quarter turns whatever their parameters, nearly so between."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from fconv_jax.models.invariant import InvariantFConv, Layer
from fconv_jax.models.stages import means_over_space

# Quarter turns permute pixels and rotations: what is left is the order of float32 sums, relative to the largest logit.
EXACT = 1e-5
NAMES = ("lenet_fconv_invariant", "alexnet_fconv_invariant")
PLAIN = {"lenet_fconv_invariant": "lenet", "alexnet_fconv_invariant": "alexnet"}


def images(seed=0, count=2):
    return jnp.asarray(np.random.RandomState(seed).uniform(size=(count, 28, 28, 1)), jnp.float32)


def disturbed(model, seed=1):
    """The model, in evaluation mode, with other numbers in all of its parameters and statistics."""
    graph, state = nnx.split(model)
    random = np.random.RandomState(seed)
    state = jax.tree.map(
        lambda x: (
            x * jnp.asarray(random.uniform(0.5, 2, x.shape), x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
        ),
        state,
    )
    return nnx.view(nnx.merge(graph, state), deterministic=True, use_running_average=True, raise_if_not_found=False)


def small(**options):
    layers = (Layer(5, 4, 3, pool=True), Layer(3, 8, 2))
    return InvariantFConv(layers, **{"num_rotations": 8, "hidden": 32, **options}, rngs=nnx.Rngs(0))


def assert_invariant(model, x):
    run = jax.jit(model.__call__)
    expected = run(x)
    assert float(jnp.std(expected, axis=0).max()) > 0  # it does depend on the picture
    for turns in (1, 2, 3):
        turned = run(jnp.rot90(x, turns, axes=(1, 2)))
        chex.assert_trees_all_close(turned, expected, rtol=0, atol=EXACT * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("name", NAMES)
def test_quarter_turns_leave_the_logits_whatever_the_parameters(name):
    model = fconv_jax.models.create(name, rngs=nnx.Rngs(0))
    assert_invariant(disturbed(model), images())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_rotations": 4},
        {"input_turns": (0.0, 30.0)},
        {"init": "he"},
        {"power": 8.0},
        {"power": 8.0, "input_turns": (0.0, 30.0)},
        {"power": 16.0, "power_blur": 5},
        {"input_turns": (45.0,)},
        {"margin": None, "blur": None, "mask": "adaptive"},
    ],
)
def test_every_option_keeps_quarter_turns(options):
    assert_invariant(disturbed(small(**options)), images())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        *(({"power": value}, "power") for value in (0, -2.0, True, float("nan"), float("inf"))),
        *(({"dropout": value}, "dropout") for value in (2.0, 1.0, -0.1, float("nan"))),
        *(({"hidden": value}, "hidden") for value in (0, 2.5)),
        *(({"input_turns": value}, "input_turns") for value in ((), (float("nan"),))),
    ],
)
def test_options_out_of_range(options, name):
    with pytest.raises(ValueError, match=rf"{name} \(="):
        small(**options)


def test_layers_must_be_there():
    with pytest.raises(ValueError, match="layers"):
        InvariantFConv((), num_rotations=8, hidden=3, rngs=nnx.Rngs(0))


def test_one_turned_input_is_turned():
    model, other = small(input_turns=(90.0,)), small(input_turns=(90.0, 0.0))
    assert [name for name, _ in model.stages] == [name for name, _ in other.stages]
    chex.assert_trees_all_close(model.stages[0][1](images()), jnp.rot90(images(), axes=(1, 2)), atol=1e-5)


def test_rotations_that_four_does_not_divide_are_not_invariant():
    """Negative control."""
    model = disturbed(small(num_rotations=6))
    change = jnp.abs(model(jnp.rot90(images(), axes=(1, 2))) - model(images())).max()
    assert change > 100 * EXACT * jnp.abs(model(images())).max()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_at_most_those_of_the_plain_twin(name):
    def count(name):
        model = nnx.eval_shape(lambda: fconv_jax.models.create(name, rngs=nnx.Rngs(0)))
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))

    assert 0 < count(name) <= count(PLAIN[name])


def test_the_audit_finds_no_stage_that_breaks_quarter_turns():
    model = disturbed(fconv_jax.models.create("lenet_fconv_invariant", rngs=nnx.Rngs(0)))
    report = fconv_jax.audit(model, (28, 28, 1))
    assert not report.breaking
    assert report.stages[-1].error < EXACT


def blob(angle):
    """A smooth picture, turned as a function: nothing is interpolated."""
    y, x = np.mgrid[-13.5:14, -13.5:14]
    a = np.deg2rad(angle)
    u, v = np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y
    bells = [(3.0, 0.0, 1.0), (-2.0, 4.0, 0.8), (-1.0, -5.0, 0.6)]
    total = sum(h * np.exp(-((u - p) ** 2 + (v - q) ** 2) / 8) for p, q, h in bells)
    return jnp.asarray(total[None, ..., None], jnp.float32)


@pytest.mark.parametrize("angle", [20.0, 45.0])
def test_other_angles_are_nearly_invariant(angle):
    """Fresh weights, a smooth picture: measured changes of 0.002 to 0.02 of the logits' spread between pictures."""
    model = nnx.view(fconv_jax.models.create("lenet_fconv_invariant", rngs=nnx.Rngs(0)), use_running_average=True,
                     deterministic=True, raise_if_not_found=False)  # fmt: skip
    run = jax.jit(model.__call__)
    spread = jnp.linalg.norm(run(blob(0.0)) - run(blob(0.0).at[:, 14:].set(0.0)))
    assert jnp.linalg.norm(run(blob(angle)) - run(blob(0.0))) < 0.1 * spread


def test_training_mode_with_dropout_needs_keys():
    model = small(dropout=0.5)
    model.train()
    with pytest.raises(ValueError, match="needs rngs in training mode"):
        model(images())
    assert model(images(), rngs=jax.random.key(0)).shape == (2, 10)


def test_the_power_mean_over_space():
    """The equation, from the mean (p = 1) to nearly the maximum, with a finite gradient where a feature is silent."""
    x = np.random.RandomState(0).uniform(size=(2, 3, 5, 4)).astype(np.float32)
    for power in (1, 4, 8):
        expected = np.concatenate([x.mean((1, 2)), (x.astype(np.float64) ** power).mean((1, 2)) ** (1 / power)], -1)
        np.testing.assert_allclose(means_over_space(x, power), expected, rtol=1e-4)
    np.testing.assert_allclose(means_over_space(x, 200)[:, 4:], x.max((1, 2)), rtol=0.05)
    np.testing.assert_allclose(means_over_space(1e9 * x, 8), 1e9 * means_over_space(x, 8), rtol=1e-3)
    gradient = jax.grad(lambda x: means_over_space(x, 8).sum())(jnp.zeros((1, 2, 2, 1)))
    assert np.isfinite(gradient).all()


def test_the_gradient_of_the_power_mean_is_that_of_the_equation():
    x = jnp.asarray(np.random.RandomState(1).uniform(0.5, 1, size=(1, 3, 3, 2)), jnp.float32)
    ours = jax.grad(lambda x: means_over_space(x, 8)[:, 2:].sum())(x)
    plain = jax.grad(lambda x: (jnp.mean(x**8, (1, 2)) ** (1 / 8)).sum())(x)
    np.testing.assert_allclose(ours, plain, rtol=1e-4)
