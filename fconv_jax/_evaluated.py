"""Parts of a traced network that are computed while it is lowered: constants, and activations to be recognised."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from fconv_jax._lowered_layers import MAX_CONSTANT, NotPlainError
from fconv_jax._traced import bind, inner_program
from fconv_jax.plain import UNARY


def constant(equation, ins) -> list:
    """The results of an equation that does not depend on the images; batch axes become 1."""
    out = equation.outvars[0].aval
    open_sizes = [any(not isinstance(size, int) for size in atom.aval.shape) for atom in equation.invars]
    extreme = equation.primitive.name in ("reduce_max", "reduce_min", "reduce_and", "reduce_or")
    if any(open_sizes) and not extreme and all(isinstance(size, int) for size in out.shape):
        raise NotPlainError(f"{equation.primitive.name} over the batch has no plain form")
    if not all(isinstance(size, int) for size in out.shape):
        axes = equation.params.get("broadcast_dimensions", (0,))
        shape = [size if isinstance(size, int) else 1 for size in out.shape]
        if equation.primitive.name != "broadcast_in_dim" or (np.size(ins[0]) != 1 and 0 in axes):
            raise NotPlainError(f"{equation.primitive.name} of the batch's size has no plain form yet")
        if np.size(ins[0]) == 1:
            return [np.broadcast_to(np.asarray(ins[0]).reshape(()), shape)]
        sides = dict(zip(axes, np.shape(ins[0]), strict=True))
        return [np.broadcast_to(np.reshape(ins[0], [sides.get(axis, 1) for axis in range(len(shape))]), shape)]
    if math.prod(out.shape) > MAX_CONSTANT:
        raise NotPlainError(f"a constant of {math.prod(out.shape):,} numbers is too large")
    try:
        return jax.tree.leaves(bind(equation, *ins))
    except NotImplementedError as error:
        name = equation.primitive.name
        name = "arithmetic with the batch's size" if name == "dim_as_value" else name
        raise NotPlainError(f"{name} has no plain form yet") from error


def activation(name: str, inner, ins, of_images: list[bool]) -> str:
    """The name of the `nnx` function that a program of one array computes, judged by its values; "" if unknown."""
    name = {"relu": "relu", "elu": "elu"}.get(name, "")
    if not name or sum(of_images) != 1 or len(inner.out_avals) != 1:
        return ""
    moving = inner.in_avals[of_images.index(True)]
    numbers = all(moves or np.size(x) == 1 for x, moves in zip(ins, of_images, strict=True))
    if not numbers or inner.out_avals[0].shape != moving.shape:
        return ""
    kind = moving.dtype
    sample = jnp.concatenate([jnp.linspace(-3, 3, 13), jnp.asarray([-1e4, -50, -7, 7, 50, 1e4])]).astype(kind)
    # The equations expect the network's shapes: `_run` skips broadcasts, so that they accept the sample.
    try:
        y = _run(inner, [sample if moves else x for x, moves in zip(ins, of_images, strict=True)])[0]
    except Exception:  # not one number after another: jax may say so in any way
        return ""
    return name if jnp.shape(y) == sample.shape and jnp.allclose(y, UNARY[name](sample), atol=1e-6) else ""


def _run(program, arguments):
    found = dict(zip(program.jaxpr.invars, arguments, strict=True))
    found |= dict(zip(program.jaxpr.constvars, program.consts, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, Literal) else found[atom]

    for equation in program.jaxpr.eqns:
        ins, inner = [read(atom) for atom in equation.invars], inner_program(equation)
        if inner is not None:
            outs = _run(inner, ins)
        elif equation.primitive.name == "broadcast_in_dim":
            outs = ins[:1]
        elif equation.primitive.name == "select_n":
            outs = [jnp.where(ins[0], ins[2], ins[1])]
        else:
            outs = jax.tree.leaves(bind(equation, *ins))
        found |= dict(zip(equation.outvars, outs, strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]
