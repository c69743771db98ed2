"""The invariant networks: exact under rotations by 90 degrees whatever their parameters, nearly so between."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from fconv_jax.models.invariant import InvariantFConv, Layer
from tests.fconv_jax.models.test_init import create, images

# Rotations by 90 degrees permute pixels and rotations: what is left is the order of float32 sums, relative to the
# largest logit.
EXACT = 1e-5
PLAIN = {"lenet_fconv_invariant": "lenet", "alexnet_fconv_invariant": "alexnet"}


def evaluating(model):
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def disturbed(model, seed=1):
    """The model, in evaluation mode, with other numbers in all of its parameters and statistics."""
    random = np.random.RandomState(seed)

    def change(x):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return x * jnp.asarray(random.uniform(0.5, 2, x.shape), x.dtype) if floating else x

    graph, state = nnx.split(model)
    return evaluating(nnx.merge(graph, jax.tree.map(change, state)))


def small(**options):
    layers = (Layer(5, 4, 3, pool=True), Layer(3, 8, 2))
    return InvariantFConv(layers, **{"num_rotations": 8, "hidden": 32, **options}, rngs=nnx.Rngs(0))


def assert_invariant(model, x):
    run = jax.jit(model.__call__)
    expected = run(x)
    assert float(jnp.std(expected, axis=0).max()) > 0  # it does depend on the image
    for quarters in (1, 2, 3):
        rotated = run(jnp.rot90(x, quarters, axes=(1, 2)))
        chex.assert_trees_all_close(rotated, expected, rtol=0, atol=EXACT * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("lenet_fconv_invariant", marks=pytest.mark.slow),
        pytest.param("alexnet_fconv_invariant", marks=pytest.mark.long),
    ],
)
def test_quarter_rotations_leave_the_logits_whatever_the_parameters(name):
    assert_invariant(disturbed(create(name)), images(2))


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
def test_every_option_keeps_quarter_rotations(options):
    assert_invariant(disturbed(small(**options)), images(2))


def test_rotations_that_four_does_not_divide_are_not_invariant():
    """Negative control."""
    model, x = disturbed(small(num_rotations=6)), images(2)
    change = jnp.abs(model(jnp.rot90(x, axes=(1, 2))) - model(x)).max()
    assert change > 100 * EXACT * jnp.abs(model(x)).max()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("power", value) for value in (0, -2.0, True, "a", float("nan"), float("inf"))),
        *(("dropout", value) for value in (2.0, 1.0, -0.1, "a", float("nan"))),
        *(("margin", value) for value in (200.0, -1.0, "a")),
        *((name, value) for name in ("blur", "power_blur") for value in (0, 2.5)),
        *(("hidden", value) for value in (0, 2.5)),
        *(("input_turns", value) for value in ((), 5, (float("nan"),))),
    ],
)
def test_options_out_of_range(option, value):
    with pytest.raises(ValueError, match=rf"{option} \(="):
        small(**{option: value})


def test_layers_must_be_there():
    with pytest.raises(ValueError, match="layers"):
        InvariantFConv((), num_rotations=8, hidden=3, rngs=nnx.Rngs(0))


def test_one_rotated_input_is_rotated():
    model, other = small(input_turns=(90.0,)), small(input_turns=(90.0, 0.0))
    assert [name for name, _ in model.stages] == [name for name, _ in other.stages]
    chex.assert_trees_all_close(model.stages[0][1](images(2)), jnp.rot90(images(2), axes=(1, 2)), atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_parameters_are_at_most_those_of_the_plain_twin(name):
    def count(name):
        model = nnx.eval_shape(lambda: create(name))
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))

    assert 0 < count(name) <= count(PLAIN[name])


@pytest.mark.slow
def test_the_audit_finds_no_stage_that_breaks_quarter_rotations():
    model = disturbed(create("lenet_fconv_invariant"))
    report = fconv_jax.audit(model, (28, 28, 1), images=images(2), angles=())
    assert not report.breaking
    assert report.stages[-1].error < EXACT


def blob(angle):
    """A smooth image, rotated as a function: nothing is interpolated."""
    y, x = np.mgrid[-13.5:14, -13.5:14]
    a = np.deg2rad(angle)
    u, v = np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y
    bells = [(3.0, 0.0, 1.0), (-2.0, 4.0, 0.8), (-1.0, -5.0, 0.6)]
    total = sum(h * np.exp(-((u - p) ** 2 + (v - q) ** 2) / 8) for p, q, h in bells)
    return jnp.asarray(total[None, ..., None], jnp.float32)


def test_other_angles_are_nearly_invariant():
    """Fresh weights, a smooth image: measured changes of 0.002 to 0.02 of the logits' spread between images."""
    run = jax.jit(evaluating(create("lenet_fconv_invariant")).__call__)
    upright = run(blob(0.0))
    spread = jnp.linalg.norm(upright - run(blob(0.0).at[:, 14:].set(0.0)))
    for angle in (20.0, 45.0):
        assert jnp.linalg.norm(run(blob(angle)) - upright) < 0.1 * spread, angle


def test_training_mode_with_dropout_needs_keys():
    model = small(dropout=0.5)
    model.train()
    with pytest.raises(ValueError, match="needs rngs in training mode"):
        model(images(2))
    assert model(images(2), rngs=jax.random.key(0)).shape == (2, 10)
