"""What the audit refuses, with the reason."""

import jax.numpy as jnp
import pytest
from flax import nnx

from tests.fconv_jax.test_audit import SHAPE, audit, create

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]


class Nothing(nnx.Module):
    def __call__(self, x):
        return None


class Empty(nnx.Module):
    stages = ()


@pytest.mark.parametrize(
    ("build", "shape", "images", "message"),
    [
        (Nothing, SHAPE, None, "returns a NoneType, but an audit needs arrays"),
        (Empty, SHAPE, None, "empty"),
        (None, (20, 20, 1), None, r"must be \[batch, 28, 28, 1\]"),
        (None, SHAPE, jnp.full((2, *SHAPE), jnp.nan), "finite"),
        (None, SHAPE, jnp.zeros((1, *SHAPE)), "at least 2"),
        (None, SHAPE, jnp.zeros((2, 27, 27, 1)), "at least 2"),
        *((None, shape, None, "input_shape") for shape in ((28, 27, 1), (28, 28), (0, 0, 1), (-3, -3, 1), (1, 1, 1))),
        *((None, shape, None, "input_shape") for shape in ((28.0, 28.0, 1), "abc")),
    ],
)
def test_what_cannot_be_audited(build, shape, images, message):
    model = build() if build else create("lenet")
    with pytest.raises(ValueError, match=message):
        audit(model, shape, images=images)


def test_what_is_no_network():
    with pytest.raises(ValueError, match=r"must be an nnx\.Module"):
        audit(lambda x: x, SHAPE)
