"""Ways in which Flax and JAX let a network work: a layer does what `nnx.Conv` does there, to the same numbers."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import assert_close, noise

# Programs are compared with each other; what takes the time here is to compile.
pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

D4 = fc.Group(4, reflections=True)
MAKERS = {
    "nnx.Conv": (lambda **o: nnx.Conv(2, 2, (3, 3), rngs=nnx.Rngs(0), **o), (2, 6, 6, 2)),
    "LiftingFConv": (lambda **o: fc.LiftingFConv(2, 2, 3, D4, rngs=nnx.Rngs(0), **o), (2, 6, 6, 2)),
    "GroupFConv": (lambda **o: fc.GroupFConv(2, 2, 3, D4, rngs=nnx.Rngs(0), **o), (2, 6, 6, 8, 2)),
    "GroupFConv of 1 x 1": (lambda **o: fc.GroupFConv(2, 2, 1, 8, rngs=nnx.Rngs(0), **o), (2, 6, 6, 8, 2)),
    "ProjectingFConv": (lambda **o: fc.ProjectingFConv(2, 2, 3, 8, rngs=nnx.Rngs(0), **o), (2, 6, 6, 8, 2)),
    "ResidualBlock": (lambda **o: fc.ResidualBlock(2, 2, group=D4, norm=None, rngs=nnx.Rngs(0), **o), (2, 6, 6, 8, 2)),
}
every_layer = pytest.mark.parametrize("name", MAKERS)


def made(name, **options):
    maker, shape = MAKERS[name]
    return maker(**options), noise(*shape)


def loss(layer, x):
    return jnp.mean(layer(x) ** 2)


@every_layer
def test_hijax_variables_give_the_same_numbers(name):
    """At once, in `jax.jit` as an argument, and closed over; Flax has no gradient of such variables yet."""
    layer, x = made(name)
    expected = layer(x)
    with nnx.var_defaults(hijax=True):
        other, _ = made(name)
        assert all(
            variable.hijax for variable in jax.tree.leaves(other, is_leaf=_is_variable) if _is_variable(variable)
        )
        for y in (other(x), jax.jit(lambda layer, x: layer(x))(other, x), jax.jit(lambda x: other(x))(x)):
            assert_close(y, expected)


@every_layer
def test_filters_are_expanded_under_hijax_too(name):
    layer, x = made(name)
    with nnx.var_defaults(hijax=True):
        other, _ = made(name)
        inside = fc.expand_filters(other)
    for expanded in (inside, fc.expand_filters(other), fc.expand_filters(nnx.List([other]))[0]):
        assert_close(expanded(x), layer(x))


@every_layer
def test_hijax_variables_have_shapes_without_numbers(name):
    expected = nnx.state(made(name)[0], nnx.Param)
    with nnx.var_defaults(hijax=True):
        abstract = nnx.eval_shape(lambda: made(name)[0])
    found = [leaf.shape for leaf in jax.tree.leaves(nnx.state(abstract, nnx.Param))]
    assert found == [leaf.shape for leaf in jax.tree.leaves(expected)]


def _is_variable(leaf):
    return isinstance(leaf, nnx.Variable)


@every_layer
def test_a_step_of_training_in_jit_is_that_outside(name):
    layer, x = made(name)
    value, gradients = nnx.value_and_grad(loss)(layer, x)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(layer, nnx.Param), gradients)

    @nnx.jit
    def step(layer, x):
        value, gradients = nnx.value_and_grad(loss)(layer, x)
        nnx.update(layer, jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(layer, nnx.Param), gradients))
        return value

    assert_close(step(layer, x), value)
    assert float(loss(layer, x)) < float(value)
    for a, b in zip(jax.tree.leaves(nnx.state(layer, nnx.Param)), jax.tree.leaves(expected), strict=True):
        assert_close(a, b)


@every_layer
def test_float64_is_promoted_as_by_flax(name):
    with jax.enable_x64(True):
        single, x = made(name)
        double, _ = made(name, param_dtype=jnp.float64)
        assert single(x).dtype == jnp.float32
        assert single(x.astype(jnp.float64)).dtype == jnp.float64
        wide = double(x)
        assert wide.dtype == jnp.float64
        half = made(name, dtype=jnp.bfloat16)[0](x.astype(jnp.float64))
        assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "nnx.Conv"])
def test_float64_is_more_exact(name):
    """Quarter turns to 1e-12; in float32 they are not, as a control."""
    with jax.enable_x64(True):
        layer, x = made(name, param_dtype=jnp.float64)
        x = x.astype(jnp.float64)
        assert 0 <= float(fc.equivariance_error(layer, x)) < 1e-12
        assert float(fc.equivariance_error(made(name)[0], x.astype(jnp.float32))) > 1e-12


@every_layer
@pytest.mark.parametrize("way", ["jit", "remat", "vmap", "scan"])
def test_transforms_of_flax_change_no_number(name, way):
    layer, x = made(name)
    if way in ("jit", "remat"):
        transform = {"jit": nnx.jit, "remat": nnx.remat}[way]
        assert_close(transform(lambda layer, x: layer(x))(layer, x), layer(x))
        gradients = nnx.grad(lambda layer, x: jnp.mean(transform(lambda layer, x: layer(x))(layer, x) ** 2))(layer, x)
        for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(nnx.grad(loss)(layer, x)), strict=True):
            assert_close(a, b, 1e-5)
        return
    graphdef, state = nnx.split(layer)
    stacked = nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), state))
    twice = nnx.merge(graphdef, jax.tree.map(lambda leaf: 2 * leaf, state))
    if way == "vmap":
        y = nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(stacked, x)
        assert_close(y[0], layer(x), 1e-5)
        assert_close(y[1], twice(x), 1e-5)
        return
    if layer(x).shape != x.shape:
        pytest.skip("a scan over layers needs an output like its input")
    y = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, stacked)
    assert_close(y, twice(layer(x)), 1e-5)
