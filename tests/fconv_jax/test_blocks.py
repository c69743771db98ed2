"""The residual block and batch norm over fields against the reference's numbers (1 x 1 layers: `test_layers`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from tests import goldens
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import assert_close, noise

pytestmark = pytest.mark.unoptimized  # the operations are compared, to tolerances of their sums; it takes half the time

# The stored float32 numbers differ from exact arithmetic by about 1e-6 of the largest: `assert_close`'s default is ten
# times that.
RESIDUAL_NAMES = {"conv1": "body.0", "norm1": "body.1.BN", "conv2": "body.3", "norm2": "body.4.BN"}


def residual_state(arrays, case):
    """The block's entries as a checkpoint holds them, with fresh statistics."""
    state = {}
    for ours, theirs in RESIDUAL_NAMES.items():
        for leaf in ("weights", "c") if ours.startswith("conv") else ("weight", "bias"):
            state[f"{theirs}.{leaf}"] = arrays[f"{case}.param_{theirs.replace('.', '_')}_{leaf}"]
        if ours.startswith("conv"):
            state[f"{theirs}.Basis"] = arrays[f"{case}.basis"]
        else:
            state |= {f"{theirs}.running_mean": np.zeros(2), f"{theirs}.running_var": np.ones(2)}
    return state


@pytest.mark.parametrize("ending", ["root", "minist"])
def test_residual_block_equals_the_reference(ending):
    arrays, case = goldens.load("layers"), f"resblock_{ending}_k3_t4"
    mask = "gaussian" if ending == "minist" else "adaptive"
    options = {"norm": "batch", "residual_scale": 0.5, "basis": fconv_jax.Fourier("all", mask=mask)}
    block = fconv_jax.ResidualBlock(2, 2, 3, 4, final_relu=ending == "root", **options, rngs=nnx.Rngs(0))
    fconv_jax.torch_reference.load_weights(block, residual_state(arrays, case), names=RESIDUAL_NAMES)
    x = oracle.fields(arrays[f"{case}.x"], 4)
    assert_close(block(x), oracle.fields(arrays[f"{case}.y_train"], 4))
    count = x.size // x.shape[-1]
    for ours, theirs in ((block.norm1, "body_1"), (block.norm2, "body_4")):
        assert_close(ours.mean[...], arrays[f"{case}.after_{theirs}_BN_running_mean"])
        unbiased = 0.9 + (ours.var[...] - 0.9) * count / (count - 1)  # the running variance started at 1
        assert_close(unbiased, arrays[f"{case}.after_{theirs}_BN_running_var"])
        ours.var[...] = jnp.asarray(arrays[f"{case}.after_{theirs}_BN_running_var"])
    block.eval()
    assert_close(block(x), oracle.fields(arrays[f"{case}.y_eval"], 4))


@pytest.mark.parametrize("t", [4, 8])
def test_batch_norm_of_fields_equals_the_reference_but_for_the_running_variance(t):
    arrays, case = goldens.load("layers"), f"bn_t{t}"
    norm = nnx.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))
    stored = (("weight", "scale"), ("bias", "shift"), ("running_mean", "mean0"), ("running_var", "var0"))
    state = {f"BN.{theirs}": arrays[f"{case}.{name}"] for theirs, name in stored}
    fconv_jax.torch_reference.load_weights(norm, state | {"BN.num_batches_tracked": np.array(7)}, names={"": "BN"})
    x = oracle.fields(arrays[f"{case}.x"], t)
    norm.eval()
    assert_close(norm(x), oracle.fields(arrays[f"{case}.y_eval_with_stats0"], t))
    norm.train()
    assert_close(norm(x), oracle.fields(arrays[f"{case}.y_train"], t))
    assert_close(norm.mean[...], arrays[f"{case}.mean1"])
    # PyTorch keeps the variance over n - 1, Flax over n: n = batch, rows, columns and rotations.
    count, var0 = x.size // 3, arrays[f"{case}.var0"]
    theirs = arrays[f"{case}.var1"]
    assert np.max(np.abs(norm.var[...] - theirs)) > 1e-5 * np.max(theirs)
    assert_close(norm.var[...], 0.9 * var0 + (theirs - 0.9 * var0) * (count - 1) / count)
    norm.var[...] = jnp.asarray(theirs)
    norm.eval()
    assert_close(norm(x), oracle.fields(arrays[f"{case}.y_eval_with_stats1"], t))


@pytest.mark.parametrize(
    "options", [{}, {"basis": fconv_jax.Bicubic()}, {"norm": "batch"}, {"norm": "layer", "final_relu": False}]
)
def test_residual_block_keeps_quarter_rotations(options):
    block, x = fconv_jax.ResidualBlock(2, 2, 3, 8, rngs=nnx.Rngs(0), **options), noise(2, 6, 6, 8, 2)
    assert fconv_jax.equivariance_error(block, x) < 1e-5
    assert fconv_jax.equivariance_error(lambda x: block(x)[:, ::2, ::2], x) > 0.1  # an even size has no centre


def test_residual_block_composes():
    block = fconv_jax.ResidualBlock(2, 2, 3, 4, norm="batch", dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graph, state = nnx.split(block)
    x = noise(2, 5, 5, 4, 2)

    @jax.jit
    @jax.checkpoint
    def loss(state, x):
        y = nnx.merge(graph, state, copy=True)(x)
        assert y.dtype == jnp.bfloat16
        return jnp.sum(y.astype(jnp.float32) ** 2)

    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(jax.grad(loss)(state, x)))
    assert jax.vmap(loss, (None, 0))(state, x[:, None]).shape == (2,)


@pytest.mark.parametrize("group", [4, None])
def test_equal_pairs_are_numbers_and_a_pool_needs_a_batch(group):
    field = (4, 2) if group else (2,)
    for kind in (fconv_jax.ResidualBlock, fconv_jax.DownBlock):
        block = nnx.eval_shape(lambda kind=kind: kind(2, 2, (3, 3), group, strides=(2, 2), rngs=nnx.Rngs(0)))
        assert nnx.eval_shape(lambda block, x: block(x), block, noise(1, 8, 8, *field)).shape == (1, 4, 4, *field)
        with pytest.raises(ValueError, match=rf"must be \[batch, height, width, {', '.join(map(str, field))}\]"):
            block(noise(8, 8, *field))
        with pytest.raises(ValueError, match=r"strides \(=\(2, 1\)\)"):
            kind(2, 2, 3, group, strides=(2, 1), rngs=nnx.Rngs(0))


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"odd kernel_size \(=4\)"):
        fconv_jax.ResidualBlock(2, 2, 4, rngs=nnx.Rngs(0))


def test_the_bias_of_a_block_follows_from_its_norm():
    with pytest.raises(ValueError, match=r"use_bias \(=True\) follows from norm \(='batch'\)"):
        fconv_jax.ConvBlock(2, 2, use_bias=True, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    "make", [fconv_jax.ResidualBlock, fconv_jax.DownBlock, lambda *a, **o: fconv_jax.UpBlock(2, *a, **o)]
)
def test_blocks_of_fields_refuse_to_lift(make):
    with pytest.raises(ValueError, match=r"lift \(=True\): this block takes fields"):
        make(2, 4, 3, 8, lift=True, rngs=nnx.Rngs(0))


def test_the_shortcut_has_no_border_of_its_own():
    x = noise(1, 8, 8, 4, 2)
    same, number = (fconv_jax.ResidualBlock(2, 4, 5, 4, padding=p, rngs=nnx.Rngs(0)) for p in ("SAME", 2))
    np.testing.assert_array_equal(number(x), same(x))
    with pytest.raises(ValueError, match=r"padding \(=0\) must keep the size"):
        fconv_jax.ResidualBlock(2, 4, 3, 4, padding=0, rngs=nnx.Rngs(0))(x)


def test_a_number_of_frequencies_is_for_kernels_that_have_some():
    block = fconv_jax.ResidualBlock(2, 4, 5, 8, basis=fconv_jax.Fourier(3), rngs=nnx.Rngs(0))
    assert block.shortcut.coefficients.shape == (8, 2, 4, 1)
    assert block.conv1.sampled_basis.rank > 1
