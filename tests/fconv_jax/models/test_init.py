"""The networks by name: their sizes, their stages, and what they refuse (`lenet` and `alexnet` included)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fconv_jax import models
from tests.fconv_jax.arrays import assert_close

COUNTS = {
    "lenet": 278_226,
    "lenet_fconv": 277_862,
    "lenet_classic": 85_822,
    "alexnet": 28_515_018,
    "alexnet_fconv": 26_545_218,
}
SMALL = ("lenet", "lenet_fconv", "lenet_classic")
IMAGE = jnp.zeros((1, 28, 28, 1))


def create(name, seed=0, **options):
    return models.create(name, rngs=nnx.Rngs(seed), **options)


@functools.cache
def shapes_only(name, **options):
    return nnx.eval_shape(lambda: create(name, **options))


def images(count, seed=0):
    return jnp.asarray(np.random.RandomState(seed).uniform(size=(count, 28, 28, 1)), jnp.float32)


def flat(state):
    """`{"conv.coefficients": array}` of a state."""
    leaves = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(state))[0]
    return {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def sizes_of_stages(model, x=IMAGE):
    """Shapes after each stage, pools and flatten included, in evaluation mode and without computing anything."""
    shapes = {}

    def run(model, x):
        model = nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
        for stage, function in model.stages:
            x = function(x)
            shapes[stage] = x.shape
        return x

    nnx.eval_shape(run, model, x)
    return shapes


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_parameters(name):
    model = shapes_only(name)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == COUNTS[name]
    assert not jax.tree.leaves(nnx.state(model, nnx.Not(nnx.Param)))


DENSE = {"lenet": [(2304, 120), (120, 10)], "alexnet": [(2304, 4096), (4096, 4096), (4096, 10)]}
CONVS = {
    "lenet": [(5, 5, 1, 16)],
    "lenet_fconv": [(1, 2, 25)],
    "alexnet": [(5, 5, 1, 64), (3, 3, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)],
    "alexnet_fconv": [(1, 8, 25), (8, 8, 24, 9), (8, 24, 48, 9), (8, 48, 32, 9), (32, 256, 9)],
}


@pytest.mark.parametrize("name", CONVS)
def test_layers_are_the_reports(name):
    state = flat(nnx.state(shapes_only(name)))
    leaf, dense = "coefficients" if "fconv" in name else "kernel", DENSE[name.removesuffix("_fconv")]
    convs = ["conv"] if len(CONVS[name]) == 1 else [f"conv{i}" for i in range(1, 6)]
    wanted = {f"{conv}.{leaf}": shape for conv, shape in zip(convs, CONVS[name], strict=True)}
    wanted |= {f"dense{i}.kernel": shape for i, shape in enumerate(dense, start=1)}
    assert {key: leaf.shape for key, leaf in state.items() if not key.endswith("bias")} == wanted
    features = {key: shape[-2] if key.endswith("coefficients") else shape[-1] for key, shape in wanted.items()}
    biases = {f"{key.split('.')[0]}.bias": (number,) for key, number in features.items()}
    assert {key: leaf.shape for key, leaf in state.items() if key.endswith("bias")} == biases


@pytest.mark.parametrize("name", COUNTS)
def test_stages_are_named_once_and_give_the_sizes_of_the_report(name):
    model = shapes_only(name)
    names, shapes = [stage for stage, _ in model.stages], sizes_of_stages(model)
    assert list(shapes) == names
    assert shapes[names[-1]] == (1, 10)
    assert shapes["flatten"] == (1, 512 if name == "lenet_classic" else 2304)
    if name.startswith("alexnet"):
        assert [math.prod(shapes[f"pool{i}"]) for i in (1, 2, 3)] == [14 * 14 * 64, 7 * 7 * 192, 3 * 3 * 256]


@pytest.mark.parametrize("name", SMALL)
def test_the_call_is_the_composition_of_the_stages(name):
    model, x = create(name), images(3)
    logits = model(x)
    assert logits.shape == (3, 10)
    for _, stage in model.stages:
        x = stage(x)
    assert_close(logits, x)


@pytest.mark.parametrize("name", SMALL)
def test_num_classes_and_training_without_rngs_where_nothing_is_dropped(name):
    model = nnx.eval_shape(lambda: create(name, num_classes=3))
    model.train()
    assert nnx.eval_shape(lambda m, x: m(x), model, IMAGE).shape == (1, 3)


@pytest.mark.parametrize("name", ["alexnet", "alexnet_fconv"])
def test_training_mode_of_alexnet_needs_rngs(name):
    model = nnx.eval_shape(lambda: create(name))
    with pytest.raises(ValueError, match=r"needs rngs in training mode; call model.eval\(\)"):
        nnx.eval_shape(lambda m, x: m(x), model, IMAGE)
    model.eval()
    assert nnx.eval_shape(lambda m, x: m(x), model, IMAGE).shape == (1, 10)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("shape", [(1, 32, 32, 1), (1, 28, 28, 3), (28, 28, 1), (1, 784)])
def test_wrong_images(name, shape):
    model = nnx.eval_shape(lambda: create(name))
    model.eval()
    with pytest.raises(ValueError, match=r"must be \[batch, 28, 28, 1\]"):
        model(jnp.zeros(shape))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {}, r"model \(='resnet'\) must be one of lenet, lenet_fconv"),
        (["lenet"], {}, r"model \(=\['lenet'\]\) must be one of lenet, lenet_fconv"),
        ("fconv_mnist_simple", {"widths": (2, 2, 2)}, r"widths \(.*\) must be an option of .*, one of num_rotations, "),
        ("lenet_fconv_invariant", {"layers": ()}, r"layers \(=\(\)\) must be an option of .*, one of num_rotations, "),
        ("lenet", {"init": "paper"}, r"init \(='paper'\) must be 'report' or 'he'"),
        ("fconv_mnist_simple", {"init": "paper"}, r"init \(='paper'\) must be 'report' or 'he'"),
        ("lenet", {"num_classes": 0}, r"num_classes \(=0\) must be a whole number of at least 1"),
        ("lenet", {"num_classes": 10.0}, r"num_classes \(=10.0\) must be a whole number of at least 1"),
        ("lenet", {"num_classes": True}, r"num_classes \(=True\) must be a whole number of at least 1"),
    ],
)
def test_impossible_networks(name, options, message):
    with pytest.raises(ValueError, match=message):
        create(name, **options)


def test_every_report_network_is_in_the_table():
    assert set(COUNTS) <= set(models.MODELS)
