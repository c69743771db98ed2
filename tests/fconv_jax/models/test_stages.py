"""What the networks share: training and evaluation, random keys of dropout, and means over space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from fconv_jax.models.stages import Dropout, StagedModel, flatten, means_over_space
from tests.fconv_jax.arrays import assert_close
from tests.fconv_jax.models.test_init import images

pytestmark = pytest.mark.unoptimized  # programs are compared with each other; what takes the time here is to compile


class Small(StagedModel):
    """A network with both kinds of dropout, small enough to draw many times."""

    input_shape = (28, 28, 1)

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.lift = fconv_jax.LiftingFConv(1, 3, 8, 4, strides=4, padding="VALID", rngs=rngs)
        self.field_dropout, self.dropout = fconv_jax.FieldDropout(0.5), Dropout(0.5)
        self.dense = nnx.Linear(6 * 6 * 4 * 3, 10, rngs=rngs)

    @property
    def stages(self):
        names = ("lift", "field_dropout", "dropout", "dense")
        lift, field_dropout, dropout, dense = ((name, getattr(self, name)) for name in names)
        return lift, field_dropout, ("flatten", flatten), dropout, dense


class Twice(Small):
    """Two dropouts see the same keys, but are other stages."""

    @property
    def stages(self):
        return ("flatten", flatten), ("first", self.dropout), ("second", Dropout(0.5))


def test_train_eval_and_view():
    model, x, key = Small(), images(4), jax.random.key(1)
    model.eval()
    evaluated = model(x)
    np.testing.assert_array_equal(model(x, key), evaluated)
    model.train()
    trained = model(x, key)
    assert np.abs(trained - evaluated).max() > 1e-3
    np.testing.assert_array_equal(model(x, key), trained)  # a key, not a counter, decides
    assert np.abs(model(x, jax.random.key(2)) - trained).max() > 1e-3
    np.testing.assert_array_equal(nnx.view(model, deterministic=True)(x), evaluated)
    training_again = nnx.view(nnx.view(model, deterministic=True), deterministic=False)
    np.testing.assert_array_equal(training_again(x, key), trained)
    with pytest.raises(ValueError, match="needs rngs in training mode"):
        model(x)


def test_dropout_keys_belong_to_images():
    """The masks of a batch do not depend on how it is cut, and no two images share one."""
    model, x, keys = Small(), images(6), jax.random.split(jax.random.key(3), 6)
    whole = model(x, keys)
    assert_close(jnp.concatenate([model(x[:2], keys[:2]), model(x[2:], keys[2:])]), whole)
    assert_close(model(x[::-1], keys[::-1]), whole[::-1])
    same_image = model(jnp.broadcast_to(x[:1], x.shape), keys)
    assert np.all(np.std(same_image, axis=0) > 0)
    # Negative control: keys of other images, other masks.
    assert np.abs(model(x[:2], keys[2:4]) - whole[:2]).max() > 1e-2
    with pytest.raises(ValueError, match=r"\(4,\) keys for 6 images"):
        model(x, keys[:4])


def test_rngs_of_three_kinds():
    model, x, key = Small(), images(5), jax.random.key(4)
    np.testing.assert_array_equal(model(x, key), model(x, jax.random.split(key, 5)))
    rngs = nnx.Rngs(dropout=7)
    assert np.abs(model(x, rngs) - model(x, rngs)).max() > 1e-3  # a stream moves on


def test_each_dropout_of_a_network_draws_its_own_mask():
    kept = Twice()(jnp.ones((64, 28, 28, 1)), jax.random.key(0)) != 0
    # Two independent masks of a half keep a quarter of 50,176 pixels; one mask twice would keep a half.
    assert np.mean(kept) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("power", [1, 4, 8])
def test_the_power_mean_over_space(power):
    x = np.random.RandomState(0).uniform(size=(2, 3, 5, 4)).astype(np.float32)
    expected = np.concatenate([x.mean((1, 2)), (x.astype(np.float64) ** power).mean((1, 2)) ** (1 / power)], -1)
    np.testing.assert_allclose(means_over_space(x, power), expected, rtol=1e-4)


def test_the_power_mean_of_a_high_power_and_of_large_numbers_and_of_zeros():
    """Nearly the maximum, no overflow, and a finite gradient where a feature is silent."""
    x = np.random.RandomState(0).uniform(size=(2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(means_over_space(x, 200)[:, 4:], x.max((1, 2)), rtol=0.05)
    np.testing.assert_allclose(means_over_space(1e9 * x, 8), 1e9 * means_over_space(x, 8), rtol=1e-3)
    gradient = jax.grad(lambda x: means_over_space(x, 8).sum())(jnp.zeros((1, 2, 2, 1)))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_black_image_in_half_precision_has_finite_means(dtype):
    x = jnp.zeros((1, 4, 4, 2), dtype).at[..., 1].set(0.5)
    y, slope = jax.value_and_grad(lambda x: means_over_space(x, 16).astype(jnp.float32).sum())(x)
    assert means_over_space(x, 16).dtype == dtype
    np.testing.assert_allclose(means_over_space(x, 16).astype(jnp.float32)[0], [0, 0.5, 0, 0.5], atol=1e-3)
    assert np.isfinite(y)
    assert np.isfinite(slope.astype(jnp.float32)).all()


def test_the_gradient_of_the_power_mean_is_that_of_the_equation():
    x = jnp.asarray(np.random.RandomState(1).uniform(0.5, 1, size=(1, 3, 3, 2)), jnp.float32)
    ours = jax.grad(lambda x: means_over_space(x, 8)[:, 2:].sum())(x)
    plain = jax.grad(lambda x: (jnp.mean(x**8, (1, 2)) ** (1 / 8)).sum())(x)
    np.testing.assert_allclose(ours, plain, rtol=1e-4)
