"""Weights of the reference in our networks: the same filters, the same logits, the same steps, and every bad input."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fconv_jax as fc
from tests import goldens
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import assert_close
from tests.fconv_jax.layer_cases import make, reference_options
from tests.fconv_jax.reference_states import (
    MODES,
    NETWORKS,
    fconv_entries,
    fconv_mnist_state,
    lenet_state,
    stored_parameters,
    stored_state,
)

pytestmark = pytest.mark.unoptimized  # against float64, to tolerances of float32 sums; it takes half the time
LENET_NAMES = {"conv": "conv1", "dense1": "fc1", "dense2": "fc2"}


def snapshot(model):
    return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))


def refused(model, state, *messages, **options):
    """Loading raises one ValueError with all the messages and leaves the model unchanged."""
    before = snapshot(model)
    with pytest.raises(ValueError, match="(?s)" + "".join(f"(?=.*{re.escape(message)})" for message in messages)):
        fc.torch_reference.load_weights(model, state, **options)
    jax.tree.map(np.testing.assert_array_equal, before, snapshot(model))


def create(name, seed=0):
    return fc.models.create(name, rngs=nnx.Rngs(seed))


@pytest.fixture
def lenet_fconv():
    return create("lenet_fconv")


def stored_images(name):
    return (goldens.load(name)["images_u8"].astype(np.float32) / 255)[..., None]


LARGE = {"AlexNet": "long", "F_Conv_AlexNet": "slow"}


@pytest.mark.parametrize(
    "name",  # AlexNet's plain convolutions are those of LeNet
    [pytest.param(name, marks=[getattr(pytest.mark, LARGE[name])] if name in LARGE else []) for name in NETWORKS],
)
def test_logits_equal_the_reference(name):
    model, arrays, images = create(NETWORKS[name]), goldens.load("models"), stored_images("models")
    model.eval()
    for mode in MODES if name == "F_Conv_LeNet" else MODES[:1]:
        fc.torch_reference.load_weights(model, stored_state(name, mode))
        # The reference's own float32 is 1e-6 from its float64; five layers in another order add as much.
        assert_close(model(images), arrays[f"{name}.logits"], 1e-5)
    with jax.enable_x64(True):
        logits = np.asarray(model(jnp.asarray(images, jnp.float64)))
    assert logits.dtype == np.float64
    # Coefficients carried to another basis are rounded to float32 once more: 1e-7, against 1e-15 without.
    assert_close(logits, arrays[f"{name}.logits64"], 1e-6 if "F_Conv" in name else 1e-12)


def test_the_order_of_the_dense_layer_matters(lenet_fconv):
    """Negative control: as if nothing had been flattened."""
    fc.torch_reference.load_weights(lenet_fconv, stored_state("F_Conv_LeNet"), names=LENET_NAMES)
    expected = goldens.load("models")["F_Conv_LeNet.logits"]
    assert np.max(np.abs(lenet_fconv(stored_images("models")) - expected)) > 1e-2 * np.max(np.abs(expected))


@pytest.mark.parametrize("name", ["LeNet", "F_Conv_LeNet"])
def test_five_adam_steps_equal_the_reference(name):
    arrays, parameters = goldens.load("train_steps"), stored_parameters(name)
    images, labels = jnp.asarray(stored_images("train_steps")), jnp.asarray(arrays["labels"])

    def logits(p):
        if name == "LeNet":
            kernel, bias, channels = p["conv1.weight"].transpose(2, 3, 1, 0), p["conv1.bias"], (16,)
        else:
            kernel = fc.lifting_filter(p["conv1.weights"][:, :, 0].transpose(1, 0, 2), arrays["basis_k5_t8_smooth"])
            bias, channels = p["conv1.c"].reshape(-1), (8, 2)
        x = fc.torch_reference.corner_max_pool(jax.nn.relu(fc.convolve_fields(images, kernel) + bias))
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


def assert_filter(layer, kind, state, prefix):
    """The layer's filter is the one that the reference expands from its entries."""
    expanded = oracle.expand(kind, state[f"{prefix}.weights"], state[f"{prefix}.Basis"])
    assert_close(layer.filter(), oracle.kernel(expanded, kind, layer.group.order))


@pytest.mark.parametrize(
    ("kind", "layer_kind", "k", "t", "options", "stored"),
    [
        ("lift", fc.LiftingFConv, 5, 8, {}, None),
        ("lift", fc.LiftingFConv, 5, 8, {}, fc.fourier_basis(5, 8, smooth=False)),
        ("reg", fc.GroupFConv, 3, 4, {"smooth": False}, None),
        ("reg", fc.GroupFConv, 5, 6, {"num_frequencies": 4, "mask": "gaussian"}, None),
        ("out", fc.ProjectingFConv, 4, 8, {"use_bias": False}, None),
        ("out", fc.ProjectingFConv, 7, 12, {"num_frequencies": 5}, None),
        ("lift", fc.LiftingFConv, 5, 8, {"basis": "bicubic"}, None),
    ],
)
def test_filters_are_equal_whatever_basis_is_stored(kind, layer_kind, k, t, options, stored):
    layer = layer_kind(2, 3, k, t, rngs=nnx.Rngs(0), **reference_options(**options))
    sizes = (3, 2, t if kind == "reg" else 1)
    state = fconv_entries("conv", stored or layer.sampled_basis, sizes, seed=k, bias=layer.bias is not None)
    fc.torch_reference.load_weights(layer, state, names={"": "conv"})
    assert_filter(layer, kind, state, "conv")
    if layer.bias is not None:
        np.testing.assert_array_equal(layer.bias[...], state["conv.c"].reshape(-1))


@pytest.mark.parametrize(
    ("name", "num_layers"), [("fconv_mnist_simple", 6), pytest.param("fconv_mnist", 7, marks=pytest.mark.long)]
)
def test_the_papers_networks_are_filled_completely(name, num_layers):
    model = create(name)
    before, state = snapshot(model), fconv_mnist_state(model, num_layers)
    fc.torch_reference.load_weights(model, state)
    for number in (1, num_layers):
        assert_filter(getattr(model, f"conv{number}"), "lift" if number == 1 else "reg", state, f"block{number}.0")
    np.testing.assert_allclose(model.norm2.var[...], state["block2.1.BN.running_var"], rtol=1e-6)
    np.testing.assert_allclose(model.norm.scale[...], state["fully_net.1.weight"], rtol=1e-6)
    np.testing.assert_allclose(model.dense2.kernel[...], state["fully_net.4.weight"].T, rtol=1e-6)
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, before, snapshot(model))))
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
        "conv1.weights holds NaN, infinity",
        "fc1.weight holds NaN, infinity or a number too large for float32",
        "fc1.bias holds NaN",
        "fc2.weight has the shape (120, 10) and must have (10, 120)",
        "fc2.bias is missing",
        "extra.weight has no place",
    )


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        (fc.fourier_basis(5, 8, 4), "conv1.Basis has the shape (5, 5, 8, 23) and must have (5, 5, 8, 25)"),
        (fc.fourier_basis(5, 4), "conv1.Basis has the shape (5, 5, 4, 25)"),
        (fc.fourier_basis(3, 8), "conv1.Basis has the shape (3, 3, 8, 9)"),
        (fc.bicubic_basis(5, 8), "conv1.Basis spans other filters"),
    ],
)
def test_another_span_is_refused(lenet_fconv, basis, message):
    refused(lenet_fconv, lenet_state() | fconv_entries("conv1", basis, (2, 1, 1)), message)


def test_another_mask_is_refused():
    layer = make(fc.LiftingFConv, 1, 2, 3, 8)
    state = fconv_entries("conv", fc.fourier_basis(3, 8, mask="gaussian"), (2, 1, 1))
    refused(layer, state, "conv.Basis spans other filters", "another mask", names={"": "conv"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda basis: np.concatenate([basis[..., :1], basis[..., :1], basis[..., 2:]], -1), "functions are dependent"),
        (lambda basis: np.concatenate([basis[..., :1], 0 * basis[..., :1], basis[..., 2:]], -1), "zero everywhere"),
        (np.zeros_like, "zero everywhere"),
        (None, "conv1.Basis is missing"),
    ],
)
def test_a_basis_that_is_missing_zero_or_repeats_itself_is_refused(lenet_fconv, change, message):
    state = lenet_state()
    basis = state.pop("conv1.Basis")
    refused(lenet_fconv, state if change is None else state | {"conv1.Basis": change(basis)}, message)


@pytest.mark.parametrize(
    ("name", "state", "messages"),
    [
        ("lenet_fconv", lambda: lenet_state(fconv=False), ("conv1.weights is missing", "belong to lenet.")),
        ("lenet", lenet_state, ("conv1.weight is missing", "belong to lenet_fconv.")),
        (
            "lenet_fconv",
            lambda: fconv_mnist_state(create("fconv_mnist_simple"), 6),
            ("fc1.weight is missing", "belong to fconv_mnist_simple."),
        ),
        ("lenet_classic", lenet_state, ("the reference has no network of the modules conv1, conv2",)),
    ],
)
def test_the_wrong_model_is_named(name, state, messages):
    refused(create(name), state(), *messages)


@pytest.mark.parametrize("state", [None, [1, 2], "conv1.weights"])
def test_a_state_that_is_no_mapping_is_refused(lenet_fconv, state):
    refused(lenet_fconv, state, "must map the reference's names to arrays")


@pytest.mark.parametrize(
    "value", [None, "text", np.array([{}]), np.array(["a"]), np.zeros(120, complex), [[1], [2, 3]]]
)
def test_values_that_are_no_arrays_of_numbers_are_refused(lenet_fconv, value):
    refused(lenet_fconv, lenet_state() | {"fc1.bias": value}, "fc1.bias is not an array of real numbers")


def test_a_bias_for_a_layer_without_one_must_be_zero():
    layer = make(fc.LiftingFConv, 1, 2, 5, 8, use_bias=False)
    state = fconv_entries("conv", layer.sampled_basis, (2, 1, 1), bias=False)
    fc.torch_reference.load_weights(layer, state, names={"": "conv"})
    state["conv.c"] += 0.1
    refused(layer, state, "conv.c is not zero", names={"": "conv"})


def test_names_and_flattened_shapes_are_checked(lenet_fconv):
    refused(lenet_fconv, lenet_state(), "'dense2' has no name", names={"conv": "conv1", "dense1": "fc1"})
    refused(lenet_fconv, lenet_state(), "no parameters at 'dense3'", names=LENET_NAMES | {"dense3": "fc3"})
    wrong, given = {"dense1": (12, 12, 8, 3)}, {"dense1": (12, 12, 8, 2)}
    message = "(12, 12, 8, 3) does not give the 2304 inputs"
    refused(lenet_fconv, lenet_state(), message, names=LENET_NAMES, flattened=wrong)
    no_dense = "no dense layer at 'fc1', of flattened"
    refused(lenet_fconv, lenet_state(), no_dense, names=LENET_NAMES, flattened={"fc1": (12, 12, 8, 2)})
    refused(lenet_fconv, lenet_state(), "pass names too", flattened=given)
    own = nnx.Dict(conv=lenet_fconv.conv, dense1=lenet_fconv.dense1, dense2=lenet_fconv.dense2)
    refused(own, lenet_state(), "pass names")  # it may flatten something else
    fc.torch_reference.load_weights(lenet_fconv, lenet_state(), names=LENET_NAMES, flattened=given)
    by_structure = create("lenet_fconv", seed=1)
    fc.torch_reference.load_weights(by_structure, lenet_state())
    jax.tree.map(np.testing.assert_array_equal, snapshot(lenet_fconv), snapshot(by_structure))


def test_a_module_without_a_counterpart_is_named():
    class Normed(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(3, rngs=rngs)

    refused(Normed(nnx.Rngs(0)), {"n.weight": np.ones(3)}, "LayerNorm has no counterpart", names={"norm": "n"})


def test_float64_parameters_take_float64_weights():
    with jax.enable_x64(True):
        layer = make(fc.LiftingFConv, 1, 2, 5, 8, param_dtype=jnp.float64)
        state = fconv_entries("conv", layer.sampled_basis, (2, 1, 1))
        fc.torch_reference.load_weights(layer, state, names={"": "conv"})
        assert layer.coefficients[...].dtype == jnp.float64
