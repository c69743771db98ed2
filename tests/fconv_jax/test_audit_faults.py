"""Faults that the audit finds, each with its reason, in networks of every shape; and what it refuses."""

import contextlib
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests.fconv_jax.arrays import noise
from tests.fconv_jax.test_audit import SHAPE, Ramp, audit, create, named

# Errors far from the bar, or exact; what takes the time is to compile.
pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]
corner = fc.torch_reference.corner_max_pool


class Chain(nnx.Module):
    """A lifting layer, what is tested, on 4 features of 4 rotations, 8 x 8, and the mean over all."""

    def __init__(self, *middle, invariant=True, dtype=jnp.float32):
        self.conv = fc.LiftingFConv(1, 4, 3, 4, padding="SAME", param_dtype=dtype, rngs=nnx.Rngs(0))
        self.middle, self.invariant = nnx.List(middle), invariant

    def __call__(self, x):
        x = self.conv(x)
        for function in self.middle:
            x = function(x)
        return x.mean(range(1, x.ndim - 1)) if self.invariant and x.ndim > 2 else x


class Position(nnx.Module):
    """Adds a parameter, of the shape of the map or of its features."""

    def __init__(self, shape=(8, 8, 1, 4), value=0.0):
        self.position = nnx.Param(jnp.full(shape, value))

    def __call__(self, x):
        return x + self.position[...]


class Outer(nnx.Module):
    """A zero position embedding beside a layer: no module of its own."""

    def __init__(self, shape):
        self.chain, self.position = Chain(), nnx.Param(jnp.zeros(shape))

    def __call__(self, x):
        return self.chain(x + self.position[...])


def group(kernel=3, dtype=jnp.float32, **options):
    return fc.GroupFConv(4, 4, kernel, 4, rngs=nnx.Rngs(1), param_dtype=dtype, **{"padding": 1, **options})


def conv(*kernel, **options):
    return nnx.Conv(4, 4, kernel, rngs=nnx.Rngs(2), **options)


def short(model, size=8, dtype=jnp.float32, **options):
    return fc.audit(model, (size, size, 1), images=noise(2, size, size, 1, dtype=dtype), angles=(), **options)


def shuffle(x):
    b, h, w, c = x.shape
    return x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 4)


def radial(*shape):
    distances = (jnp.arange(8.0) - 3.5) ** 2
    return (distances[:, None] + distances).reshape(shape)


def beside(constant, x):
    return jnp.concatenate([x, jnp.broadcast_to(constant, (*x.shape[:3], 1))], -1)


def slopes(x):
    return jnp.stack(jnp.gradient(x, axis=(1, 2)), axis=3)


class UNet(nnx.Module):
    """Down and up again, with a shortcut and a residual block; images, vectors or both come out."""

    def __init__(self, out, stride_kernel=4, dtype=jnp.float32):
        self.lift = fc.LiftingFConv(1, 4, 3, 4, padding="SAME", param_dtype=dtype, rngs=nnx.Rngs(0))
        self.down = group(stride_kernel, strides=2, dtype=dtype)
        self.block = fc.ResidualBlock(4, 4, 3, 4, norm="batch", param_dtype=dtype, rngs=nnx.Rngs(3))
        self.last, self.out = fc.ProjectingFConv(8, 2, 3, 4, padding="SAME", param_dtype=dtype, rngs=nnx.Rngs(4)), out

    def __call__(self, x):
        x = nnx.relu(self.lift(x))
        y = self.block(nnx.relu(self.down(x))).repeat(2, 1).repeat(2, 2)
        return self.out(self.last(jnp.concatenate([x, y], axis=-1)))


@pytest.mark.parametrize(
    ("out", "kind", "exact", "dtype"),
    [
        (lambda y: y, None, True, jnp.float32),
        (slopes, "vector", True, jnp.bfloat16),
        (slopes, None, True, jnp.float32),  # no layer of two rotations: vectors
        (lambda y: slopes(y)[:, :, :, ::-1], "vector", False, jnp.bfloat16),  # components exchanged
        (lambda y: y[..., 0], "scalar", True, jnp.float32),
        (lambda y: (y, slopes(y)), ("scalar", "vector"), True, jnp.float32),
        (lambda y: {"a": y, "b": slopes(y)[..., 0, :]}, {"a": None, "b": "scalar"}, False, jnp.float32),
    ],
)
def test_u_shaped_and_residual_networks_of_every_output(out, kind, exact, dtype):
    report = short(UNet(out, dtype=dtype), kind=kind, dtype=dtype)
    assert (report.first_break is None) == exact, str(report)
    assert report.stages[-1].error == pytest.approx(0, abs=report.stages[-1].tolerance) or not exact
    names = [stage.name for stage in report.stages]
    assert names[:3] == ["lift", "down", "block.conv1"]
    if not exact:
        assert report.first_break.name.startswith("between last and output")


@pytest.mark.parametrize(("kernel", "exact"), [(3, False), (4, True)])
def test_a_stride_that_does_not_fit_is_found_in_half_precision(kernel, exact):
    dtype, size = jnp.bfloat16, 24
    model = Chain(group(kernel, strides=2, dtype=dtype), nnx.relu, dtype=dtype)
    report = short(model, size, dtype)
    assert ("exact" in str(report)) == (report.stages[-1].error < 0.02) == exact, str(report)
    with contextlib.nullcontext() if exact else pytest.warns(fc.EquivarianceWarning):
        error = float(fc.equivariance_error(model, noise(2, size, size, 1, dtype=dtype)))
    assert (error < 0.02) == exact


def test_a_stride_in_a_residual_network_is_named():
    """Negative control: a kernel of 3 x 3 at the size at which that of 4 x 4 is exact."""
    assert [stage.name for stage in short(UNet(lambda y: y, 3)).breaking] == ["down"]


def test_columns_have_a_legend():
    assert "alone: of the stage, on noise" in str(short(Chain()))


top = fc.max_over_group
norm_options = {"rngs": nnx.Rngs(0)}
FAULTS = {  # what breaks, words of its reason, and what does not break in its place
    "stride": ([group(strides=2)], "a kernel of 4 x 4 with padding 1 fits 8 pixels", [group(4, strides=2)]),
    "stride of a plain 1 x 1": ([top, conv(1, 1, strides=2)], "stops short of the other", [top, conv(1, 1)]),
    "padding": (
        [lambda x: jnp.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0), (0, 0)])], "at one border than at the other (pad)",
        [lambda x: jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0), (0, 0)])],
    ),
    "pool over rotations": (
        [lambda x: nnx.max_pool(x, (2, 2), (2, 2))], "pools a field over width and rotations", [fc.spatial_max_pool]
    ),
    "pool": ([top, lambda x: nnx.max_pool(x, (3, 3), (3, 3))], "8 -> 2 drops the last 2 rows",
             [top, lambda x: nnx.max_pool(x, (4, 4), (4, 4))]),
    "pool in a layer": ([lambda x: corner(x, 3)], "windows of 3", [lambda x: corner(x, 2)]),
    "flatten": ([lambda x: x.reshape(len(x), -1)], "vector of the 8x8 positions and the rotations",
                [lambda x: x.max((1, 2, 3))]),
    "position": ([lambda x: x + jnp.arange(8.0)[:, None, None]], "a position encoding",
                 [lambda x: x + radial(8, 8, 1, 1)]),
    "coordinates": ([top, functools.partial(beside, jnp.arange(8.0)[:, None])], "a position encoding",
                    [top, functools.partial(beside, radial(8, 8, 1))]),
    "position in a layer": ([Ramp()], "a position encoding", [Position((4,), 1.0)]),
    "crop": ([lambda x: x[:, :7, :7]], "more at one border", [lambda x: x[:, 1:7, 1:7]]),
    "every second pixel": ([lambda x: x[:, ::2, ::2]], "more at one border", [fc.spatial_mean_pool]),
    "plain convolution": ([top, conv(3, 3)], "its filters have one direction", [top, conv(1, 1)]),
    "pixel shuffle": ([top, shuffle], "a pixel shuffle", [top, lambda x: x.repeat(2, 1).repeat(2, 2)]),
    "norm along the width": ([nnx.LayerNorm(4, reduction_axes=(2, 4), **norm_options)], "normalises or scales by rows",
                             [nnx.LayerNorm(4, reduction_axes=(1, 2, 3, 4), **norm_options)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_with_its_reason_and_its_control_is_not(name):
    fault, words, control = FAULTS[name]
    first = short(Chain(*fault, invariant=False)).first_break
    assert first is not None
    assert words in first.reason
    report = short(Chain(*control, invariant=False))
    assert report.first_break is None, str(report)
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("build", "name", "words"),
    [
        (lambda: Chain(Position()), "middle.0", "8x8x1x4"),
        (lambda: Chain(Position((8, 1, 1, 1), 3.0)), "middle.0", "8x1x1"),
        (lambda: Chain(nnx.BatchNorm(4, axis=3, rngs=nnx.Rngs(0))), "middle.0", "normalises or scales by rows"),
        (lambda: Outer((8, 8, 1)), "between the input and chain.conv", "8x8x1"),
        (lambda: Chain(Position((1, 1, 1, 4))), None, ""),
        (lambda: Chain(nnx.BatchNorm(4, rngs=nnx.Rngs(0))), None, ""),
        (lambda: Outer((1,)), None, ""),
    ],
)
def test_what_an_update_would_break_is_warned_of(build, name, words):
    """A position embedding that is still constant, a scale for each rotation; negative controls in the last rows."""
    report = short(build())
    assert report.first_break is None
    assert len(report.warnings) == (name is not None)
    if name is not None:
        assert report.warnings[0].startswith(f"{name} keeps quarter turns with these parameters only")
        assert words in report.warnings[0]
        assert report.warnings[0] in str(report)


def remat(layer, x):
    return nnx.remat(lambda layer, x: layer(x))(layer, x)


def scanned(stack, x):
    return nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, stack)


class Transformed(nnx.Module):
    """A layer called through a transformation of flax."""

    def __init__(self, way, **options):
        make = functools.partial(group, **options)
        self.conv, self.way = fc.LiftingFConv(1, 4, 3, 4, padding="SAME", rngs=nnx.Rngs(0)), way
        self.layer = nnx.vmap(lambda key: fc.GroupFConv(4, 4, 3, 4, rngs=nnx.Rngs(key), **{"padding": 1, **options}))(
            jax.random.split(jax.random.key(0), 2)) if way is scanned else make()  # fmt: skip

    def __call__(self, x):
        return self.way(self.layer, self.conv(x)).mean((1, 2, 3))


@pytest.mark.parametrize(
    ("way", "names"), [(remat, ["layer"]), (nnx.jit(lambda f, x: f(x)), ["layer"]), (scanned, ["layer[0]", "layer[1]"])]
)
def test_layers_in_transformations_keep_their_names_and_reasons(way, names):
    report = short(Transformed(way))
    assert [stage.name for stage in report.stages] == ["conv", *names, "output"]
    assert report.first_break is None
    assert 0 < report.stages[1].own_error < 1e-5
    first = short(Transformed(way, **({"basis": fc.Bicubic()} if way is scanned else {"strides": 2}))).first_break
    if way is scanned:  # a stack keeps its size; negative control of the others
        assert first is None
    else:
        assert first.name == names[0]
        assert "its stride of 2 does not fit" in first.reason


def test_whole_numbers_are_images_too():
    images = np.asarray(noise(2, *SHAPE) > 0)
    found = [audit(create("lenet"), images=jnp.asarray(images, kind)).stages[-1] for kind in ("uint8", "float32")]
    assert found[0] == found[1]


class Reflected(nnx.Module):
    """Invariant under D4; without its last half of elements, under C4 alone."""

    def __init__(self, group, elements=8):
        rngs = nnx.Rngs(0)
        self.conv1 = fc.LiftingFConv(1, 2, 3, group, rngs=rngs)
        self.conv2 = fc.GroupFConv(2, 2, 3, group, rngs=rngs)
        self.dense, self.elements = nnx.Linear(2, 3, rngs=rngs), elements

    def __call__(self, x):
        x = self.conv2(nnx.relu(self.conv1(x)))[..., : self.elements, :]
        return self.dense(x.max(axis=-2).mean((1, 2)))


class Branches(nnx.Module):
    """A field of D8 read as one of C8 and as one of D4, both of 8 elements."""

    def __init__(self, plain=False):
        self.whole, rngs = fc.Group(8, reflections=True), nnx.Rngs(1)
        self.parts = (fc.Group(8), fc.Group(4, reflections=True))
        self.lift = fc.LiftingFConv(1, 3, 3, self.whole, rngs=rngs)
        self.convs = nnx.List([fc.GroupFConv(6, 2, 3, part, rngs=rngs) for part in self.parts])
        self.plain = nnx.Conv(2, 2, (3, 3), rngs=rngs) if plain else None

    def __call__(self, x):
        field = nnx.relu(self.lift(x))
        a, b = (conv(fc.restrict(field, self.whole, part)) for conv, part in zip(self.convs, self.parts, strict=True))
        a = fc.max_over_group(a)
        return jnp.concatenate([a if self.plain is None else self.plain(a), fc.max_over_group(b)], axis=-1)


def test_two_groups_of_as_many_elements():
    report = audit(Branches(), (9, 9, 1))
    assert report.first_break is None, str(report)
    assert max(stage.own_error for stage in report.stages) < 1e-5
    assert named(audit(Branches(plain=True), (9, 9, 1))) == ["plain"]


def test_mirrors_are_a_column_where_the_network_has_reflections():
    group = fc.Group(4, reflections=True)
    whole, half = (audit(Reflected(group, elements), (9, 9, 1)) for elements in (8, 4))
    assert str(whole).endswith("quarter turns are exact\nmirror images are exact")
    assert all(stage.mirror_error < stage.tolerance for stage in whole.stages)
    assert [stage.breaks_mirrors for stage in half.stages] == [False, False, True]
    assert str(half).endswith("quarter turns are exact\nmirror images are lost first at dense")
    rotations = audit(Reflected(fc.Group(8)), (9, 9, 1))
    assert all(math.isnan(stage.mirror_error) for stage in rotations.stages)
    assert "mirror images" not in str(rotations)
