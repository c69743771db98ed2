"""Trained weights of the PyTorch reference, in our networks.

The reference stores, for each F-Conv layer, coefficients `weights` and the `Basis` they belong
to.  Our basis is canonical, theirs depends on the machine that built it: the same space, other
functions.  With A the stored basis and B ours, A = B M for one matrix M if they span the same
space; then A w = B (M w), and M w are our coefficients of the same filter.
"""

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax.layers import GroupFConv, LiftingFConv, ProjectingFConv
from fconv_jax.torch_reference.change_of_basis import change_of_basis

# Our modules' paths and the reference's names, a table a network; where it flattens: (conv, dense layer).
_LENET = {"conv": "conv1", "dense1": "fc1", "dense2": "fc2"}
_ALEXNET = {f"conv{i}": f"features.{n}" for i, n in enumerate((0, 3, 6, 8, 10), start=1)}
_ALEXNET |= {f"dense{i}": f"classifier.{n}" for i, n in enumerate((1, 4, 6), start=1)}


def _fconv_mnist(num_layers):
    numbers = range(1, num_layers + 1)
    names = {f"conv{i}": f"block{i}.0" for i in numbers} | {f"norm{i}": f"block{i}.1.BN" for i in numbers}
    return names | {"dense1": "fully_net.0", "norm": "fully_net.1", "dense2": "fully_net.4"}


_FLATTENING = ("conv", "dense1"), ("conv5", "dense1"), None, None
_NETWORKS = tuple(zip((_LENET, _ALEXNET, _fconv_mnist(6), _fconv_mnist(7)), _FLATTENING, strict=True))
# An entry that tells whose weights they are, the first that fits.
_TELLING_ENTRIES = {
    "block7.0.weights": "fconv_mnist",
    "block1.0.weights": "fconv_mnist_simple",
    "features.0.weights": "alexnet_fconv",
    "features.0.weight": "alexnet",
    "conv1.weights": "lenet_fconv",
    "conv1.weight": "lenet",
}


def load_weights(
    model: nnx.Module,
    state: Mapping[str, np.ndarray],
    *,
    names: Mapping[str, str] | None = None,
    flattened: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Fills `model` in place with the reference's weights; filters are equal to 1e-5 (relative, float32).

    Entries that the reference derives from others (`filter`, an F-Conv layer's expanded `bias`,
    `num_batches_tracked`) may be there or not, and a bias `c` of zeros for a layer without one.
    All or nothing: on an error the model is unchanged.

    Args:
      model: a network of `fconv_jax.models` that the reference has (`lenet`, `lenet_fconv`,
        `alexnet`, `alexnet_fconv`, `fconv_mnist_simple`, `fconv_mnist`), or any other with `names`.
      state: the reference's names (`conv1.weights`, `conv1.c`, `conv1.Basis`, `fc1.weight`, ...) to arrays.
      names: for a network of your own, the path of each of its modules with parameters (attributes
        joined by dots, `""` for the model itself) and the reference's name of that module (or `""`).
      flattened: with `names`, for each dense layer that follows a flattened image or field, its
        path and the shape that was flattened: `(height, width, channel)` or `(height, width, t,
        feature)`.  The reference flattens (channel, row, column), we row, column, channel.

    Raises:
      ValueError: one that lists all that is wrong: missing, extra or misshapen entries, values
        that are not finite, a stored basis with another span, a network the reference lacks.

    >>> import numpy as np, fconv_jax
    >>> from flax import nnx
    >>> layer = fconv_jax.LiftingFConv(1, 2, 5, basis=fconv_jax.Fourier("all", mask="adaptive"), rngs=nnx.Rngs(0))
    >>> stored = np.flip(layer.sampled_basis.values, -1)
    >>> state = {"conv1.weights": np.ones((2, 1, 1, 25)), "conv1.c": np.ones((1, 2, 1, 1)), "conv1.Basis": stored}
    >>> fconv_jax.torch_reference.load_weights(layer, state, names={"": "conv1"})
    >>> bool(np.allclose(layer.coefficients[...], 1.0, atol=1e-5))
    True
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"state (a {type(state).__name__}) must map the reference's names to arrays")
    modules = _modules_with_parameters(model)
    if names is None and flattened:
        raise ValueError("flattened is for a network of your own: pass names too")
    names, flattened = _published(model, modules) if names is None else (names, flattened or {})
    reader = _Reader(state)
    reader.skip("pool3.filter")  # the Gaussian, a formula
    reader.problems += [f"the network's module {path!r} has no name" for path in sorted(set(modules) - set(names))]
    reader.problems += [f"the network has no parameters at {path!r}" for path in sorted(set(names) - set(modules))]
    dense = {path for path, module in modules.items() if isinstance(module, nnx.Linear)}
    reader.problems += [f"no dense layer at {path!r}, of flattened" for path in sorted(set(flattened) - dense)]
    updates = []
    for path, module in modules.items():
        if path in names:
            updates += _convert(module, names[path], flattened.get(path), reader)
    reader.finish()
    for parameter, value in updates:
        parameter[...] = value


class _Reader:
    """Takes entries out of a state, checks them and collects what is wrong instead of raising."""

    def __init__(self, state):
        self.problems = []
        self._state = {str(name): _as_array(value) for name, value in state.items()}
        self._used = set()

    def __contains__(self, name):
        return name in self._state

    def take(self, name, shape, dtype=np.float32, hint=""):
        """The entry as float64, or zeros where it cannot be used (and the problem is noted)."""
        self._used.add(name)
        shape = tuple(shape)
        problem, value = self._problem(name, shape, dtype), self._state.get(name)
        if problem or value is None:
            self.problems.append(f"{name} {problem}{hint}")
            return np.zeros(shape)
        return value.astype(np.float64)

    def _problem(self, name, shape, dtype):
        if name not in self:
            return f"is missing (shape {shape})"
        value = self._state[name]
        if value is None:
            return "is not an array of real numbers"
        if value.shape != shape:
            return f"has the shape {value.shape} and must have {shape}"
        if not np.all(np.abs(value.astype(np.float64)) <= float(jnp.finfo(dtype).max)):  # false for NaN too
            return f"holds NaN, infinity or a number too large for {jnp.dtype(dtype).name}"
        return ""

    def refuse(self, prefix, why):
        """Notes that a whole module cannot be loaded; returns no pairs of variables and values."""
        self.problems.append(f"{prefix}*: {why}")
        return []

    def skip(self, *names):
        """Marks entries as known: derived from others, or without a meaning here."""
        self._used.update(names)

    def finish(self):
        extra = sorted(set(self._state) - self._used)
        self.problems += [f"{name} has no place in this network" for name in extra]
        if not self.problems:
            return
        listed = "\n  ".join(self.problems)
        likely = next((model for name, model in _TELLING_ENTRIES.items() if name in self), None)
        hint = "" if likely is None else f"\nEntries with these names belong to {likely}."
        raise ValueError(f"the weights do not fit the network, which is unchanged:\n  {listed}{hint}")


def _as_array(value):
    try:
        array = np.asarray(value)
        return array if array.dtype.kind in "fiub" or array.dtype == jnp.bfloat16 else None
    except (TypeError, ValueError, RuntimeError):  # for example a tensor that requires gradients
        return None


def _modules_with_parameters(model):
    """The modules that own parameters or statistics, by path (attributes joined by dots)."""
    owned = (nnx.Param, nnx.BatchStat)
    return {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if any(isinstance(value, owned) for value in vars(module).values())
    }


def _published(model, modules):
    """The (names, flattened) of the published network that has these modules; another may flatten something else."""
    is_ours = type(model).__module__.startswith("fconv_jax.models.")
    for names, flatten in _NETWORKS:
        if is_ours and set(names) == set(modules):
            return names, {} if flatten is None else {flatten[1]: _flattened_shape(modules, *flatten)}
    raise ValueError(f"the reference has no network of the modules {', '.join(modules)}: pass names")


def _flattened_shape(modules, conv, dense):
    conv, inputs = modules[conv], modules[dense].in_features
    channels = (conv.group.order,) if isinstance(conv, LiftingFConv | GroupFConv) else ()
    channels = (*channels, conv.out_features)
    side = math.isqrt(inputs // math.prod(channels))
    return (side, side, *channels)


def _convert(module, prefix, flattened, reader):
    """(parameter, new value) pairs of one module; what is wrong is noted in `reader`."""
    prefix = f"{prefix}." if prefix else ""
    for kind, converter in _CONVERTERS.items():
        if isinstance(module, kind):
            new = converter(module, prefix, flattened, reader)
            return [(parameter, jnp.asarray(value, parameter[...].dtype)) for parameter, value in new]
    return reader.refuse(prefix, f"a {type(module).__name__} has no counterpart in the reference")


def _convert_fconv(layer, prefix, _, reader):
    ours, shape = layer.sampled_basis, layer.coefficients[...].shape
    expand = layer.group.order if isinstance(layer, GroupFConv) else 1
    if layer.group.reflections or layer.feature_group_count > 1:
        return reader.refuse(prefix, "the reference has neither reflections nor feature groups")
    if len(shape) != (4 if isinstance(layer, GroupFConv) else 3):
        return reader.refuse(prefix, f"a stack of layers (coefficients {shape}) has no place in the reference")
    hint = " for this layer's kernel size, rotations, frequencies and mask"
    num_problems = len(reader.problems)
    if layer.kernel_size == 1:  # the reference's 1 x 1 layers store no basis
        change = np.ones((1, 1))
    else:
        theirs = reader.take(f"{prefix}Basis", ours.values.shape, hint=hint)
        change = np.zeros((ours.rank, ours.rank))
    if layer.kernel_size > 1 and len(reader.problems) == num_problems:
        change = change_of_basis(theirs, ours.values, f"{prefix}Basis", reader)
    weights = reader.take(
        f"{prefix}weights", (layer.out_features, layer.in_features, expand, ours.rank), layer.coefficients[...].dtype
    )
    reader.skip(f"{prefix}filter", f"{prefix}bias")
    # weights [out, in, a, r'] -> coefficients [a, in, out, r]
    coefficients = np.einsum("sr,mnar->anms", change, weights).reshape(shape)
    return [(layer.coefficients, coefficients), *_convert_feature_bias(layer, prefix, reader)]


def _convert_feature_bias(layer, prefix, reader):
    name, shape = f"{prefix}c", (1, layer.out_features, 1, 1)
    if layer.bias is not None:
        return [(layer.bias, reader.take(name, shape, layer.bias[...].dtype).reshape(-1))]
    if name in reader and np.any(reader.take(name, shape)):
        reader.problems.append(f"{name} is not zero, and the layer has no bias")
    return []


def _convert_conv(layer, prefix, _, reader):
    kernel = layer.kernel[...]
    if kernel.ndim != 4:
        return reader.refuse(prefix, f"a convolution with a kernel {kernel.shape} has no place in the reference")
    rows, columns, in_features, out_features = kernel.shape
    weight = reader.take(f"{prefix}weight", (out_features, in_features, rows, columns), kernel.dtype)
    return [(layer.kernel, weight.transpose(2, 3, 1, 0)), *_convert_plain_bias(layer, prefix, reader)]


def _convert_dense(layer, prefix, flattened, reader):
    kernel = layer.kernel[...]
    weight = reader.take(f"{prefix}weight", kernel.shape[::-1], kernel.dtype).T
    if flattened is not None:
        weight = _reorder_rows(weight, flattened, prefix, reader)
    return [(layer.kernel, weight), *_convert_plain_bias(layer, prefix, reader)]


def _reorder_rows(weight, shape, prefix, reader):
    """Rows of (channel, row, column) with channel = feature t + rotation -> (row, column, [rotation,] feature)."""
    height, width, *rest = shape
    if int(np.prod(shape)) != weight.shape[0] or len(rest) not in (1, 2):
        reader.problems.append(
            f"flattened shape {tuple(shape)} does not give the {weight.shape[0]} inputs of {prefix}weight"
        )
        return weight
    theirs = weight.reshape(*reversed(rest), height, width, -1)
    order = (1, 2, 0, 3) if len(rest) == 1 else (2, 3, 1, 0, 4)
    return theirs.transpose(order).reshape(weight.shape)


def _convert_plain_bias(layer, prefix, reader):
    if layer.bias is None:
        return []
    return [(layer.bias, reader.take(f"{prefix}bias", layer.bias[...].shape, layer.bias[...].dtype))]


def _convert_batch_norm(layer, prefix, _, reader):
    pairs = ((layer.scale, "weight"), (layer.bias, "bias"), (layer.mean, "running_mean"), (layer.var, "running_var"))
    reader.skip(f"{prefix}num_batches_tracked")
    return [(p, reader.take(f"{prefix}{name}", p[...].shape, p[...].dtype)) for p, name in pairs if p is not None]


_CONVERTERS = {
    LiftingFConv | GroupFConv | ProjectingFConv: _convert_fconv,
    nnx.Conv: _convert_conv,
    nnx.Linear: _convert_dense,
    nnx.BatchNorm: _convert_batch_norm,
}
