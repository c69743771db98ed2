"""docs/group.md: its examples run, and its two wrong ways are wrong."""

import pathlib
import re

import jax.numpy as jnp
from flax import nnx

PAGE = (pathlib.Path(__file__).parents[1] / "docs/group.md").read_text(encoding="utf-8")


def test_the_examples_run():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "group.md", "exec"), names)
    assert names["field"].shape == (1, 17, 17, 4, 16)


def test_flax_pools_a_field_over_the_group():
    assert nnx.max_pool(jnp.zeros((1, 8, 8, 4, 2)), (2, 2)).shape == (1, 8, 7, 3, 2)
