"""Layers take the arguments of the installed `nnx.Conv`, or say in one table why not."""

import inspect
import re

import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax._arguments import NOT_OF_CONV


@pytest.mark.parametrize("kind", [fc.LiftingFConv, fc.GroupFConv, fc.ProjectingFConv])
def test_each_argument_of_conv_is_supported_or_named(kind):
    theirs, ours = (inspect.signature(cls.__init__).parameters for cls in (nnx.Conv, kind))
    assert set(theirs) - set(ours) == set(NOT_OF_CONV)
    shared = [name for name in theirs if name in ours]
    assert shared[:4] == ["self", "in_features", "out_features", "kernel_size"]
    same = {
        "strides",
        "padding",
        "kernel_dilation",
        "feature_group_count",
        "use_bias",
        "dtype",
        "param_dtype",
        "precision",
    }
    assert same <= set(shared)
    for name in same - {"bias_init"}:
        assert ours[name].default == theirs[name].default, name


@pytest.mark.parametrize("kind", [fc.LiftingFConv, fc.GroupFConv, fc.ProjectingFConv])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strid": 2, "rngs": None}, "got an unexpected keyword argument 'strid'$"),
        ({}, "missing a required .*argument: 'rngs'"),
        ({"group": 4, "rngs": None}, "multiple values for argument 'group'"),
        *(({name: None, "rngs": None}, re.escape(f"'{name}' ({why})")) for name, why in NOT_OF_CONV.items()),
    ],
)
def test_what_is_no_argument_is_refused_by_the_class_that_is_made(kind, options, words):
    with pytest.raises(TypeError, match=rf"^{kind.__name__}\(\) .*{words}"):
        kind(1, 1, 3, 4, **options)


def test_the_default_padding_keeps_the_size_and_strides_halve_it_as_in_conv():
    x = nnx.Rngs(0).params.normal((2, 9, 9, 1))
    for options in (
        {},
        {"strides": 2},
        {"strides": (2, 2)},
        {"padding": "VALID"},
        {"padding": 2},
        {"kernel_dilation": 2},
    ):
        plain = nnx.Conv(1, 4, (3, 3), rngs=nnx.Rngs(0), **options)(x)
        assert fc.LiftingFConv(1, 4, (3, 3), 4, rngs=nnx.Rngs(0), **options)(x).shape == (*plain.shape[:3], 4, 4)
    layer = fc.LiftingFConv(1, 4, 3, 4, rngs=nnx.Rngs(0))
    assert layer(x[0]).shape == (9, 9, 4, 4)
    assert layer(x[None, :, None]).shape == (1, 2, 1, 9, 9, 4, 4)
