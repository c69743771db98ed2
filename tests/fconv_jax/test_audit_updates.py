"""An audit's second measurement changes what an update changes: parameters and statistics."""

import jax.numpy as jnp
import pytest
from flax import nnx

import fconv_jax as fc
from fconv_jax.models.stages import mean_over_space
from tests.fconv_jax.test_audit import audit

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]


class Masked(nnx.Module):
    """A fixed mask, a norm with small variances and, if asked for, a position embedding that is still zero."""

    def __init__(self, embedded=False):
        self.mask = nnx.Variable(fc.disk_mask(6)[..., None])
        self.conv = fc.LiftingFConv(1, 4, 3, 4, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
        self.norm.var[...] = jnp.asarray([0.01, 0.02, 0.01, 4.0])
        self.embedding = nnx.Param(jnp.zeros((6, 6, 4, 4))) if embedded else None

    def __call__(self, x):
        x = self.norm(self.conv(x * self.mask[...]))
        x = x if self.embedding is None else x + self.embedding[...]
        return fc.max_over_group(x).mean(axis=(1, 2))


@pytest.mark.parametrize("embedded", [False, True])
def test_what_an_update_leaves_as_it_is_stays(embedded):
    report = audit(Masked(embedded), (6, 6, 1))
    assert report.first_break is None
    assert len(report.warnings) == embedded
    assert all("not after an update" in line and "position encoding" in line for line in report.warnings)


def test_statistics_by_position_are_warned_of():
    rngs = nnx.Rngs(0)
    norm = nnx.BatchNorm(6, axis=1, use_scale=False, use_bias=False, rngs=rngs)  # of each row of pixels
    model = nnx.Sequential(fc.LiftingFConv(1, 4, 3, 4, rngs=rngs), norm, fc.max_over_group, mean_over_space)
    report = audit(model, (6, 6, 1))
    assert report.first_break is None
    assert "not after an update" in report.warnings[0]
