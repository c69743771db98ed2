"""Exports networks for other programs: as stock Flax layers, ONNX or StableHLO."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax import _lowering
from fconv_jax._checks import whole
from fconv_jax.convolve import convolution_algorithm
from fconv_jax.plain import PlainNetwork

__all__ = ["PlainNetwork", "to_onnx", "to_plain", "to_stablehlo"]


def to_plain(model: nnx.Module, input_shape: tuple[int, int, int] | None = None) -> PlainNetwork:
    """Returns a network of stock Flax layers that computes what `model` does in evaluation.

    F-Conv layers become `nnx.Conv` with their expanded filters, group and channels one axis (element e's channel c is
    e C + c); a batch norm behind one becomes part of it; pools and sums stay operations between the layers.  There is
    no choice between backends.  It computes in float32; outputs of a float32 network agree to 1e-6 relative.

    The result is a module of its own: train it (it is equivariant only as long as its kernels are expanded filters), or
    use it without this package: `network.description` and its state, with a copy of the file `fconv_jax/plain.py`,
    which imports jax and flax alone.

    Args:
      model: a network of `fconv_jax.models`, or any other of this library's layers, pools and blocks, stock
        convolutions, dense layers, batch and layer norms, `nnx.max_pool` and `nnx.avg_pool`, and between them
        sums and products, comparisons and `jnp.where`, exponentials, roots, sines, the activations made of these, and
        sums, means and extremes over space or the group.
      input_shape: (height, width, channel) of the images; `None` for a network that knows it (all of
        `fconv_jax.models`).  A network for images of any size stays one: it is traced at three other sizes.  If its
        Python code does something else at yet others, let its attribute `input_shape` say its one size.

    Returns:
      an `fconv_jax.plain.PlainNetwork`.

    Raises:
      ValueError: one line that names what has no plain form (a scan, attention, another norm), or an impossible shape.

    >>> import fconv_jax
    >>> from flax import nnx
    >>> model = fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0))
    >>> plain = fconv_jax.export.to_plain(model)
    >>> type(plain.layers["conv"]).__name__, plain.layers["conv"].kernel.shape
    ('Conv', (5, 5, 1, 16))
    """
    model = _evaluated(model)
    shape, any_size = _input_shape(model, input_shape)
    if isinstance(model, PlainNetwork):
        return nnx.clone(model)
    with _one_program(shape):
        lowering = _lowering.lowered(model, shape, any_size)
    network = PlainNetwork(json.dumps(lowering.description(), default=int))
    for name, arrays in lowering.arrays.items():
        for kind, array in arrays.items():
            getattr(network.layers[name], kind)[...] = jnp.asarray(array)
    for name, array in lowering.constants.items():
        network.constants[name][...] = jnp.asarray(array)
    return network


def to_onnx(
    model: nnx.Module,
    path: str | os.PathLike,
    input_shape: tuple[int, int, int] | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    float16: bool = False,
) -> None:
    """Writes a network as an ONNX file: images `[batch, height, width, channel]` to its output, batch dynamic.

    The graph is that of `to_plain`: Conv nodes and element-wise operations, opset 20, IR version 10, float32.  Its
    input is named "images"; its output is "logits" (`[batch, classes]`) or "output".

    Args:
      model: as for `to_plain`.
      input_shape: (height, width, channel), the one size of the file; `None` for a network that has one size.
      path: of the file, which is replaced.
      metadata: texts that the file carries, such as its classes.
      float16: stores the weights in half of the bytes; they are widened when the file is loaded (error about 1e-3).

    Raises:
      ValueError: what `to_plain` refuses, a path that cannot be written, or a weight that float16 cannot hold.
      ImportError: without onnx (`pip install onnx`).
    """
    try:
        from fconv_jax import _onnx  # needs the optional package onnx
    except ImportError as error:
        raise ImportError("ONNX files need onnx: pip install onnx") from error
    shape = _one_size(model, input_shape)
    contents = _onnx.encoded(to_plain(model, input_shape), shape, dict(metadata or {}), float16)
    try:
        _write(pathlib.Path(path), contents)
    except OSError as error:
        raise ValueError(f"path (={path}) cannot be written: {error.strerror}") from error


def to_stablehlo(
    model: nnx.Module, input_shape: tuple[int, int, int] | None = None, platforms: Sequence[str] = ("cpu", "cuda")
) -> bytes:
    """Returns a network as `jax.export` serialises it: StableHLO with its weights, the batch symbolic.

    `jax.export.deserialize(data).call(images)` computes it, with jax alone.  Newer versions of jax read such files for
    six months; for keeping, use ONNX or safetensors.

    Args:
      model: any network that `jax.jit` can trace.
      input_shape: as for `to_onnx`.
      platforms: for which it is compiled when it is called.

    Raises:
      ValueError: an impossible shape or platform.
    """
    model = _evaluated(model)
    shape = _one_size(model, input_shape)
    (batch,) = jax.export.symbolic_shape("b")
    known = ("cpu", "cuda", "rocm", "tpu")
    if not platforms or any(platform not in known for platform in platforms):
        raise ValueError(f"platforms (={platforms!r}) must be some of {', '.join(known)}")
    graphdef, state = nnx.split(model)
    program = jax.jit(lambda images: nnx.merge(graphdef, state, copy=True)(images))  # a call may set its variables
    with convolution_algorithm("direct"), _one_program(shape):
        exported = jax.export.export(program, platforms=tuple(platforms))(
            jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
        )
    return bytes(exported.serialize())


def _write(path, contents):
    """Writes a file whole or not at all; writes to anything but a plain file, such as /dev/stdout, in place."""
    if path.exists() and not (path.is_file() and not path.is_symlink()):
        path.write_bytes(contents)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(contents)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _one_program(shape):
    """Explains jax's errors about a network whose Python code depends on the images' values or their number."""
    try:
        yield
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise ValueError("the network's Python code looks at the images: write it with jax.numpy.where") from error
    except jax.errors.InconclusiveDimensionOperation as error:
        raise ValueError("the network's Python code looks at the batch's size, which a file leaves open") from error
    except TypeError as error:  # of flax and jax, about axes that do not fit
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"the network does not take images of input_shape (={shape}): {text}") from error


def _evaluated(model):
    if not isinstance(model, nnx.Module):
        raise ValueError(f"model of type {type(model).__name__} must be an nnx.Module")
    model = nnx.with_vars(model, hijax=False, ref=False, allow_duplicates=True)  # programs hold arrays
    return nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)


def _one_size(model, given):
    """The (height, width, channel) of a file."""
    shape, any_size = _input_shape(model, given)
    if given is None and any_size:
        raise ValueError("input_shape (=None) must be (height, width, channel): a file is for one size of images")
    return shape


def _input_shape(model, given) -> tuple[tuple[int, int, int], bool]:
    """(height, width, channel), and whether the network is for images of any size."""
    known = getattr(model, "input_shape", None)
    if not _is_shape(known):
        known = None  # an attribute with another meaning
    if given is None and known is None:
        raise ValueError("input_shape (=None) must be (height, width, channel): the network does not say it")
    any_size = known is None or known[0] is None
    if given is None:
        size = getattr(model, "smallest_size", 32)
        height, width, channel = known  # pyright: ignore
        return (int(height or size), int(width or size), int(channel)), any_size
    if np.ndim(given) != 1 or len(given) != 3:
        raise ValueError(f"input_shape (={given!r}) must be (height, width, channel)")
    height, width, channel = (whole("input_shape", size) for size in given)
    shape = (height, width, channel)
    if known is not None and any(want not in (None, have) for want, have in zip(known, shape, strict=True)):
        raise ValueError(f"input_shape (={shape}) must be {tuple(known)}, as the network says")
    return shape, any_size


def _is_shape(sizes):
    """Whether an attribute can be (height, width, channel), `None` for any."""
    of_three = isinstance(sizes, list | tuple) and len(sizes) == 3
    return of_three and all(size is None or isinstance(size, int) for size in sizes)
