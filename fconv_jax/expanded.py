"""A network with its filters expanded once: plain convolutions in place of F-Conv layers."""

from typing import TypeGuard

import jax
from flax import nnx

from fconv_jax._lowered_layers import is_a
from fconv_jax.layers import _FConv


class ExpandedFConv(_FConv):
    """An F-Conv layer as the convolution that it is, with the expanded filter as its parameter.

        y = convolve_fields(x, kernel, bias),   kernel = layer.filter().

    Law: the layer's, as long as the kernel is the filter of some coefficients; training the kernel itself leaves them.

    Parameters: `kernel` (shapes: `fconv_jax.filters`), `bias` `[out]`.
    """

    def __init__(self, layer: _FConv):
        for name, value in vars(layer).items():  # the layer's options
            if name not in ("coefficients", "bias") and not name.startswith("_"):
                setattr(self, name, value)
        self._from_field, self._to_field = layer._from_field, layer._to_field  # pyright: ignore
        self.kernel = _like(layer.coefficients, layer.filter())
        self.bias = None if layer.bias is None else _like(layer.bias, layer.bias[...])

    def filter(self) -> jax.Array:
        """Returns the kernel."""
        return self.kernel[...]


def _like(variable, value):
    """A variable of the same kind: a frozen layer's are no `Param`, and under hijax the kind is no class."""
    return getattr(variable, "var_type", type(variable))(value)


def expand_filters(model: nnx.Module) -> nnx.Module:
    """Returns a copy of `model` in which each lifting, group and projecting F-Conv layer is an `ExpandedFConv`.

    The copy computes the same and no longer expands filters at each call: for a network in use, or
    to expand once for several slices of a batch.  Works under jax transformations, so gradients pass through, and on
    stacks of networks or layers made by `nnx.vmap` (along axis 0).

    Args:
      model: any module; if it is a layer itself, the result is the expanded layer.  Subclasses of layers with a call of
        their own stay as they are.

    >>> import jax, fconv_jax
    >>> from flax import nnx
    >>> model = fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0))
    >>> expanded = fconv_jax.expand_filters(model)
    >>> expanded.conv.kernel.shape
    (5, 5, 1, 8, 2)
    """
    if _to_expand(model):
        return ExpandedFConv(model)
    model = nnx.clone(model)
    modules = [module for _, module in nnx.iter_modules(model)]
    expanded = {id(module): ExpandedFConv(module) for module in modules if _to_expand(module)}  # once, if shared
    for module in modules:
        if isinstance(module, nnx.List):
            for i, child in enumerate(module):
                other = _replaced(child, expanded)
                if other is not child:
                    module[i] = other if isinstance(other, nnx.Module) else nnx.data(other)
            continue
        for name, child in list(vars(module).items()):
            other = _replaced(child, expanded)
            if other is not child:
                setattr(module, name, other if isinstance(other, nnx.Module) else nnx.data(other))
    return model


def _replaced(value, expanded):
    """An attribute, or a tuple, list or dict in one, with expanded layers; itself if it holds none."""
    if id(value) in expanded:
        return expanded[id(value)]
    if type(value) not in (tuple, list, dict):
        return value
    entries = value if isinstance(value, dict) else dict(enumerate(value))
    others = {key: _replaced(entry, expanded) for key, entry in entries.items()}
    if all(others[key] is entry for key, entry in entries.items()):
        return value
    return others if isinstance(value, dict) else type(value)(others.values())


def _to_expand(module) -> TypeGuard[_FConv]:
    """A subclass with a call of its own stays as it is: it may do more than its filter."""
    return is_a(module, _FConv) and not isinstance(module, ExpandedFConv)
