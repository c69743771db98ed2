"""Initialisers of F-Conv layers: functions of (key, shape, dtype, facts).

A layer also takes any initialiser of jax, a function of (key, shape, dtype); one of your own gets the layer's facts
where it has an argument of that name, or a fourth one without a default.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable

import jax
import numpy as np

from fconv_jax.basis import FourierBasis
from fconv_jax.draws import draw
from fconv_jax.group import Group

Initializer = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class LayerFacts:
    """What a layer tells its initialiser.

    Attributes:
      in_features: that one filter sees, in / feature_group_count.
      group, basis: the layer's group and its sampled basis (of r functions).
      from_field, to_field: whether input and output have a group axis.
    """

    in_features: int
    group: Group
    basis: FourierBasis
    from_field: bool
    to_field: bool

    @property
    def fan_in(self) -> int:
        """The coefficients that one output number sees: in r, times the group's order in a group layer."""
        return self.in_features * self.basis.rank * (self.group.order if self.from_field and self.to_field else 1)


def he() -> Initializer:
    """Uniform coefficients with which the layer keeps the variance as a He-initialised plain kernel does.

    An output pixel of white noise has the variance n in sum_r var(c_r) |B_r|^2, |B_r|^2 the sum over pixels and
    elements, n = 1/g in a lifting layer (it sees one element of g) and 1 in the others.  This variance becomes 2.
    Functions get equal shares: then the filters' covariance on the span is that of a plain kernel, and smooth images
    keep their variance too.  A projecting layer also sums over the elements, and what they share (much, after a ReLU)
    adds coherently, so there a function counts with the square of its sum over elements where that is larger.
    """
    return _he


def he_smooth() -> Initializer:
    """Uniform coefficients that keep the variance of smooth images, most of it in functions that rotate well.

    Coefficients are proportional to the smoothing weights w_r.  Their size keeps the mean square of what deep layers
    see behind ReLUs, images that hardly vary within a kernel, unless white noise would then grow more than they do:

        var(c_r) = v w_r^2,     0.9 n in v max(sum_r w_r^2 S_r, sum_r w_r^2 N_r) = 2,     S_r = sum_e (sum_ij B_r)^2,

    with n as in `he` and S_r = (sum_eij B_r)^2 in a projecting layer; N_r = |B_r|^2, there the larger of this and the
    sum over pixels of (sum_e B_r)^2.  Noise decides for kernels of 2 x 2 and for all frequencies with few pixels (with
    3 x 3 of C8 it would grow sixteenfold a layer); smooth images then shrink.

    `he` gives functions that smoothing damps their full share: two layers of 3 x 3 at 45 degrees then have an error of
    0.19, with these 0.01.  0.9 is measured, since images do vary: over twenty layers of 3 x 3 and 32 features the mean
    square keeps its size, 0.87 times the first's (geometric mean of 16 draws, which scatter by a factor of 5).  Narrow
    networks shrink, to 0.3 with 16 features and 0.03 with 8 (`he`: 0.8 and 0.4): use a norm (results/preset.md).
    """
    return _he_smooth


def torch_reference() -> Initializer:
    """The PyTorch reference's: uniform within +-1 / sqrt(fan_in), coefficients and, given as `bias_init`, biases."""
    return _torch_reference


def xie() -> Initializer:
    """The paper's: coefficients U(-1, 1) sqrt(6 / (in r)) weights, the smoothing weight of each function.

    Functions that the pixel grid changes much when they are rotated start small.  (Xie et al. 2022, section 4.)
    """
    return _xie


def _noise_shares(facts):
    """What a unit of variance of each coefficient adds to that of an output pixel of white noise (see `he`)."""
    values = facts.basis.values.astype(np.float64)
    energies = np.sum(values**2, axis=(0, 1, 2))
    coherent = np.sum(np.sum(values, axis=2) ** 2, axis=(0, 1))
    return energies, energies if facts.to_field else np.maximum(energies, coherent)


def _seen(facts):
    """Features and elements that an output number sees."""
    return facts.in_features * (1.0 if facts.from_field else 1.0 / facts.group.order)


def _he(key, shape, dtype, facts):
    energies, norms = _noise_shares(facts)
    variances = 2.0 / (_seen(facts) * np.sum(energies / norms)) / norms
    return _uniform(key, shape, dtype, math.sqrt(3.0) * np.sqrt(variances))


def _he_smooth(key, shape, dtype, facts):
    weights, sums = facts.basis.weights, np.sum(facts.basis.values.astype(np.float64), axis=(0, 1))  # [g, r]
    smooth = np.sum(weights**2 * (np.sum(sums**2, axis=0) if facts.to_field else np.sum(sums, axis=0) ** 2))
    noise = np.sum(weights**2 * _noise_shares(facts)[1])
    most = noise if noise > 1.000001 * smooth else smooth  # where both are equal but for rounding, draws stay the same
    return _uniform(key, shape, dtype, math.sqrt(6.0 / (0.9 * _seen(facts) * most)) * weights)


def _torch_reference(key, shape, dtype, facts):
    return _uniform(key, shape, dtype, 1.0 / math.sqrt(facts.fan_in))


def _xie(key, shape, dtype, facts):
    bound = math.sqrt(6.0 / (facts.in_features * facts.basis.rank))
    return _uniform(key, shape, dtype, bound * facts.basis.weights)


def _uniform(key, shape, dtype, bound):
    return draw(jax.random.uniform, key, shape, dtype, -1.0, 1.0, scale=bound)


def initialize(name: str, function: Initializer, key: jax.Array, shape, dtype, facts: LayerFacts) -> jax.Array:
    """Returns the numbers that an initialiser gives for a layer.

    Raises:
      ValueError: not a function, for example a name of version 0.1.
    """
    if not callable(function):
        raise ValueError(f"{name} (={function!r}) must be a function such as fconv_jax.initializers.he()")
    asks, by_position = _asks_for_facts(function)
    if by_position:  # wrappers such as `nnx.with_partitioning` pass on no names
        return function(key, shape, dtype, facts)
    return function(key, shape, dtype, facts=facts) if asks else function(key, shape, dtype)


def _asks_for_facts(function):
    """Whether a function takes `facts`: by that name, or as a fourth argument that it requires; and whether as that."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # no function, or one of which nothing can be told
        return False, False
    fourth = [*parameters.values()][3:4]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    is_fourth = (
        bool(fourth)
        and fourth[0].kind in positional
        and (fourth[0].name == "facts" or fourth[0].default is inspect.Parameter.empty)
    )
    return "facts" in parameters, is_fourth
