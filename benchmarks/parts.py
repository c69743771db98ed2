"""Where a LeNet's training time goes: the parts of its gradient alone, microseconds an image.

    taskset -c 0 python -m benchmarks.parts

Each part is a compiled program of its own on one slice of images, as the training step computes them.
"""

import time

from experiments.training import devices

SLICE, SECONDS = 16, 1.0


def main() -> None:
    """Prints a line for each part."""
    devices.configure("lenet")
    import jax
    import jax.numpy as jnp

    import fconv_jax

    draw = jax.random.normal
    key = jax.random.key(0)
    images, kernel = draw(key, (SLICE, 28, 28, 1)), draw(key, (5, 5, 1, 16))
    pooled, maps = draw(key, (SLICE, 12, 12, 16)), draw(key, (SLICE, 24, 24, 16))
    wide, narrow = draw(key, (2304, 120)), draw(key, (120, 10))
    features, logits = draw(key, (SLICE, 2304)), draw(key, (SLICE, 10))

    def convolution(kernel):
        return fconv_jax.convolve(images, kernel)

    def pool(maps):
        return fconv_jax.torch_reference.corner_max_pool(jax.nn.relu(maps))

    def dense(wide, narrow, features):
        return jax.nn.relu(features @ wide) @ narrow

    def gradient(function, cotangent):
        return lambda *args: jax.vjp(function, *args)[1](cotangent)

    parts = {
        "convolution": (convolution, (kernel,)),
        "ReLU and pool, forward and backward": (gradient(pool, pooled), (maps,)),
        "convolution, ReLU and pool, forward and backward": (
            gradient(lambda kernel: pool(convolution(kernel)), pooled), (kernel,),
        ),
        "dense layers, forward and backward": (gradient(dense, logits), (wide, narrow, features)),
        "adding a slice's gradient to the sum": (jnp.add, (wide, 2 * wide)),
    }  # fmt: skip
    for name, (function, arguments) in parts.items():
        print(f"{name}: {1e6 * _seconds(jax.jit(function), arguments) / SLICE:.1f} us an image")


def _seconds(function, arguments):
    import jax

    jax.block_until_ready(function(*arguments))
    count, began = 0, time.monotonic()
    while time.monotonic() - began < SECONDS:
        jax.block_until_ready(function(*arguments))
        count += 1
    return (time.monotonic() - began) / count


if __name__ == "__main__":
    main()
