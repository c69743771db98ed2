"""The residual block, batch norm over fields and 1 x 1 layers against the reference's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax

# The stored float32 numbers differ from exact arithmetic by about 1e-6 of the largest.
RELATIVE = 1e-5


def assert_close(actual, expected, relative=RELATIVE):
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * np.max(np.abs(expected)))


def load(module, arrays, case, parameters, names):
    """Fills `module` from the arrays `case.param_...`, through the conversion of checkpoints."""
    state = {name: arrays[f"{case}.param_{name.replace('.', '_')}"] for name in parameters}
    for name in list(state):
        prefix, _, leaf = name.rpartition(".")
        if leaf == "weights":
            state[f"{prefix}.Basis"] = arrays[f"{case}.basis"]
        elif leaf == "weight":
            state[f"{prefix}.running_mean"] = np.zeros_like(state[name])
            state[f"{prefix}.running_var"] = np.ones_like(state[name])
    fconv_jax.load_reference_weights(module, state, names=names)


RESIDUAL_NAMES = {"conv1": "body.0", "norm1": "body.1.BN", "conv2": "body.3", "norm2": "body.4.BN"}


@pytest.mark.parametrize("ending", ["root", "minist"])
def test_residual_block_equals_the_reference(goldens, oracle, ending):
    arrays, case = goldens("layers"), f"resblock_{ending}_k3_t4"
    mask = "gaussian" if ending == "minist" else "adaptive"
    block = fconv_jax.ResidualBlock(
        2, 3, 4, batch_norm=True, residual_scale=0.5, final_relu=ending == "root", mask=mask, rngs=nnx.Rngs(0)
    )
    leaves = {"conv": ("weights", "c"), "norm": ("weight", "bias")}
    parameters = [f"{theirs}.{leaf}" for ours, theirs in RESIDUAL_NAMES.items() for leaf in leaves[ours[:4]]]
    load(block, arrays, case, parameters, RESIDUAL_NAMES)
    x = oracle.fields(arrays[f"{case}.x"], 4)
    assert_close(block(x), oracle.fields(arrays[f"{case}.y_train"], 4))
    count = x.size // x.shape[-1]
    for norm, theirs in (("norm1", "body_1"), ("norm2", "body_4")):
        ours = getattr(block, norm)
        assert_close(ours.mean[...], arrays[f"{case}.after_{theirs}_BN_running_mean"])
        unbiased = 0.9 + (ours.var[...] - 0.9) * count / (count - 1)  # the running variance began at 1
        assert_close(unbiased, arrays[f"{case}.after_{theirs}_BN_running_var"])
        ours.var[...] = jnp.asarray(arrays[f"{case}.after_{theirs}_BN_running_var"])
    block.eval()
    assert_close(block(x), oracle.fields(arrays[f"{case}.y_eval"], 4))


@pytest.mark.parametrize("t", [4, 8])
def test_batch_norm_of_fields_equals_the_reference_but_for_the_running_variance(goldens, oracle, t):
    arrays, case = goldens("layers"), f"bn_t{t}"
    norm = nnx.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))
    stored = (("weight", "scale"), ("bias", "shift"), ("running_mean", "mean0"), ("running_var", "var0"))
    state = {f"BN.{theirs}": arrays[f"{case}.{name}"] for theirs, name in stored}
    fconv_jax.load_reference_weights(norm, state | {"BN.num_batches_tracked": np.array(7)}, names={"": "BN"})
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


@pytest.mark.parametrize("t", [4, 8])
@pytest.mark.parametrize("kind", ["lift", "reg"])
def test_pointwise_layers_equal_the_reference(goldens, oracle, kind, t):
    arrays, case = goldens("layers"), f"conv1x1_{kind}_t{t}"
    build = fconv_jax.LiftingPointwiseFConv if kind == "lift" else fconv_jax.PointwiseFConv
    layer = build(2, 3, t, rngs=nnx.Rngs(0))
    state = {name: arrays[f"{case}.{name}"] for name in ("weights", "c")}
    fconv_jax.load_reference_weights(layer, state, names={"": ""})
    x = arrays[f"{case}.x"].transpose(0, 2, 3, 1) if kind == "lift" else oracle.fields(arrays[f"{case}.x"], t)
    assert_close(layer(x), oracle.fields(arrays[f"{case}.y_eval"], t))
    cotangent = oracle.fields(arrays[f"{case}.cotangent"], t)
    graph, parameters = nnx.split(layer)
    grads = jax.grad(lambda p: jnp.sum(nnx.merge(graph, p)(x) * cotangent))(parameters)
    expected = arrays[f"{case}.grad_weights"][..., 0].transpose(2, 1, 0).reshape(layer.coefficients[...].shape)
    assert_close(grads["coefficients"][...], expected)
    assert_close(grads["bias"][...], arrays[f"{case}.grad_c"].reshape(-1))


@pytest.mark.parametrize("options", [{}, {"basis": "bicubic"}, {"batch_norm": True}, {"final_relu": False}])
def test_residual_block_keeps_quarter_turns(options):
    block = fconv_jax.ResidualBlock(2, 3, 8, rngs=nnx.Rngs(0), **options)
    x = jax.random.normal(jax.random.key(1), (2, 6, 6, 8, 2))
    assert fconv_jax.equivariance_error(block, x) < RELATIVE
    assert fconv_jax.equivariance_error(lambda x: block(x)[:, ::2, ::2], x) > 0.1  # an even size has no centre


def test_residual_block_composes():
    block = fconv_jax.ResidualBlock(2, 3, 4, batch_norm=True, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graph, state = nnx.split(block)
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4, 2))

    @jax.jit
    @jax.checkpoint
    def loss(state, x):
        y = nnx.merge(graph, state, copy=True)(x)
        assert y.dtype == jnp.bfloat16
        return jnp.sum(y.astype(jnp.float32) ** 2)

    grads = jax.tree.leaves(jax.grad(loss)(state, x))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in grads)
    assert jax.vmap(loss, (None, 0))(state, x[:, None]).shape == (2,)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match=r"odd kernel_size \(=4\)"):
        fconv_jax.ResidualBlock(2, 4, rngs=nnx.Rngs(0))
