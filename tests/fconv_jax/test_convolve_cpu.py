"""Every way in which a CPU convolves gives what XLA's own convolution gives, with all its derivatives."""

import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax import _convolve_cpu as cpu
from tests.fconv_jax import meshes

# Which operations there are is not XLA's to choose; it takes half the time.
pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

# Two orders of the same sums of a few thousand terms, relative to the largest entry; bfloat16 has 8 bits.
TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "bfloat16": 2e-2}


def arrays(batch, height, width, k, inputs, outputs=5, dtype=np.float32):
    random = np.random.RandomState(0)
    x = random.normal(size=(batch, height, width, inputs)).astype(dtype)
    return jnp.asarray(x), jnp.asarray((random.normal(size=(k, k, inputs, outputs)) / k).astype(dtype))


def assert_equal(actual, expected, dtype="float32"):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * max(np.abs(b).max(), 1e-30))


def loss(convolve, x, kernel):
    return jnp.sum(jnp.sin(convolve(x, kernel)))


DERIVATIVES = {
    "value": lambda f, x, k: f(x, k),
    "gradient": lambda f, x, k: jax.grad(functools.partial(loss, f), (0, 1))(x, k),
    "gradient of the kernel": lambda f, x, k: jax.grad(functools.partial(loss, f), 1)(x, k),
    "forward": lambda f, x, k: jax.jvp(f, (x, k), (2 * x, k + 1)),
    "forward over reverse": lambda f, x, k: jax.jvp(jax.grad(functools.partial(loss, f), (0, 1)), (x, k), (x, k)),
    "reverse over reverse": lambda f, x, k: jax.grad(
        lambda x, k: sum(jnp.sum(g**2) for g in jax.grad(functools.partial(loss, f), (0, 1))(x, k)), (0, 1)
    )(x, k),
    "vmap": lambda f, x, k: jax.vmap(jax.grad(functools.partial(loss, f), (0, 1)))(
        jnp.stack([x, x + 1]), jnp.stack([k, 2 * k])
    ),
    "remat": lambda f, x, k: jax.grad(jax.checkpoint(functools.partial(loss, f)), (0, 1))(x, k),
    "scan": lambda f, x, k: jax.lax.scan(
        lambda k, _: (k - 0.1 * jax.grad(functools.partial(loss, f), 1)(x, k), None), k, None, length=2
    )[0],
}

SHAPES = {  # batch, height, width, k, inputs, strides, padding
    "chunks of images": (4, 9, 8, 3, 16, 1, 1),
    "one chunk": (2, 9, 8, 3, 16, 1, 1),
    "more padding than the kernel": (4, 9, 8, 3, 16, 1, 4),
    "pixels that no window sees": (4, 10, 9, 3, 16, 3, 0),
    "images that do not divide, stride, even kernel": (3, 13, 20, 4, 16, 2, 1),
    "kernel size 1": (3, 7, 7, 1, 16, 2, 0),
}


HARDEST = "images that do not divide, stride, even kernel"


@pytest.mark.parametrize(
    ("case", "derivative"),
    [(HARDEST, name) for name in DERIVATIVES] + [(case, "gradient") for case in SHAPES if case != HARDEST],
)
def test_gradients_in_the_canonical_layout(case, derivative, monkeypatch):
    monkeypatch.setattr(cpu, "WHOLE_BATCH", 2)
    monkeypatch.setattr(cpu, "CHUNK_IMAGES", 2)
    *sizes, strides, padding = SHAPES[case]
    x, kernel = arrays(*sizes)
    ours = functools.partial(fc.convolve, strides=strides, padding=padding)
    plain = functools.partial(cpu.direct, strides=strides, width=padding)
    ours, plain = (functools.partial(DERIVATIVES[derivative], convolve) for convolve in (ours, plain))
    if derivative == "gradient":  # the rule is the patched one
        assert ("scan[" in str(jax.make_jaxpr(ours)(x, kernel))) == (len(x) > 2 and kernel.shape[0] > 1)
    assert_equal(jax.jit(ours)(x, kernel), jax.jit(plain)(x, kernel))


KERNELS = [(5, 1, 4), (3, 16, 16), (3, 3, 8), (5, 64, 4), (1, 8, 4), (9, 4, 4)]


@pytest.mark.parametrize(
    ("algorithm", "derivative", "k", "inputs", "outputs"),
    [(algorithm, "gradient", *sizes) for algorithm in ("auto", "loops", "direct") for sizes in KERNELS]
    + [("loops", name, *sizes) for name in ("forward over reverse", "vmap") for sizes in KERNELS[:3]],
)
def test_every_algorithm(algorithm, derivative, k, inputs, outputs):
    x, kernel = arrays(2, 7, 8, k, inputs, outputs)
    convolve = functools.partial(fc.convolve, padding=(k - 1) // 2)
    with fc.convolution_algorithm(algorithm):
        actual = jax.jit(functools.partial(DERIVATIVES[derivative], convolve))(x, kernel)
    assert_equal(actual, by_xla(derivative, k, inputs, outputs))


@functools.cache
def by_xla(derivative, k, inputs, outputs):
    """What each algorithm must give."""
    convolve = functools.partial(cpu.direct, strides=1, width=(k - 1) // 2)
    return jax.jit(functools.partial(DERIVATIVES[derivative], convolve))(*arrays(2, 7, 8, k, inputs, outputs))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_types(dtype):
    with jax.enable_x64(dtype == "float64"):
        x, kernel = (a.astype(dtype) for a in arrays(36, 7, 8, 3, 64, dtype=np.float64))
        compute = DERIVATIVES["gradient"]
        plain = jax.jit(functools.partial(compute, functools.partial(cpu.direct, strides=1, width=1)))(x, kernel)
        ours = jax.jit(functools.partial(compute, functools.partial(fc.convolve, padding=1)))(x, kernel)
        assert_equal(ours, plain, dtype)


def traced(algorithm, channels):
    x, kernel = jnp.zeros((2, 14, 14, channels)), jnp.zeros((5, 5, channels, 8))
    with fc.convolution_algorithm(algorithm):
        return str(jax.make_jaxpr(functools.partial(fc.convolve, padding=2))(x, kernel))


def test_the_default_is_the_plain_convolution():
    """Without gradients there is no choice between backends, which other programs (ONNX) do not know."""
    for channels in (1, 16, 64):
        for algorithm in ("auto", "direct"):
            assert "conv_general_dilated" in traced(algorithm, channels)
            assert "platform_index" not in traced(algorithm, channels)
    assert "platform_index" in traced("loops", 1)


@pytest.mark.parametrize("strides", [1, 2])
def test_gradients_have_the_canonical_layout(strides):
    """XLA runs other layouts 10 to 50 times slower on a CPU wherever it is not in a program's outermost level."""
    x, kernel = arrays(2, 9, 9, 3, 8)

    def layouts(algorithm):
        convolve = functools.partial(fc.convolve, strides=strides, padding=1)
        with fc.convolution_algorithm(algorithm):
            step = jax.jit(jax.grad(functools.partial(loss, convolve), (0, 1)))
            text = jax.export.export(step, platforms=["cpu"])(x, kernel).mlir_module()
        found = re.findall(r"dim_numbers = (\[.*?\]x\[.*?\]->\[.*?\])", text)
        assert len(found) == 3
        return set(found)

    assert len(layouts("auto")) == 1
    assert len(layouts("direct")) > 1


def test_an_unknown_algorithm_is_an_error_and_the_setting_ends_with_its_context():
    message = r"algorithm \(='fast'\) must be one of auto, loops, direct"
    with pytest.raises(ValueError, match=message), fc.convolution_algorithm("fast"):
        pass
    with pytest.raises(KeyError), fc.convolution_algorithm("loops"):
        raise KeyError
    assert "platform_index" not in traced("auto", 1)


@pytest.mark.parametrize("wrap", [nnx.jit, nnx.remat])
def test_layers_under_nnx_transformations(wrap):
    layer = fc.GroupFConv(8, 2, 3, 8, padding="SAME", rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, 6, 6, 8, 8)).astype(np.float32))
    ours = nnx.grad(lambda layer, x: jnp.sum(jnp.sin(wrap(lambda layer, x: layer(x))(layer, x))))(layer, x)
    with fc.convolution_algorithm("direct"):
        plain = nnx.grad(lambda layer, x: jnp.sum(jnp.sin(layer(x))))(layer, x)
    assert_equal(ours["coefficients"][...], plain["coefficients"][...])


def test_layers_inside_nnx_scan():
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs):
        return fc.GroupFConv(8, 8, 3, 8, padding="SAME", rngs=rngs)

    layers = make(nnx.Rngs(0))
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, 6, 6, 8, 8)).astype(np.float32))

    def stack(layers, x):
        return jnp.sum(nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, layers))

    ours = nnx.grad(stack)(layers, x)
    with fc.convolution_algorithm("direct"):
        plain = nnx.grad(stack)(layers, x)
    assert_equal(ours["coefficients"][...], plain["coefficients"][...])


def test_it_lowers_for_cuda():
    x, kernel = arrays(36, 7, 8, 3, 64)  # on a CPU: five chunks
    for algorithm in ("auto", "loops", "direct"):
        with fc.convolution_algorithm(algorithm):
            step = jax.jit(jax.grad(functools.partial(loss, functools.partial(fc.convolve, padding=1)), (0, 1)))
            both = jax.export.export(step, platforms=["cpu", "cuda"])(x, kernel)
            only = jax.export.export(step, platforms=["cuda"])(x, kernel).mlir_module()
        assert both.platforms == ("cpu", "cuda")
        assert "stablehlo.convolution" in only
        assert "stablehlo.while" not in only


def test_a_gradient_with_a_symbolic_batch():
    (batch,) = jax.export.symbolic_shape("b")
    x, kernel = arrays(20, 7, 8, 3, 4)
    gradient = jax.jit(jax.grad(functools.partial(loss, fc.convolve), 1))
    shapes = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype), jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
    assert_equal(jax.export.export(gradient)(*shapes).call(x, kernel), gradient(x, kernel))


@pytest.mark.parametrize("kind", ["Explicit", pytest.param("Auto", marks=pytest.mark.long)])
def test_meshes(kind):
    """All layers and pools with the batch spread over two devices, on each kind of axes, forward and backward."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # 90 programs
    command = [sys.executable, "-W", "error", "-m", "tests.fconv_jax.meshes", kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("equal") == len(meshes.CASES) + len(meshes.SHARD_MAPPED)
