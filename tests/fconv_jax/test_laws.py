"""The laws of every layer, block and pool, under quarter turns and mirrors of C_t and D_t, with negative controls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc

pytestmark = pytest.mark.unoptimized  # exact whatever the order of sums; what takes the time here is to compile

GROUPS = [
    fc.Group(4),
    fc.Group(8),
    fc.Group(12),
    fc.Group(4, True),
    fc.Group(8, True),
    fc.Group(2, True),
    fc.Group(1, True),
]
OPTIONS = {
    "defaults": {},
    "even kernel": {"kernel_size": 4, "padding": 1},
    "1 x 1": {"kernel_size": 1},
    "stride": {"kernel_size": 4, "padding": 1, "strides": 2},
    "dilation": {"kernel_dilation": 2},
    "depthwise": {"feature_group_count": 2},
    "circular": {"padding": "CIRCULAR"},
    "reflect": {"padding": "REFLECT"},
    "bicubic": {"basis": fc.Bicubic()},
    "all, adaptive": {"basis": fc.Fourier("all", mask="adaptive")},
    "pair, valid": {"kernel_size": (5, 5), "padding": "VALID"},
}
LAYERS = {"lifting": fc.LiftingFConv, "group": fc.GroupFConv, "projecting": fc.ProjectingFConv}


def moves(group):
    """(name, on images, on fields, on vectors) for each element that moves pixels onto pixels."""
    if group.keeps_grid:
        yield (
            "90",
            functools.partial(fc.rotate_image, angle=90),
            functools.partial(fc.rotate_field, angle=90, group=group),
        )
    elif group.num_rotations % 2 == 0:
        yield (
            "180",
            functools.partial(fc.rotate_image, angle=180),
            functools.partial(fc.rotate_field, angle=180, group=group),
        )
    if group.reflections:
        yield "mirror", fc.mirror_image, functools.partial(fc.mirror_field, group=group)


run = nnx.jit(lambda layer, x: layer(x))


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def error(actual, expected):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_commute_with_quarter_turns_and_mirrors(kind, option):
    """Every kind with the defaults and every group; else each pair of kind, option and group at least once."""
    row, options = list(OPTIONS).index(option) + list(LAYERS).index(kind), OPTIONS[option]
    for group in GROUPS if option == "defaults" else GROUPS[row % 3 :: 3]:
        layer = LAYERS[kind](2, 4, **{"kernel_size": 3, **options}, group=group, rngs=nnx.Rngs(1))
        function = functools.partial(run, layer)
        x = noise(2, 8, 8, 2) if kind == "lifting" else noise(2, 8, 8, group.order, 2)
        for name, image, field in moves(group):
            before, after = (image if kind == "lifting" else field), (image if kind == "projecting" else field)
            assert error(function(before(x)), after(function(x))) < 1e-5, (str(group), name)


def test_a_group_without_mirrors_and_a_plain_kernel_break_them():
    group, x = fc.Group(4, True), noise(1, 8, 8, 4, 2)
    layer = fc.GroupFConv(2, 4, 3, 4, rngs=nnx.Rngs(1))
    swapped = group.product[4][4:] - 4  # how a mirror would have to move C4's elements
    mirror = lambda x: jnp.flip(x, 2)[..., swapped, :]  # noqa: E731
    assert error(layer(mirror(x)), mirror(layer(x))) > 0.1
    other = layer.filter().at[0, 0].add(0.1)
    rotate = functools.partial(fc.rotate_field, angle=90)
    assert error(layer.convolve_with(rotate(x), other, None), rotate(layer.convolve_with(x, other, None))) > 0.01


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_restriction_upsampling_vectors_and_pools_are_exact(group):
    field, image = noise(1, 6, 6, group.order, 3), noise(1, 6, 6, 3)

    @jax.jit
    def both_orders(field, image):
        pairs = []
        for _, on_image, on_field in moves(group):
            for function in (fc.upsample, functools.partial(fc.upsample, factor=3), fc.spatial_mean_pool):
                pairs.append((function(on_field(field)), on_field(function(field))))
                pairs.append((function(on_image(image)), on_image(function(image))))
            for pool in (fc.max_over_group, fc.mean_over_group):
                pairs.append((pool(on_field(field)), on_image(pool(field))))
        return pairs

    assert max(error(*pair) for pair in both_orders(field, image)) < 1e-6
    if group.num_rotations >= 3:
        vectors = noise(1, 6, 6, 2, 3)
        assert error(fc.to_vectors(fc.from_vectors(vectors, group), group), vectors) < 1e-6
        angle = 360 / group.num_rotations  # at a pixel every element is exact
        point, arrow = field[:, :1, :1], vectors[:, :1, :1]
        turned = functools.partial(fc.rotate_field, angle=angle, group=group)
        pixel = functools.partial(_move_elements, turned)
        assert error(fc.to_vectors(pixel(point), group), _rotate_components(fc.to_vectors(point, group), angle)) < 1e-6
        assert (
            error(fc.from_vectors(_rotate_components(arrow, angle), group), pixel(fc.from_vectors(arrow, group))) < 1e-6
        )
        assert error(fc.to_vectors(point, group), _rotate_components(fc.to_vectors(point, group), angle)) > 0.1
    if group.reflections and group.num_rotations >= 3:
        mirrored = fc.to_vectors(fc.mirror_field(field, group), group)
        assert error(mirrored, fc.mirror_vectors(fc.to_vectors(field, group))) < 1e-6
        back = fc.from_vectors(fc.mirror_vectors(vectors), group)
        assert error(back, fc.mirror_field(fc.from_vectors(vectors, group), group)) < 1e-6


def _move_elements(function, field):
    return function(field[:, 0, 0])[:, None, None]


def _rotate_components(vectors, angle):
    a = np.radians(angle)
    return jnp.einsum("dv,...vc->...dc", jnp.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]), vectors)


@pytest.mark.parametrize(
    ("group", "subgroup", "index"),
    [
        (fc.Group(8), fc.Group(4), 2),
        (fc.Group(12), fc.Group(3), 4),
        (fc.Group(8, True), fc.Group(8), 2),
        (fc.Group(8, True), fc.Group(4, True), 2),
        (fc.Group(8, True), fc.Group(2), 8),
        (fc.Group(4, True), fc.Group(4, True), 1),
    ],
    ids=str,
)
def test_a_field_restricted_is_a_field_of_the_subgroup(group, subgroup, index):
    field = noise(2, group.order, 3)
    out = fc.restrict(field, group, subgroup)
    assert out.shape == (2, subgroup.order, 3 * index)
    assert sorted(np.asarray(out).ravel()) == sorted(np.asarray(field).ravel())  # nothing is lost
    turn = functools.partial(fc.rotate_field, angle=360 / subgroup.num_rotations)
    np.testing.assert_array_equal(fc.restrict(turn(field, group=group), group, subgroup), turn(out, group=subgroup))
    if subgroup.reflections:
        np.testing.assert_array_equal(
            fc.restrict(fc.mirror_field(field, group), group, subgroup), fc.mirror_field(out, subgroup)
        )
    representatives = [
        min(set(range(group.order)) - set(group.cosets(subgroup)[:, :i].ravel().tolist())) for i in range(index)
    ]
    for i, g in enumerate(representatives):
        np.testing.assert_array_equal(out[:, 0, 3 * i : 3 * i + 3], field[:, g])


def test_what_is_no_subgroup_is_refused():
    for group, subgroup in ((8, 3), (8, fc.Group(4, True)), (4, 8)):
        with pytest.raises(ValueError, match="is not a subgroup of"):
            fc.restrict(jnp.ones((1, fc.group.as_group(group).order, 1)), group, subgroup)
    with pytest.raises(ValueError, match=r"subgroup \(=8.0\) must be a Group or a number of rotations"):
        fc.restrict(jnp.ones((1, 8, 1)), 8, 8.0)
    with pytest.raises(ValueError, match=r"must be \[\.\.\., 8, channel\]"):
        fc.restrict(jnp.ones((1, 4, 1)), 8, 4)


@pytest.mark.parametrize("group", [*GROUPS, fc.Group(3, True)], ids=str)
def test_the_tables_are_those_of_matrices(group):
    """Each element as the matrix that it is on (row, column)."""

    def matrix(e):
        s, o = divmod(e, group.num_rotations)
        a = 2 * np.pi * o / group.num_rotations
        mirror = np.diag([1.0, -1.0]) if s else np.eye(2)
        return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ mirror

    matrices = [matrix(e) for e in range(group.order)]
    for e in range(group.order):
        np.testing.assert_allclose(matrices[group.inverse[e]], np.linalg.inv(matrices[e]), atol=1e-12)
        for f in range(group.order):
            np.testing.assert_allclose(matrices[group.product[e, f]], matrices[e] @ matrices[f], atol=1e-12)
            assert group.relative[e, f] == group.product[group.inverse[f], e]


def test_groups_compare_by_value_and_refuse_nonsense():
    assert fc.Group(8) == fc.Group(np.int64(8))
    assert hash(fc.Group(8)) == hash(fc.Group(8, False))
    assert fc.Group(8) != fc.Group(8, True)
    for arguments in ((0,), (2.5,), (True,), (4, "yes"), (None,)):
        with pytest.raises(ValueError, match="must be"):
            fc.Group(*arguments)
    with pytest.raises(ValueError, match="read-only"):
        fc.Group(4).product[0, 0] = 1
