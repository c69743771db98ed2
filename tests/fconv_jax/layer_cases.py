"""Small layers of every kind, and the reference's numbers for them in this library's layout."""

import functools

import jax.numpy as jnp
import numpy as np
from flax import nnx

import fconv_jax as fc
from tests import goldens
from tests.fconv_jax import oracle
from tests.fconv_jax.arrays import noise

# By the names that they have in `goldens/layers.npz`.
SPATIAL = {"lift": fc.LiftingFConv, "reg": fc.GroupFConv, "out": fc.ProjectingFConv}
POINTWISE = {"lift": fc.LiftingPointwiseFConv, "reg": fc.PointwiseFConv}
FILTERS = {"lift": fc.lifting_filter, "reg": fc.group_filter, "out": fc.projecting_filter}
SPATIAL_KINDS, POINTWISE_KINDS = tuple(SPATIAL.values()), tuple(POINTWISE.values())
EVERY = (*SPATIAL_KINDS, *POINTWISE_KINDS)
CASES = [f"{kind}_k{k}_t{t}" for kind in SPATIAL for k in (3, 5) for t in (4, 8)]
CASES += [f"{kind}_k{k}_t{t}_nobias_nosmooth" for kind in ("lift", "reg") for k in (3, 5) for t in (4, 8)]


def make(cls, in_features=2, out_features=3, kernel_size=3, num_rotations=4, *, seed=0, **options):
    """A layer; a pointwise one has no kernel size."""
    sizes = (num_rotations,) if issubclass(cls, fc.PointwiseFConv) else (kernel_size, num_rotations)
    return cls(in_features, out_features, *sizes, rngs=nnx.Rngs(seed), **options)


def noise_for(layer, *shape, seed=0):
    """White noise `[*shape, (t), in]` for a layer."""
    lifting = isinstance(layer, fc.LiftingFConv | fc.LiftingPointwiseFConv)
    axes = (layer.in_features,) if lifting else (layer.num_rotations, layer.in_features)
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
