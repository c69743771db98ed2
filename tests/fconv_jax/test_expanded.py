"""A network with expanded filters computes the same, and its gradients pass through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise


class Listed(nnx.Module):
    """Layers in a list, and one inside of a block."""

    def __init__(self, rngs):
        self.layers = nnx.List([fc.LiftingFConv(1, 2, 3, 4, rngs=rngs)])
        self.block = fc.ResidualBlock(2, 2, 3, 4, norm="batch", rngs=rngs)
        self.last = fc.ProjectingFConv(2, 3, 3, 4, strides=2, padding=1, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return self.last(self.block(self.layers[0](x)))


def image(size=9):
    return noise(2, size, size, 1)


def f_convs(model):
    kinds = (fc.LiftingFConv, fc.GroupFConv, fc.ProjectingFConv)
    return [module for _, module in nnx.iter_modules(model) if type(module) in kinds]


def test_the_copy_computes_the_same_and_the_original_stays():
    model = Listed(nnx.Rngs(0))
    model.eval()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    expanded = fc.expand_filters(model)
    np.testing.assert_array_equal(expanded(image()), model(image()))
    assert len(f_convs(model)) == 4
    assert not f_convs(expanded)
    after = nnx.to_pure_dict(nnx.state(model))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
    assert [type(m).__name__ for _, m in nnx.iter_modules(expanded)].count("ExpandedFConv") == 4


def test_a_layer_in_two_places_stays_one():
    model = Listed(nnx.Rngs(0))
    model.again = model.layers[0]
    expanded = fc.expand_filters(model)
    assert expanded.again is expanded.layers[0]
    assert expanded.again is not model.again


class Rectified(fc.LiftingFConv):
    """A layer that does more than its filter."""

    def __call__(self, x):
        return nnx.relu(super().__call__(x))


class Sized(fc.LiftingFConv):
    """A layer that is made otherwise and does the same."""

    def __init__(self, rngs):
        super().__init__(1, 2, 3, 4, rngs=rngs)


def test_a_subclass_that_does_more_stays():
    model = nnx.Sequential(Rectified(1, 2, 3, 4, rngs=nnx.Rngs(0)))
    expanded = fc.expand_filters(model)
    assert isinstance(expanded.layers[0], Rectified)
    np.testing.assert_array_equal(expanded(image()), model(image()))
    assert type(fc.expand_filters(Sized(nnx.Rngs(0)))).__name__ == "ExpandedFConv"


def test_a_layer_alone():
    layer = fc.GroupFConv(2, 3, 5, 8, rngs=nnx.Rngs(0))
    field = noise(1, 7, 7, 8, 2)
    expanded = fc.expand_filters(layer)
    np.testing.assert_array_equal(expanded(field), layer(field))
    np.testing.assert_array_equal(expanded.kernel[...], layer.filter())


def test_the_law_holds_until_the_kernel_is_changed():
    layer = fc.expand_filters(fc.GroupFConv(2, 3, 3, 4, rngs=nnx.Rngs(0)))
    field = noise(1, 8, 8, 4, 2)
    fc.assert_equivariant(layer, field)
    layer.kernel[...] = layer.kernel[...] + noise(*layer.kernel.shape, seed=1)
    with pytest.raises(AssertionError):
        fc.assert_equivariant(layer, field)


def test_gradients_pass_through():
    model = Listed(nnx.Rngs(0))
    model.eval()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, change):
        model = change(nnx.merge(graphdef, params, rest, copy=True))
        return jnp.sum(model(image()) ** 2)

    ours = jax.jit(jax.grad(lambda p: loss(p, fc.expand_filters)))(params)
    plain = jax.jit(jax.grad(lambda p: loss(p, lambda m: m)))(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


class InContainers(nnx.Module):
    """Layers in a tuple, a dict and a list of tuples, and one of them once more by itself."""

    def __init__(self, rngs):
        first, second, third = (fc.GroupFConv(2, 2, 3, 4, rngs=rngs) for _ in range(3))
        self.pair, self.named = nnx.data((first, nnx.relu)), nnx.data({"a": second, "more": [third]})
        self.listed = nnx.List([nnx.data((second, nnx.relu))])
        self.first = first

    def __call__(self, x):
        return self.named["more"][0](self.listed[0][0](self.pair[1](self.pair[0](x))))


def test_layers_in_containers_are_expanded():
    model, x = InContainers(nnx.Rngs(0)), noise(1, 8, 8, 4, 2)
    expanded = fc.expand_filters(model)
    assert not f_convs(expanded)
    assert len(f_convs(model)) == 3
    assert expanded.first is expanded.pair[0]
    np.testing.assert_array_equal(expanded(x), model(x))
