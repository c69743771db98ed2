"""ResNet, U-Net and EDSR: exact under quarter turns and mirrors, also after training; plain twins are not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax import models

pytestmark = pytest.mark.unoptimized  # exact whatever the order of sums; what takes the time here is to compile

C8, D4 = fc.Group(8), fc.Group(4, reflections=True)
SMALL = {
    "resnet18_fconv": {"width": 2},
    "resnet18_fconv, layer norm, large": {"width": 2, "norm": "layer", "large": True},
    "unet_fconv": {"width": 2, "depth": 2},
    "unet_fconv, vectors": {"width": 2, "depth": 1, "output": "vectors", "norm": "layer"},
    "unet_fconv, vectors, plain": {"width": 2, "depth": 1, "output": "vectors", "group": None},
    "edsr_fconv": {"width": 2, "blocks": 1},
    "edsr_fconv, x 3": {"width": 2, "blocks": 1, "scale": 3},
    "edsr_fconv, x 4": {"width": 2, "blocks": 1, "scale": 4},
    "edsr_fconv, batch norm": {"width": 2, "blocks": 1, "norm": "batch"},
    "edsr_fconv, layer norm": {"width": 2, "blocks": 1, "norm": "layer"},
}


def create(case, **options):
    return models.create(case.split(",")[0], in_features=2, num_classes=3, rngs=nnx.Rngs(0), **SMALL[case], **options)


def image(size=32):
    return jnp.asarray(np.random.RandomState(0).normal(size=(2, size, size, 2)), jnp.float32)


def moved(case, move):
    """`move` of images and of the output: logits stay, vectors rotate as such."""
    of_image = functools.partial(fc.rotate_image, angle=90) if move == "90" else fc.mirror_image
    of_vectors = functools.partial(fc.rotate_vectors, angle=90) if move == "90" else fc.mirror_vectors
    return of_image, (lambda y: y) if "resnet" in case else of_vectors if "vectors" in case else of_image


run = nnx.jit(lambda model, x: model(x))


def worst(model, case, group):
    errors, of_upright = [], run(model, image())
    for move in ["90"] + ["mirror"] * group.reflections:
        before, after = moved(case, move)
        expected = after(of_upright)
        errors.append(float(jnp.linalg.norm(run(model, before(image())) - expected) / jnp.linalg.norm(expected)))
    return max(errors)


def trained(model):
    """A few steps towards noise, which has no symmetry."""
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    shape = nnx.eval_shape(lambda model: model(image()), model).shape
    target = jnp.asarray(np.random.RandomState(1).normal(size=shape), jnp.float32)

    @nnx.jit
    def step(model, optimizer):
        gradients = nnx.grad(lambda model: jnp.mean((model(image()) - target) ** 2))(model)
        optimizer.update(model, gradients)

    for _ in range(3):
        step(model, optimizer)
    return model


# Each family under both groups, each option under one; the other pairs before a release.
OF_GROUPS = {
    C8: ["resnet18_fconv", "unet_fconv", "edsr_fconv"],
    D4: ["unet_fconv, vectors", "edsr_fconv, x 3"],
}


@pytest.mark.parametrize(
    ("case", "group"),
    [
        pytest.param(case, group, id=f"{group}-{case}", marks=[pytest.mark.long] * (case not in OF_GROUPS[group]))
        for case in SMALL
        if "plain" not in case
        for group in OF_GROUPS
    ],
)
@pytest.mark.slow
def test_quarter_turns_and_mirrors_are_exact_before_and_after_training(case, group):
    model = create(case, group=group)
    model.eval()
    assert worst(model, case, group) < 1e-5
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    model.train()
    trained(model).eval()
    assert not jax.tree.all(jax.tree.map(np.array_equal, before, nnx.state(model, nnx.Param)))
    assert worst(model, case, group) < 1e-5


@pytest.mark.parametrize("name", ["unet_fconv", "edsr_fconv"])
def test_a_twin_leaves_out_what_a_plain_convolution_has_not(name):
    options = {"basis": fc.Fourier("all", mask="adaptive"), "coefficient_init": fc.initializers.he(), "width": 2}
    twin = nnx.eval_shape(lambda: models.plain_twin(name, rngs=nnx.Rngs(0), group=4, **options))
    assert isinstance(twin.last, nnx.Conv)


def test_a_twin_of_feature_groups():
    options = {"feature_group_count": 2, "in_features": 2, "width": 2, "depth": 1, "group": 4}
    ours = nnx.eval_shape(lambda: models.create("unet_fconv", rngs=nnx.Rngs(0), **options))
    twin = nnx.eval_shape(lambda: models.plain_twin("unet_fconv", rngs=nnx.Rngs(0), **options))
    assert 0.7 < models.num_parameters(twin) / models.num_parameters(ours) < 1.4


@pytest.mark.parametrize(
    "case",
    [pytest.param("resnet18_fconv", marks=pytest.mark.long), "unet_fconv", "unet_fconv, vectors", "edsr_fconv"],
)
def test_the_plain_twin_has_as_many_parameters_and_no_law(case):
    options = SMALL[case] | {"in_features": 2, "num_classes": 3, "group": 8}
    twin, ours = models.plain_twin(case.split(",")[0], rngs=nnx.Rngs(0), **options), create(case, group=8)
    assert 0.7 < models.num_parameters(twin) / models.num_parameters(ours) < 1.4
    twin.eval()
    assert worst(twin, case, C8) > 0.01


@pytest.mark.parametrize(
    ("case", "sizes", "expected"),
    [
        ("unet_fconv, vectors, plain", (8, 12), (8, 12, 2, 3)),
        ("edsr_fconv, layer norm", (5, 7), (10, 14, 2)),
        ("resnet18_fconv", (33, 47), (3,)),
        ("unet_fconv", (8, 12), (8, 12, 3)),
        ("unet_fconv, vectors", (8, 12), (8, 12, 2, 3)),
        ("edsr_fconv, x 3", (5, 7), (15, 21, 2)),
    ],
)
def test_shapes(case, sizes, expected):
    assert nnx.eval_shape(lambda: create(case)(jnp.ones((1, *sizes, 2)))).shape == (1, *expected)


@pytest.mark.parametrize("group", [8, None])
@pytest.mark.parametrize("case", ["resnet18_fconv", "unet_fconv", "edsr_fconv"])
def test_a_type_reaches_every_parameter_and_the_output(case, group):
    model = nnx.eval_shape(lambda: create(case, group=group, param_dtype=jnp.bfloat16))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {"bfloat16"}
    images = jnp.ones((1, 32, 32, 2), jnp.bfloat16)
    assert nnx.eval_shape(lambda model: model(images), model).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: create("unet_fconv")(jnp.ones((1, 9, 8, 2))), "sides that are multiples of 4"),
        (lambda: models.create("unet_fconv", output="flow", rngs=nnx.Rngs(0)), r"output \(='flow'\) must be mask or"),
        *(
            (lambda name=name: create(name)(jnp.ones((8, 8, 2))), r"must be \[batch, height, width, 2\]")
            for name in ("resnet18_fconv", "unet_fconv", "edsr_fconv")
        ),
        *(
            (lambda row=row: models.create(row[0], rngs=nnx.Rngs(0), **row[1]), words)
            for *row, words in (
                (
                    "resnet18_fconv",
                    {"use_bias": True},
                    r"use_bias \(=True\) must be an option of resnet18_fconv, one of",
                ),
                ("unet_fconv", {"strides": 2}, r"strides \(=2\) must be an option of unet_fconv"),
                (
                    "edsr_fconv",
                    {"lift": True},
                    r"lift \(=True\) must be an option of edsr_fconv, one of .*scale.*dtype",
                ),
                ("lenet", {"norm": "batch"}, r"norm \(='batch'\) must be an option of lenet"),
                ("alexnet_fconv_invariant", {"dtype": None}, r"dtype .* of alexnet_fconv_invariant, one of .*dropout"),
                ("resnet18_fconv", {"padding": 1}, r"padding \(=1\) of resnet18_fconv must be 'SAME', 'CIRCULAR' or"),
                ("edsr_fconv", {"norm": "group"}, r"norm \(='group'\) must be"),
                ("edsr_fconv", {"scale": True}, r"scale \(=True\) must be"),
            )
        ),
        (lambda: models.create("edsr_fconv", scale=5, rngs=nnx.Rngs(0)), r"scale \(=5\) must be one of 1, 2, 3, 4"),
        (lambda: models.create("resnet18_fconv", norm="group", rngs=nnx.Rngs(0)), r"norm \(='group'\) must be"),
        (lambda: models.create("resnet18_fconv", width=0, rngs=nnx.Rngs(0)), r"width \(=0\) must be"),
        *(
            (lambda wrong=wrong: models.create("unet_fconv", group=None, rngs=nnx.Rngs(0), **wrong), words)
            for wrong, words in (
                ({"feature_group_count": 0}, r"feature_group_count \(=0\) must be"),
                ({"kernel_dilation": 0}, r"kernel_dilation \(=0\) must be"),
                ({"dtype": "foo"}, r"dtype \(='foo'\) must be"),
                ({"precision": "zzz"}, r"precision \(='zzz'\) must be"),
            )
        ),
        (lambda: models.create("edsr_fconv", init="xavier", rngs=nnx.Rngs(0)), r"init \(='xavier'\)"),
        (lambda: models.plain_twin("lenet", rngs=nnx.Rngs(0)), "must be resnet18_fconv, unet_fconv or edsr_fconv"),
    ],
)
def test_impossible_networks(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("group", [3, None])
def test_the_last_layer_of_a_u_net_has_no_border(group):
    options = {"width": 1, "depth": 1, "group": group, "num_classes": 1}
    model = models.unet.UNet(**options, padding=1, rngs=nnx.Rngs(0))
    images = jnp.ones((1, 4, 4, 1))
    assert model(images).shape == (1, 4, 4, 1)
    np.testing.assert_array_equal(model(images), models.unet.UNet(**options, rngs=nnx.Rngs(0))(images))
