"""A saved network has the options that its config says: groups, bases and types are kept, others refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from fconv_jax.pretrained import from_pretrained, save_pretrained

SMALL = {"width": 1, "blocks": 1, "group": 8}


def edsr(folder=None, said=None, **options):
    """A small network; saved with the config that it has, or that is said."""
    model = fconv_jax.models.create("edsr_fconv", **{**SMALL, **options}, rngs=nnx.Rngs(0))
    config = {"model": "edsr_fconv", "options": {**SMALL, **options} if said is None else {**SMALL, **said}}
    if folder is not None:
        save_pretrained(model, folder, config=config, card="# Small")
    return model


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"group": fconv_jax.Group(4, reflections=True)}, "group"),
        ({"basis": fconv_jax.Fourier(smooth=False)}, "basis"),
        ({"dtype": jnp.bfloat16}, "dtype"), ({"precision": "highest"}, "precision"),
        ({"group": None, "kernel_dilation": (2, 2)}, "kernel_dilation"),
        ({"padding": "CIRCULAR"}, "padding"), ({"residual_scale": 0.5}, "residual_scale"), ({"scale": 3}, "scale"),
    ],
)  # fmt: skip
def test_a_network_with_other_options_than_the_config_has_is_refused(options, named, tmp_path):
    with pytest.raises(ValueError, match=rf"model is not what config says: its [\w.]*{named} is"):
        edsr(tmp_path / "mine", said={} if named == "group" else {"group": options.get("group", 8)}, **options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"group": 4}, {"group": fconv_jax.Group(4)}),
        ({"group": fconv_jax.Group(4)}, {"group": 4}),
        ({"precision": jax.lax.Precision.HIGHEST}, {"precision": "highest"}),
    ],
)
def test_two_ways_to_say_an_option(made, said, tmp_path):
    model = fconv_jax.models.create("unet_fconv", depth=1, width=1, rngs=nnx.Rngs(0), **made)
    config = {"model": "unet_fconv", "options": {"depth": 1, "width": 1, **said}}
    save_pretrained(model, tmp_path / "mine", config=config, card="")
    assert from_pretrained(tmp_path / "mine").group == model.group


@pytest.mark.parametrize(("made", "said"), [((0.0, 45.0), (0.0,)), ((0.0,), [0.0, 45.0]), ((0.0, 45.0), [0, 45])])
def test_the_angles_of_the_input_are_those_that_the_config_says(made, said, tmp_path):
    name, rngs = "lenet_fconv_invariant", nnx.Rngs(0)
    model = fconv_jax.models.create(name, input_turns=made, rngs=rngs)
    config = {"model": name, "options": {"input_turns": said}}
    if tuple(said) == made:
        save_pretrained(model, tmp_path / "mine", config=config, card="")
        assert from_pretrained(tmp_path / "mine").input_turns == made
        return
    with pytest.raises(ValueError, match="model is not what config says: its input_turns is"):
        save_pretrained(model, tmp_path / "mine", config=config, card="")


@pytest.mark.parametrize(
    "options",
    [
        {"group": fconv_jax.Group(4, reflections=True), "basis": fconv_jax.Fourier(2, smooth=False)},
        {"basis": fconv_jax.Bicubic()}, {"param_dtype": "bfloat16"}, {"param_dtype": "float16"},
        {"group": np.int64(3)}, {"precision": "highest"}, {"residual_scale": np.float32(0.5)},
    ],
    ids=str,
)  # fmt: skip
def test_groups_bases_and_half_precision_are_kept(options, tmp_path):
    model = edsr(tmp_path / "mine", **options)
    model.eval()
    found, x = from_pretrained(tmp_path / "mine"), np.random.default_rng(0).uniform(size=(1, 6, 6, 1))
    np.testing.assert_array_equal(found(x), model(x))
    assert found.lift.group == model.lift.group
    assert found.lift.basis == model.lift.basis


def test_what_is_no_network_config_or_card_is_named(tmp_path):
    model = edsr()
    for wrong in ((jnp.tanh, {"model": "lenet"}, "card"), (model, None, "card"), (model, {"model": "lenet"}, None)):
        with pytest.raises(ValueError, match="must be an nnx"):
            save_pretrained(wrong[0], tmp_path / "x", config=wrong[1], card=wrong[2])
    with pytest.raises(ValueError, match=r"folder \(=5\) must be a path"):
        save_pretrained(model, 5, config={"model": "lenet"}, card="card")
    config = {"model": "edsr_fconv", "options": SMALL}
    for long in (
        {"card": "x" * 2**21, "config": config},
        {"card": "", "config": {**config, "source": {"a": "x" * 2**21}}},
    ):
        with pytest.raises(ValueError, match="would hold more than the 1,048,576 bytes that are read again"):
            save_pretrained(model, tmp_path / "x", **long)
    assert not any(tmp_path.iterdir())


class Scaled(fconv_jax.LiftingFConv):
    def __call__(self, x):
        return 10 * super().__call__(x)


def test_a_layer_of_another_class_is_refused(tmp_path):
    model = edsr()
    assert type(model.lift) is fconv_jax.LiftingFConv
    model.lift = Scaled(model.lift.in_features, model.lift.out_features, model.lift.kernel_size, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"its module lift is Scaled, the config's LiftingFConv"):
        save_pretrained(model, tmp_path / "x", config={"model": "edsr_fconv", "options": SMALL}, card="")


def test_numpys_numbers_in_lists_are_numbers(tmp_path):
    config = {"model": "edsr_fconv", "options": SMALL, "classes": [np.int64(1), "two"]}
    save_pretrained(edsr(), tmp_path / "x", config=config, card="")
    assert fconv_jax.pretrained.read_config(tmp_path / "x")["classes"] == [1, "two"]


def test_options_that_are_pairs_come_back_as_pairs(tmp_path):
    options = {"width": 2, "blocks": 1, "group": 4, "precision": ("high", "highest")}
    model = fconv_jax.models.create("edsr_fconv", rngs=nnx.Rngs(1), **options)
    fconv_jax.save_pretrained(model, tmp_path / "net", config={"model": "edsr_fconv", "options": options}, card="c")
    found = fconv_jax.from_pretrained(tmp_path / "net")
    assert found.lift.precision == model.lift.precision
    assert nnx.graphdef(found) == nnx.graphdef(model)
