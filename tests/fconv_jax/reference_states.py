"""State dicts as the PyTorch reference saves them: stored ones, and synthetic ones of any network."""

import numpy as np

import fconv_jax as fc
from tests import goldens

NETWORKS = {"LeNet": "lenet", "F_Conv_LeNet": "lenet_fconv", "AlexNet": "alexnet", "F_Conv_AlexNet": "alexnet_fconv"}
MODES = ("state_dict_eval_mode", "state_dict_train_mode")


def uniform(n, stream):
    """The goldens' own random numbers in [-1, 1), exact on every machine."""
    mask = np.uint64(0xFFFFFFFF)
    offset = np.uint64((stream * 2246822519 + 374761393) & 0xFFFFFFFF)
    x = (np.arange(n, dtype=np.uint64) * np.uint64(2654435761) + offset) & mask
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(2246822519)) & mask
    x ^= x >> np.uint64(13)
    x = (x * np.uint64(3266489917)) & mask
    x ^= x >> np.uint64(16)
    return x.astype(np.float64) / 2.0**31 - 1.0


def stored_parameters(name):
    """The parameters of a network in `models.npz`, by the reference's names."""
    parameters = {}
    for i, (entry, shape) in enumerate(goldens.meta("models")["models"][name]["parameters"]):
        u = uniform(int(np.prod(shape)), 5000 + i)
        gain = 7.5 if entry.endswith("weights") else 1.5
        bias = len(shape) == 1 or entry.endswith(".c")
        w = 0.1 * u if bias else gain * np.sqrt(3 / np.prod(shape[1:])) * u
        parameters[entry] = w.reshape(shape).astype(np.float32)
    return parameters


def stored_state(name, mode=MODES[0]):
    """A state dict as the reference saves it; derived entries hold rubbish, which must not matter."""
    state, parameters = {}, stored_parameters(name)
    for entry, shape, dtype in goldens.meta("models")["models"][name][mode]:
        if entry in parameters:
            state[entry] = parameters[entry]
        elif entry.endswith(".Basis"):
            state[entry] = goldens.load("models")[f"basis_k{shape[0]}_t8_smooth"]
        else:
            state[entry] = np.full(shape, np.nan, dtype)
    return state


def mixed(basis, seed=0):
    """The values of a basis as the reference might have built it: the same span, other functions."""
    mixture, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(basis.rank, basis.rank)))
    return (basis.values @ mixture).astype(np.float32)


def fconv_entries(prefix, basis, sizes, seed=0, bias=True):
    """The entries of an F-Conv layer; `sizes`: out, in, expand."""
    rng = np.random.default_rng(seed)
    bias = rng.normal(size=(1, sizes[0], 1, 1)) if bias else np.zeros((1, sizes[0], 1, 1))
    entries = {f"{prefix}.weights": rng.normal(size=(*sizes, basis.rank)), f"{prefix}.c": bias}
    return {name: value.astype(np.float32) for name, value in entries.items()} | {f"{prefix}.Basis": mixed(basis, seed)}


def norm_entries(rng, prefix, width):
    """The entries of a batch norm."""
    names = ("weight", "bias", "running_mean", "running_var")
    entries = {f"{prefix}.{name}": rng.uniform(0.5, 1.5, width) for name in names}
    return entries | {f"{prefix}.num_batches_tracked": np.array(11468)}


def dense_entries(rng, prefix, outputs, inputs):
    """The entries of a dense layer."""
    return {f"{prefix}.weight": rng.normal(size=(outputs, inputs)), f"{prefix}.bias": rng.normal(size=outputs)}


def lenet_state(seed=0, fconv=True):
    """A checkpoint of `lenet_fconv` (or `lenet`) whose basis is ours, mixed."""
    rng = np.random.default_rng(seed)
    state = dense_entries(rng, "fc1", 120, 2304) | dense_entries(rng, "fc2", 10, 120)
    if fconv:
        state |= fconv_entries("conv1", fc.fourier_basis(5, 8), (2, 1, 1), seed)
    else:
        state |= {"conv1.weight": rng.normal(size=(16, 1, 5, 5)), "conv1.bias": rng.normal(size=16)}
    return {name: value.astype(np.float32) for name, value in state.items()}


def fconv_mnist_state(model, num_layers):
    """A checkpoint of the paper's network in evaluation mode, with all derived entries."""
    rng = np.random.default_rng(0)
    state = {"pool3.filter": np.ones((1, 1, 5, 5))}
    for number in range(1, num_layers + 1):
        conv, prefix = getattr(model, f"conv{number}"), f"block{number}.0"
        sizes = (conv.out_features, conv.in_features, 1 if number == 1 else conv.group.order)
        state |= fconv_entries(prefix, conv.sampled_basis, sizes, number, bias=False) | {f"{prefix}.filter": np.ones(3)}
        state |= norm_entries(rng, f"block{number}.1.BN", conv.out_features)
    width = model.dense1.in_features
    state |= dense_entries(rng, "fully_net.0", width, width) | dense_entries(rng, "fully_net.4", 10, width)
    return state | norm_entries(rng, "fully_net.1", width)
