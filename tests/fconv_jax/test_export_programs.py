"""What `to_plain` makes of a program that is no chain of layers: the same numbers, or a refusal."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise
from tests.fconv_jax.exported import TOLERANCE, call, error

pytestmark = pytest.mark.unoptimized


class Of(nnx.Module):
    """A network that is one function."""

    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


SHAPE = (4, 4, 1)


def both_of_a_sum(x):
    total = x.sum((1, 2))
    return total + total / 16


def test_a_sum_stays_a_sum_where_its_mean_is_taken_too():
    plain, x = fc.export.to_plain(Of(both_of_a_sum), SHAPE), noise(2, *SHAPE)
    assert error(call(plain, x), both_of_a_sum(x)) < TOLERANCE
    # A mean alone leaves no sum behind.
    (step,) = json.loads(fc.export.to_plain(Of(lambda x: x.sum((1, 2)) / 16), SHAPE).description)["steps"]
    assert step[2] == {"kind": "mean"}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: jax.vmap(lambda y: fc.spatial_max_pool(y[None], 3, strides=1, padding=1)[0])(x), "no plain form"),
        (lambda x: jax.vmap(lambda y: fc.blur_pool(y[None])[0])(x), "no plain form"),
        (lambda x: x * jnp.ones(x.shape[0]).sum(), "over the batch has no plain form"),
    ],
)
def test_what_would_be_another_number_is_refused(function, words):
    with pytest.raises(ValueError, match=words):
        fc.export.to_plain(Of(function), SHAPE)


def test_what_is_read_by_nothing_goes():
    def network(x):
        unused = x * jnp.arange(16.0).reshape(1, 4, 4, 1)
        return (unused, x.mean((1, 2)) * jnp.max(jnp.full_like(x, 2.0)))[1]  # a maximum does not count the batch

    plain, x = fc.export.to_plain(Of(network), SHAPE), noise(2, *SHAPE)
    assert error(call(plain, x), network(x)) < TOLERANCE
    assert not json.loads(plain.description)["constants"]


def test_a_layer_norm_over_a_group_of_one_element():
    block = fc.ConvBlock(1, 2, 3, 1, lift=True, norm="layer", rngs=nnx.Rngs(0))
    x = noise(2, *SHAPE)
    plain = fc.export.to_plain(block, SHAPE)
    np.testing.assert_allclose(call(plain, x).reshape(-1), call(block, x).reshape(-1), rtol=0, atol=1e-5)


def test_a_file_of_a_network_for_any_size_needs_one(tmp_path):
    model = fc.models.create("unet_fconv", depth=1, width=1, rngs=nnx.Rngs(0))
    for write in (lambda: fc.export.to_onnx(model, tmp_path / "net.onnx"), lambda: fc.export.to_stablehlo(model)):
        with pytest.raises(ValueError, match=r"input_shape \(=None\) must be .*: a file is for one size"):
            write()
    assert not any(tmp_path.iterdir())
