"""What a training may be told: half precision, smoothed labels, a network with batch statistics, unknown names."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.rotation import rotate_each
from experiments.training import network as networks
from experiments.training import steps
from fconv_jax.models.invariant import InvariantFConv, Layer
from tests.experiments import small_digits
from tests.experiments.training.test_steps import LOOP, small, train

pytestmark = pytest.mark.unoptimized


def test_bfloat16_computes_in_it_and_keeps_float32():
    split = small_digits.split("train", False)
    states, losses = train(small("bfloat16"), LOOP, (0,), split)
    _, whole_losses = train(small(), LOOP, (0,), split)
    assert {leaf.dtype for leaf in jax.tree.leaves((states["params"], losses))} == {np.dtype(np.float32)}
    assert not np.array_equal(losses, whole_losses)
    np.testing.assert_allclose(losses, whole_losses, rtol=0.05)
    logits = jax.eval_shape(small("bfloat16").apply, jax.tree.map(lambda x: x[0], states["params"]), {}, split.images)
    assert logits[0].dtype == jnp.float32


def test_a_network_with_batch_statistics():
    """Moves its statistics and evaluates with them; a whole batch at a time."""
    create = functools.partial(InvariantFConv, (Layer(3, 2, pool=True), Layer(3, 2)), num_rotations=4, hidden=4)
    network = networks.network(create)
    assert network.has_stats
    assert not networks.build("lenet").has_stats
    split = small_digits.split("train", False)
    split = dataclasses.replace(split, images=split.images[:4], labels=split.labels[:4], angles=split.angles[:4])
    states, losses = train(network, LOOP, (0, 1), split, batch_size=4)
    assert np.isfinite(losses).all()
    fresh = steps.init(network, (), steps.Adam(1e-3), 0)["stats"]
    moved = jax.tree.map(lambda a, b: not np.array_equal(a[0], b), states["stats"], fresh)
    assert all(jax.tree.leaves(moved))
    assert jax.tree.leaves(moved)


def test_smoothed_labels():
    """The loss of the equation, written out; and without smoothing the cross-entropy itself."""
    logits = jnp.asarray([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
    labels = jnp.asarray([0, 1])
    log_p = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    network = networks.build("lenet", num_classes=3, label_smoothing=0.3)
    targets = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    np.testing.assert_allclose(network.losses(logits, labels), -(targets * log_p).sum(1), rtol=1e-6)
    plain = networks.build("lenet", num_classes=3)
    np.testing.assert_allclose(plain.losses(logits, labels), -log_p[[0, 1], [0, 1]], rtol=1e-6)


def test_label_smoothing_reaches_the_gradient():
    split = small_digits.split("train", False)
    found = []
    for smoothing in (0.0, 0.2):
        network = dataclasses.replace(small(), label_smoothing=smoothing)
        found.append(train(network, LOOP, (0,), split)[1])
    assert not np.allclose(found[0], found[1], rtol=1e-3)


def test_rotations_anew_are_bilinear_about_the_centre():
    split = small_digits.split("train", False)
    images, keys = split.images[:3].copy(), jax.random.split(jax.random.key(3), 3)
    images[:, [0, 1, -2, -1]] = images[:, :, [0, 1, -2, -1]] = 0  # beyond the border SciPy interpolates nothing
    pixels = images.astype(np.float32) / 255
    found = jax.vmap(networks.rotated_anew)(pixels, keys)
    draws = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, networks._ANGLE)))(keys)
    expected = rotate_each(images[..., 0], np.degrees(2 * np.pi * np.asarray(draws)), 1) / 255
    # That function rounds to grey levels.
    np.testing.assert_allclose(found[..., 0], expected, atol=0.51 / 255)
    assert np.abs(np.asarray(found) - pixels).max() > 0.5


def test_images_are_rotated_anew_in_training_only():
    split = small_digits.split("train", False)
    network = small()
    rotating = dataclasses.replace(network, augmentation="rotations")
    params = steps.init(network, (), steps.Adam(1e-3), 0)["params"]
    filters, keys = network.expand(params), jax.random.split(jax.random.key(3), 4)
    images = split.images[:4]
    upright, rotated = (each.apply(filters, {}, images, keys)[0] for each in (network, rotating))
    assert not np.allclose(upright, rotated, rtol=1e-3)
    np.testing.assert_array_equal(network.apply(filters, {}, images)[0], rotating.apply(filters, {}, images)[0])
    losses = train(rotating, LOOP, (0, 1), split)[1]
    assert np.isfinite(losses).all()
    assert not np.allclose(losses, train(network, LOOP, (0, 1), split)[1], rtol=1e-3)


def test_unknown_names():
    for options, named in [(("lenot",), "lenot"), (("lenet", "hee"), "hee")]:
        with pytest.raises(ValueError, match=named):
            networks.build(options[0], init=options[1] if len(options) > 1 else "report")
    with pytest.raises(ValueError, match="float16"):
        networks.build("lenet", precision="float16")
