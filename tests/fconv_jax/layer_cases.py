"""Small layers of every kind, and the reference's numbers for them in this library's layout."""

import functools

import jax.numpy as jnp
import numpy as np
from flax import nnx

import fconv_jax as fc
from tests import goldens
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import noise


class Lifting1x1(fc.LiftingFConv):
    """`make` gives it a kernel of 1 x 1."""


class Group1x1(fc.GroupFConv):
    """`make` gives it a kernel of 1 x 1."""


INITS = {"he": fc.initializers.he(), "report": fc.initializers.torch_reference(), "paper": fc.initializers.xie()}
BIAS_INITS = {"report": fc.initializers.torch_reference()}


# By the names that they have in `goldens/layers.npz`.
SPATIAL = {"lift": fc.LiftingFConv, "reg": fc.GroupFConv, "out": fc.ProjectingFConv}
POINTWISE = {"lift": Lifting1x1, "reg": Group1x1}
FILTERS = {"lift": fc.lifting_filter, "reg": fc.group_filter, "out": fc.projecting_filter}
SPATIAL_KINDS, POINTWISE_KINDS = tuple(SPATIAL.values()), tuple(POINTWISE.values())
EVERY = (*SPATIAL_KINDS, *POINTWISE_KINDS)
CASES = [f"{kind}_k{k}_t{t}" for kind in SPATIAL for k in (3, 5) for t in (4, 8)]
CASES += [f"{kind}_k{k}_t{t}_nobias_nosmooth" for kind in ("lift", "reg") for k in (3, 5) for t in (4, 8)]


def reference_options(*, basis="fourier", num_frequencies=None, smooth=True, mask="adaptive", init="he", **options):
    """A layer's options by the reference's words, with the reference's defaults."""
    frequencies = "all" if num_frequencies is None else num_frequencies
    chosen = fc.Fourier(frequencies, smooth=smooth, mask=mask) if basis == "fourier" else fc.Bicubic()
    inits = {"coefficient_init": INITS[init], "bias_init": BIAS_INITS.get(init, nnx.initializers.zeros)}
    return {"padding": "VALID", "basis": chosen, **inits, **options}


def make(cls, in_features=2, out_features=3, kernel_size=3, num_rotations=4, *, seed=0, **options):
    """A layer with `reference_options`."""
    kernel_size = 1 if cls in POINTWISE_KINDS else kernel_size
    sizes = (in_features, out_features, kernel_size, num_rotations)
    return cls(*sizes, rngs=nnx.Rngs(seed), **reference_options(**options))


def noise_for(layer, *shape, seed=0):
    """White noise `[*shape, (t), in]` for a layer."""
    lifting = isinstance(layer, fc.LiftingFConv)
    axes = (layer.in_features,) if lifting else (layer.group.order, layer.in_features)
    return noise(*shape, *axes, seed=seed)


class Golden:
    """One case of `layers.npz`."""

    def __init__(self, case):
        arrays, self.case = goldens.load("layers"), case
        self.kind = case.removeprefix("conv1x1_").split("_")[0]
        self.t = t = int(case.split("_t")[1].split("_")[0])
        layout_in = oracle.images if self.kind == "lift" else functools.partial(oracle.fields, t=t)
        layout_out = oracle.images if self.kind == "out" else functools.partial(oracle.fields, t=t)
        self.padding, self.weights = int(arrays[f"{case}.padding"]), arrays[f"{case}.weights"]
        self.x, self.grad_x = layout_in(arrays[f"{case}.x"]), layout_in(arrays[f"{case}.grad_x"])
        self.y, self.cotangent = layout_out(arrays[f"{case}.y_train"]), layout_out(arrays[f"{case}.cotangent"])
        self.coefficients = oracle.coefficients(self.weights, self.kind)
        self.grad_coefficients = oracle.coefficients(arrays[f"{case}.grad_weights"], self.kind)
        self.bias = self.grad_bias = None
        if f"{case}.c" in arrays:
            self.bias, self.grad_bias = (arrays[f"{case}.{name}"].reshape(-1) for name in ("c", "grad_c"))
            np.testing.assert_array_equal(arrays[f"{case}.y_eval"], arrays[f"{case}.y_train"])
        self.basis, self.filter = arrays.get(f"{case}.basis"), arrays.get(f"{case}.filter")

    def layer(self, **options):
        """A layer of the case's sizes, with fresh coefficients and the case's bias."""
        layer = make(
            SPATIAL[self.kind],
            *self.coefficients.shape[-3:-1],
            self.basis.shape[0],
            self.t,
            padding=self.padding,
            use_bias=self.bias is not None,
            **options,
        )
        if self.bias is not None:
            layer.bias[...] = jnp.asarray(self.bias)
        return layer
