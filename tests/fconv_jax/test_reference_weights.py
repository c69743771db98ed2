"""Weights of the reference in our networks: the same filters, the same logits, the same steps, and every bad input."""

import io
import json
import pickle
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax
from fconv_jax import models

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


def stored_parameters(names_and_shapes):
    parameters = {}
    for i, (name, shape) in enumerate(names_and_shapes):
        u = uniform(int(np.prod(shape)), 5000 + i)
        gain = 7.5 if name.endswith("weights") else 1.5
        bias = len(shape) == 1 or name.endswith(".c")
        w = 0.1 * u if bias else gain * np.sqrt(3 / np.prod(shape[1:])) * u
        parameters[name] = w.reshape(shape).astype(np.float32)
    return parameters


def stored_network(golden_file, name):
    """The (parameters, full listing by mode) of a network in `models.npz`."""
    meta = json.loads(str(golden_file["meta_json"]))["models"][name]
    return stored_parameters(meta["parameters"]), {mode: meta[mode] for mode in MODES}


def stored_state(golden_file, name, mode):
    """A state dict as the reference saves it; derived entries hold rubbish, which must not matter."""
    parameters, listings = stored_network(golden_file, name)
    state = {}
    for entry, shape, dtype in listings[mode]:
        if entry in parameters:
            state[entry] = parameters[entry]
        elif entry.endswith(".Basis"):
            state[entry] = golden_file[f"basis_k{shape[0]}_t8_smooth"]
        else:
            state[entry] = np.full(shape, np.nan, dtype)
    return state


@pytest.fixture(scope="module")
def golden_models(goldens):
    return goldens("models")


def lenet_state(seed=0, fconv=True):
    """A synthetic checkpoint of `lenet_fconv` (or `lenet`) whose basis is ours, mixed by a random turn."""
    rng = np.random.default_rng(seed)
    state = {
        "fc1.weight": rng.normal(size=(120, 2304)),
        "fc1.bias": rng.normal(size=120),
        "fc2.weight": rng.normal(size=(10, 120)),
        "fc2.bias": rng.normal(size=10),
    }
    if fconv:
        state |= fconv_entries("conv1", fconv_jax.fourier_basis(5, 8), (2, 1, 1), seed)
    else:
        state |= {"conv1.weight": rng.normal(size=(16, 1, 5, 5)), "conv1.bias": rng.normal(size=16)}
    return {name: value.astype(np.float32) for name, value in state.items()}


def fconv_entries(prefix, basis, sizes, seed, bias=True):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(basis.rank, basis.rank)))
    entries = {
        f"{prefix}.weights": rng.normal(size=(*sizes, basis.rank)),
        f"{prefix}.Basis": basis.values @ turn,
        f"{prefix}.c": rng.normal(size=(1, sizes[0], 1, 1)) if bias else np.zeros((1, sizes[0], 1, 1)),
    }
    return {name: value.astype(np.float32) for name, value in entries.items()}


def snapshot(model):
    return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))


def refused(model, state, *messages, **options):
    """Loading raises one ValueError with all the messages and leaves the model unchanged."""
    before = snapshot(model)
    with pytest.raises(ValueError) as error:
        fconv_jax.load_reference_weights(model, state, **options)
    for message in messages:
        assert message in str(error.value)
    jax.tree.map(np.testing.assert_array_equal, before, snapshot(model))


@pytest.fixture
def lenet_fconv():
    return models.create("lenet_fconv", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_equal_the_reference(golden_models, name):
    model = models.create(NETWORKS[name], rngs=nnx.Rngs(0))
    model.eval()
    images = (golden_models["images_u8"].astype(np.float32) / 255)[..., None]
    expected, exact = golden_models[f"{name}.logits"], golden_models[f"{name}.logits64"]
    for mode in MODES if name == "F_Conv_LeNet" else MODES[:1]:
        fconv_jax.load_reference_weights(model, stored_state(golden_models, name, mode))
        # The reference's own float32 is 1e-6 from its float64; five layers in another order add as much.
        assert np.max(np.abs(model(images) - expected)) < 1e-5 * np.max(np.abs(expected))
    with jax.enable_x64(True):
        logits = np.asarray(model(jnp.asarray(images, jnp.float64)))
    assert logits.dtype == np.float64
    # Coefficients carried to another basis are rounded to float32 once more: 1e-7, against 1e-15 without.
    assert np.max(np.abs(logits - exact)) < (1e-6 if "F_Conv" in name else 1e-12) * np.max(np.abs(exact))


def test_the_order_of_the_dense_layer_matters(golden_models, lenet_fconv):
    state = stored_state(golden_models, "F_Conv_LeNet", MODES[0])
    names = {"conv": "conv1", "dense1": "fc1", "dense2": "fc2"}
    fconv_jax.load_reference_weights(lenet_fconv, state, names=names)  # as if nothing had been flattened
    images = (golden_models["images_u8"].astype(np.float32) / 255)[..., None]
    expected = golden_models["F_Conv_LeNet.logits"]
    assert np.max(np.abs(lenet_fconv(images) - expected)) > 1e-2 * np.max(np.abs(expected))


@pytest.mark.parametrize("name", ["LeNet", "F_Conv_LeNet"])
def test_five_adam_steps_equal_the_reference(goldens, name):
    arrays = goldens("train_steps")
    parameters = stored_network(goldens("models"), name)[0]
    basis = arrays["basis_k5_t8_smooth"]
    images = jnp.asarray(arrays["images_u8"].astype(np.float32) / 255)[..., None]
    labels = jnp.asarray(arrays["labels"])

    def logits(p):
        if name == "LeNet":
            kernel, bias, channels = p["conv1.weight"].transpose(2, 3, 1, 0), p["conv1.bias"], (16,)
        else:
            kernel = fconv_jax.lifting_filter(p["conv1.weights"][:, :, 0].transpose(1, 0, 2), basis)
            bias, channels = p["conv1.c"].reshape(-1), (8, 2)
        x = fconv_jax.corner_max_pool(jax.nn.relu(fconv_jax.convolve_fields(images, kernel) + bias))
        x = jnp.moveaxis(x, (1, 2), (-2, -1))  # channels first, then rows and columns
        x = x.swapaxes(1, 2) if len(channels) == 2 else x  # feature, then rotation
        x = jax.nn.relu(x.reshape(len(images), -1) @ p["fc1.weight"].T + p["fc1.bias"])
        return x @ p["fc2.weight"].T + p["fc2.bias"]

    @jax.jit
    def loss(p):
        return -jnp.mean(jax.nn.log_softmax(logits(p))[jnp.arange(len(labels)), labels])

    first, losses, gradient_norms = parameters, [], None
    m = v = {key: jnp.zeros_like(value) for key, value in parameters.items()}
    gradient_of = jax.jit(jax.grad(loss))
    for step in range(1, 6):
        losses.append(float(loss(parameters)))
        g = gradient_of(parameters)
        gradient_norms = gradient_norms or [np.linalg.norm(value) for value in g.values()]
        m = {key: 0.9 * m[key] + 0.1 * g[key] for key in g}
        v = {key: 0.999 * v[key] + 0.001 * g[key] ** 2 for key in g}
        scale = {key: jnp.sqrt(v[key] / (1 - 0.999**step)) + 1e-8 for key in g}
        parameters = {key: parameters[key] - 2e-4 * (m[key] / (1 - 0.9**step)) / scale[key] for key in g}
    losses.append(float(loss(parameters)))

    assert list(g) == sorted(g)  # jax sorts names; so must what is compared
    order = np.argsort(arrays[f"{name}.param_names"])
    changes = [np.linalg.norm(parameters[key] - first[key]) for key in g]
    norms = [np.linalg.norm(parameters[key]) for key in g]
    np.testing.assert_allclose(losses, arrays[f"{name}.loss64"], rtol=1e-4)
    np.testing.assert_allclose(gradient_norms, arrays[f"{name}.grad_norm_step164"][order], rtol=1e-4)
    np.testing.assert_allclose(norms, arrays[f"{name}.param_norm_after64"][order], rtol=1e-5)
    np.testing.assert_allclose(changes, arrays[f"{name}.param_delta_norm64"][order], rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "layer_kind", "k", "t", "options"),
    [
        ("lift", fconv_jax.LiftingFConv, 5, 8, {}),
        ("reg", fconv_jax.GroupFConv, 3, 4, {"smooth": False}),
        ("reg", fconv_jax.GroupFConv, 5, 6, {"num_frequencies": 4, "mask": "gaussian"}),
        ("out", fconv_jax.ProjectingFConv, 4, 8, {"use_bias": False}),
        ("out", fconv_jax.ProjectingFConv, 7, 12, {"num_frequencies": 5}),
        ("lift", fconv_jax.LiftingFConv, 5, 8, {"basis": "bicubic"}),
    ],
)
def test_filters_are_equal_whatever_basis_is_stored(oracle, kind, layer_kind, k, t, options):
    layer = layer_kind(2, 3, k, t, rngs=nnx.Rngs(0), **options)
    sizes = (3, 2, t if kind == "reg" else 1)
    state = fconv_entries("conv", layer.fourier_basis, sizes, seed=k, bias=layer.bias is not None)
    fconv_jax.load_reference_weights(layer, state, names={"": "conv"})
    expected = oracle.kernel(oracle.expand(kind, state["conv.weights"], state["conv.Basis"]), kind, t)
    assert np.max(np.abs(layer.filter() - expected)) < 1e-5 * np.max(np.abs(expected))
    if layer.bias is not None:
        np.testing.assert_array_equal(layer.bias[...], state["conv.c"].reshape(-1))


def test_an_unsmoothed_basis_spans_the_same_filters(oracle):
    layer = fconv_jax.LiftingFConv(1, 2, 5, 8, rngs=nnx.Rngs(0))
    state = fconv_entries("conv", fconv_jax.fourier_basis(5, 8, smooth=False), (2, 1, 1), seed=0)
    fconv_jax.load_reference_weights(layer, state, names={"": "conv"})
    expected = oracle.kernel(oracle.expand("lift", state["conv.weights"], state["conv.Basis"]), "lift", 8)
    assert np.max(np.abs(layer.filter() - expected)) < 1e-5 * np.max(np.abs(expected))


def fconv_mnist_state(model, num_layers):
    """A synthetic checkpoint in evaluation mode, with all derived entries."""
    rng = np.random.default_rng(0)
    state = {"pool3.filter": np.ones((1, 1, 5, 5))}
    for number in range(1, num_layers + 1):
        conv, prefix = getattr(model, f"conv{number}"), f"block{number}.0"
        expand = 1 if number == 1 else conv.num_rotations
        sizes = (conv.out_features, conv.in_features, expand)
        state |= fconv_entries(prefix, conv.fourier_basis, sizes, number, bias=False) | {f"{prefix}.filter": np.ones(3)}
        state |= norm_entries(rng, f"block{number}.1.BN", conv.out_features)
    width = conv.out_features
    state |= {"fully_net.0.weight": rng.normal(size=(width, width)), "fully_net.0.bias": rng.normal(size=width)}
    state |= norm_entries(rng, "fully_net.1", width)
    return state | {"fully_net.4.weight": rng.normal(size=(10, width)), "fully_net.4.bias": rng.normal(size=10)}


def norm_entries(rng, prefix, width):
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}.{name}": rng.uniform(0.5, 1.5, width) for name in names} | {
        f"{prefix}.num_batches_tracked": np.array(11468)
    }


@pytest.mark.parametrize(("name", "num_layers"), [("fconv_mnist_simple", 6), ("fconv_mnist", 7)])
def test_the_papers_networks_are_filled_completely(oracle, name, num_layers):
    model = models.create(name, rngs=nnx.Rngs(0))
    before = snapshot(model)
    state = fconv_mnist_state(model, num_layers)
    fconv_jax.load_reference_weights(model, state)
    for number in (1, num_layers):
        conv, kind = getattr(model, f"conv{number}"), "lift" if number == 1 else "reg"
        weights, basis = state[f"block{number}.0.weights"], state[f"block{number}.0.Basis"]
        expected = oracle.kernel(oracle.expand(kind, weights, basis), kind, conv.num_rotations)
        assert np.max(np.abs(conv.filter() - expected)) < 1e-5 * np.max(np.abs(expected))
    np.testing.assert_allclose(model.norm2.var[...], state["block2.1.BN.running_var"], rtol=1e-6)
    np.testing.assert_allclose(model.norm.scale[...], state["fully_net.1.weight"], rtol=1e-6)
    np.testing.assert_allclose(model.dense2.kernel[...], state["fully_net.4.weight"].T, rtol=1e-6)
    jax.tree.map(lambda old, new: np.testing.assert_(not np.array_equal(old, new)), before, snapshot(model))
    model.eval()
    assert np.all(np.isfinite(model(np.ones((1, 28, 28, 1), np.float32))))


def test_all_that_is_wrong_is_in_one_error(lenet_fconv):
    state = lenet_state()
    del state["fc2.bias"]
    state["fc2.weight"] = state["fc2.weight"].T
    state["fc1.bias"][3] = np.nan
    state["conv1.weights"][0, 0, 0, 0] = np.inf
    state["extra.weight"] = np.zeros(3)
    state["fc1.weight"] = np.full((120, 2304), 1e300)
    refused(
        lenet_fconv,
        state,
        "fc2.bias is missing",
        "fc2.weight has the shape (120, 10) and must have (10, 120)",
        "fc1.bias holds NaN",
        "conv1.weights holds NaN, infinity",
        "extra.weight has no place",
        "fc1.weight holds NaN, infinity or a number too large for float32",
    )


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        (fconv_jax.fourier_basis(5, 8, 4), "conv1.Basis has the shape (5, 5, 8, 23) and must have (5, 5, 8, 25)"),
        (fconv_jax.fourier_basis(5, 4), "conv1.Basis has the shape (5, 5, 4, 25)"),
        (fconv_jax.fourier_basis(3, 8), "conv1.Basis has the shape (3, 3, 8, 9)"),
        (fconv_jax.bicubic_basis(5, 8), "conv1.Basis spans other filters"),
    ],
)
def test_another_span_is_refused(lenet_fconv, basis, message):
    refused(lenet_fconv, lenet_state() | fconv_entries("conv1", basis, (2, 1, 1), 0), message)


def test_another_mask_is_refused():
    layer = fconv_jax.LiftingFConv(1, 2, 3, 8, rngs=nnx.Rngs(0))
    state = fconv_entries("conv", fconv_jax.fourier_basis(3, 8, mask="gaussian"), (2, 1, 1), 0)
    refused(layer, state, "conv.Basis spans other filters", "another mask", names={"": "conv"})


def test_a_basis_that_is_missing_zero_or_repeats_itself_is_refused(lenet_fconv):
    state = lenet_state()
    repeated = state["conv1.Basis"].copy()
    repeated[..., 1] = repeated[..., 0]
    empty = state["conv1.Basis"].copy()
    empty[..., 1] = 0.0
    refused(lenet_fconv, state | {"conv1.Basis": repeated}, "its functions are dependent")
    refused(lenet_fconv, state | {"conv1.Basis": empty}, "zero everywhere")
    refused(lenet_fconv, state | {"conv1.Basis": np.zeros_like(empty)}, "zero everywhere")
    del state["conv1.Basis"]
    refused(lenet_fconv, state, "conv1.Basis is missing")


def test_the_wrong_model_is_named(lenet_fconv):
    refused(lenet_fconv, lenet_state(fconv=False), "conv1.weights is missing", "belong to lenet.")
    refused(
        models.create("lenet", rngs=nnx.Rngs(0)), lenet_state(), "conv1.weight is missing", "belong to lenet_fconv."
    )
    simple = models.create("fconv_mnist_simple", rngs=nnx.Rngs(0))
    refused(lenet_fconv, fconv_mnist_state(simple, 6), "fc1.weight is missing", "belong to fconv_mnist_simple.")
    classic = models.create("lenet_classic", rngs=nnx.Rngs(0))
    refused(classic, lenet_state(), "the reference has no network of the modules conv1, conv2")


@pytest.mark.parametrize("state", [None, [1, 2], "conv1.weights"])
def test_a_state_that_is_no_mapping_is_refused(lenet_fconv, state):
    refused(lenet_fconv, state, "must map the reference's names to arrays")


@pytest.mark.parametrize(
    "value", [None, "text", np.array([{}]), np.array(["a"]), np.zeros(120, complex), [[1], [2, 3]]]
)
def test_values_that_are_no_arrays_of_numbers_are_refused(lenet_fconv, value):
    refused(lenet_fconv, lenet_state() | {"fc1.bias": value}, "fc1.bias is not an array of real numbers")


def test_a_bias_for_a_layer_without_one_must_be_zero():
    layer = fconv_jax.LiftingFConv(1, 2, 5, use_bias=False, rngs=nnx.Rngs(0))
    state = fconv_entries("conv", layer.fourier_basis, (2, 1, 1), 0, bias=False)
    fconv_jax.load_reference_weights(layer, state, names={"": "conv"})
    state["conv.c"] += 0.1
    refused(layer, state, "conv.c is not zero", names={"": "conv"})


def test_names_and_flattened_shapes_are_checked(lenet_fconv):
    refused(lenet_fconv, lenet_state(), "'dense2' has no name", names={"conv": "conv1", "dense1": "fc1"})
    names = {"conv": "conv1", "dense1": "fc1", "dense2": "fc2"}
    refused(lenet_fconv, lenet_state(), "no parameters at 'dense3'", names=names | {"dense3": "fc3"})
    wrong = {"dense1": (12, 12, 8, 3)}
    refused(lenet_fconv, lenet_state(), "(12, 12, 8, 3) does not give the 2304 inputs", names=names, flattened=wrong)
    given = {"dense1": (12, 12, 8, 2)}
    fconv_jax.load_reference_weights(lenet_fconv, lenet_state(), names=names, flattened=given)
    by_structure = models.create("lenet_fconv", rngs=nnx.Rngs(1))
    fconv_jax.load_reference_weights(by_structure, lenet_state())
    jax.tree.map(np.testing.assert_array_equal, snapshot(lenet_fconv), snapshot(by_structure))


def test_a_module_without_a_counterpart_is_named():
    class Normed(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(3, rngs=rngs)

    refused(Normed(nnx.Rngs(0)), {"n.weight": np.ones(3)}, "LayerNorm has no counterpart", names={"norm": "n"})


def test_an_npz_round_trip(tmp_path, lenet_fconv):
    path = tmp_path / "weights.npz"
    np.savez(path, **{f"module.{name}": value for name, value in lenet_state().items()})
    state = fconv_jax.read_reference_checkpoint(path)
    assert set(state) == set(lenet_state())
    fconv_jax.load_reference_weights(lenet_fconv, state)
    np.testing.assert_array_equal(lenet_fconv.dense2.bias[...], lenet_state()["fc2.bias"])


class Trap:
    """Unpickled, it creates the file that it names."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def damaged_files(folder):
    """(file name, content, message) of everything that is no checkpoint."""
    trap = Trap(folder / "executed")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([trap], dtype=object))
    whole = io.BytesIO()
    np.savez(whole, **lenet_state())
    torch_like = io.BytesIO()
    with zipfile.ZipFile(torch_like, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": trap}, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return {
        "pickled.npz": buffer.getvalue(),
        "bare_pickle.npz": pickle.dumps({"a": trap}),
        "cut.npz": whole.getvalue()[:1000],
        "empty.npz": b"",
        "text.npz": b"hello",
        "pickled.pt": torch_like.getvalue(),
        "bare_pickle.pt": pickle.dumps({"a": trap}, protocol=2),
        "empty.pt": b"",
        "text.pth": b"hello",
        "weights.txt": b"hello",
        "weights": b"hello",
    }


@pytest.mark.parametrize(
    "name",
    [
        "pickled.npz",
        "bare_pickle.npz",
        "cut.npz",
        "empty.npz",
        "text.npz",
        "pickled.pt",
        "bare_pickle.pt",
        "empty.pt",
        "text.pth",
        "weights.txt",
        "weights",
        "missing.npz",
        "missing.pt",
    ],
)
def test_what_is_no_checkpoint_is_one_error_and_never_executed(tmp_path, name):
    content = damaged_files(tmp_path).get(name)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        fconv_jax.read_reference_checkpoint(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_a_pt_file_without_pytorch_says_how_to_read_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pt").write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"needs PyTorch .*fconv_jax\[torch\]"):
        fconv_jax.read_reference_checkpoint(tmp_path / "weights.pt")


def test_pytorch_files_are_read(tmp_path, lenet_fconv):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value) for name, value in lenet_state().items()}
    state["fc2.bias"] = torch.nn.Parameter(state["fc2.bias"])
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "weights.pt")
    read = fconv_jax.read_reference_checkpoint(tmp_path / "weights.pt")
    fconv_jax.load_reference_weights(lenet_fconv, read)
    np.testing.assert_array_equal(lenet_fconv.dense2.bias[...], lenet_state()["fc2.bias"])
    torch.save({"a": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "half.pt")
    assert fconv_jax.read_reference_checkpoint(tmp_path / "half.pt")["a"].dtype == np.float32
    for name, content in (("tensor.pt", torch.zeros(3)), ("numbers.pt", {"a": 3})):
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match="it holds a"):
            fconv_jax.read_reference_checkpoint(tmp_path / name)


def test_float64_parameters_take_float64_weights():
    with jax.enable_x64(True):
        layer = fconv_jax.LiftingFConv(1, 2, 5, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        state = fconv_entries("conv", layer.fourier_basis, (2, 1, 1), seed=0)
        fconv_jax.load_reference_weights(layer, state, names={"": "conv"})
        assert layer.coefficients[...].dtype == jnp.float64
