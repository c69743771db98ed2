"""An audit at work: a network's program on images and on changed copies of them, and the report of each stage."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from fconv_jax._precision import norm, tolerance, widened
from fconv_jax._traced import Cause, Value, Walk, each
from fconv_jax.draws import draw
from fconv_jax.group import group_of
from fconv_jax.reasons import CUTS, NOT_FINITE, of_cause, of_layer
from fconv_jax.symmetry import TOLERANCE, are_vectors, difference, kinds_of, moved


@dataclasses.dataclass(frozen=True)
class StageReport:
    """What one stage does.  Errors are |f(R x) - R f(x)| / |R f(x)|, R a rotation.

    Attributes:
      name, shape: of the stage and of its output for one image.
      error: at a quarter turn, f the network up to and with this stage; infinite where f is not finite.
      own_error: at a quarter turn, f this stage alone on white noise of the shape that it gets (its
        real input may be all zeros, where every stage would pass).
      mirror_error: as `error`, for the mirror image; NaN without reflections.
      free_errors: {angle: as `error`, inside a disk}; NaN where a field has no rotation by that angle.
      signal: |y - mean of y over the images| / |y|, the part of the output that depends on the image.
      reason: why it breaks quarter turns; empty if it does not.
      tolerance: an error up to this is rounding in the types of this stage and those before.
    """

    name: str
    shape: tuple[int, ...]
    error: float
    own_error: float
    free_errors: dict[float, float]
    signal: float
    reason: str
    tolerance: float = TOLERANCE
    mirror_error: float = math.nan

    @property
    def breaks_mirrors(self) -> bool:
        """Whether mirror images are lost here, with this stage or before it."""
        return self.mirror_error > self.tolerance


class Run(Walk):
    """Runs a network on images, rotated images, images in a disk, those rotated by `angles`, and mirrored images."""

    def __init__(self, net, angles=(), margin=None, mirrored=False):
        super().__init__(net)
        self.angles, self.margin, self.mirrored, self.calls = angles, margin, mirrored, 0
        self.reports, self.before, self.rounding, self.last = [], "the input", TOLERANCE, None
        # C8 and D4 have as many elements: where a network has both, a field is of the one that it fits better.
        self.choices = [dict(zip(net.groups, each, strict=True)) for each in itertools.product(*net.groups.values())]

    def network(self, lanes, kind):
        """The reports of a network's stages."""
        outs = self.program(self.net.jaxpr, [Value(lanes, True)])
        if not outs:
            raise ValueError("the network returns no array")
        if kind is None and len(outs) == 1 and outs[0] is self.last:
            return self.reports
        before = self.before
        for i, (out, each_kind) in enumerate(zip(outs, kinds_of(self.net.output, kind), strict=True)):
            self.before, own = before, math.nan if _is_oblong(out) else 0.0
            name = "output" if len(outs) == 1 else f"output {i}"
            self.report(name, out, [out], own, "", each_kind, is_cut=_is_cut(out, 1))
        return self.reports

    def lost(self, value):
        """Whether a value has lost the rotation, as far as its axes can tell."""
        return not self.error(value, 1) <= max(self.rounding, _rounding(value))

    def stage(self, stage, ins, inner):
        """The results of a stage; adds its report."""
        x = next(value for value in [*ins[stage.first :], *ins] if value.depends)
        outs = each(stage.function, ins)
        self.calls += 1
        own = _least(self.own_error(stage, ins, x, outs, groups) for groups in self.fitting(stage))
        # NaN where an image becomes a field without this rotation, or a map one that is not square.
        no_map = math.isnan(own) and not _is_oblong(x) and (len(x.shape) == 4 or any(map(_is_oblong, outs)))
        lost = own > _rounding(x, *outs) or no_map or self.loses(ins, outs)
        why = self.why(stage, ins, x, outs, inner) if lost else ""
        from_field = getattr(stage.stage, "_from_field", None)  # an F-Conv layer, which takes any number of batch axes
        is_cut = from_field is not None and _is_cut(x, len(x.shape) - (4 if from_field else 3))
        self.report(stage.name + self.suffix, x, outs, own, why, is_cut=is_cut)
        return outs

    def loses(self, ins, outs):
        """Whether a stage gets what is rotated and gives what is not, far above rounding: noise may not show it."""
        if not any(self.error(out, 1) > _FAR * _rounding(out) for out in outs):
            return False
        return all(self.error(value, 1) <= _rounding(value) for value in ins if value.depends)

    def fitting(self, stage):
        """The choices of groups in which a layer's own group is chosen."""
        own = group_of(stage.stage)
        return [groups for groups in self.choices if own is None or groups.get(own.order, own) == own]

    def own_error(self, stage, ins, x, outs, groups):
        """The error of a stage alone; NaN if its input cannot be rotated."""
        found = []
        # Two images of noise; all, for a stage that needs the whole batch; the real ones, where noise has no logarithm.
        for count in (2, x.shape[0], 0):
            on_noise = self.on_noise(stage, ins, x, groups, count)
            if not on_noise or any(map(_is_oblong, [x, *outs])):
                return math.nan
            try:
                found = each(stage.function, on_noise)
            except (TypeError, ValueError):
                if count != 2:
                    raise
                continue
            if _are_finite(found) or not _are_finite(outs):
                break
        return _most(self.error(y, 1, choices=[groups]) for y in found)

    def on_noise(self, stage, ins, x, groups, count=2):
        """A stage's inputs, upright and rotated, with `count` images of white noise for x (0: x itself).

        `None` if they cannot be rotated.
        """
        noise = x.lane(0)
        if count and jnp.issubdtype(noise.dtype, jnp.floating):  # other inputs belong to the whole batch
            count = count if len(ins) - stage.first == 1 else x.shape[0]
            noise = draw(jax.random.normal, jax.random.key(self.calls), (count, *x.shape[1:]), noise.dtype)
        given = [noise if value is x else value.lane(0) for value in ins]
        try:
            rotated = [
                moved(y, 90, *self.known(y, groups)) if value is x or (value.depends and _turns(y, groups)) else y
                for value, y in zip(ins, given, strict=True)
            ]
        except ValueError:
            return None
        return [Value((y, z), value.depends) for y, z, value in zip(given, rotated, ins, strict=True)]

    def why(self, stage, ins, x, outs, inner):
        """The reason why a stage breaks quarter turns."""
        if not _are_finite(outs):
            return NOT_FINITE
        words = of_layer(stage, x.shape, outs[0].shape)
        on_noise = self.on_noise(stage, ins, x, self.fitting(stage)[0], count=x.shape[0])
        if words or not inner or not on_noise:
            return words or of_cause(Cause.of(stage.stage, x, ins) if inner is None else None, outs[0].shape)
        run = Run(self.net)
        outs = run.program(inner, on_noise)
        return next((report.reason for report in run.reports if report.reason), of_cause(outs[0].cause, outs[0].shape))

    def report(self, name, x, outs, own, reason, kind=None, *, is_cut=False):
        """Adds a stage's report, and before it one for the code in between if quarter turns break there.

        `is_cut`: whether x is a map cut at one side, which a quarter turn does not fit.
        """
        intact = not any(report.error > report.tolerance or report.reason for report in self.reports)
        error = self.error(x, 1, kind=kind)
        self.rounding = max(self.rounding, _rounding(x))
        if intact and (error > self.rounding or is_cut):
            before = f"between {self.before} and {name}"
            self.add(before, [x], error, of_cause(x.cause, x.shape), kind)
        self.rounding = max(self.rounding, _rounding(x, *outs))
        self.add(name, outs, own, reason, kind)
        self.before, self.last = name, outs[0]

    def add(self, name, outs, own, reason, kind):
        error = _most(self.error(out, 1, kind=kind) for out in outs)
        free = {
            angle: _most(self.error(out, i, 2, angle, self.margin, kind) for out in outs)
            for i, angle in enumerate(self.angles, start=3)
        }
        signal = _most(float(_signal(out.lane(0))) for out in outs)
        report = StageReport(name, outs[0].shape[1:], error, own, free, signal, reason, self.rounding)
        if self.mirrored:
            mirror = _most(self.error(out, -1, angle=0, kind=kind, mirror=True) for out in outs)
            report = dataclasses.replace(report, mirror_error=mirror)
        self.reports.append(report)

    def known(self, x, groups, kind=None):
        """The kind of an array and its group."""
        return "vector" if are_vectors(x, groups, kind) else kind, groups.get(x.shape[-2] if x.ndim > 1 else 0)

    def error(self, value, i, j=0, angle=90, margin=None, kind=None, mirror=False, choices=()):
        """|lane i - R lane j| / |R lane j|; NaN for a field without rotation by this angle, infinite if not finite."""
        if _is_oblong(value):
            return math.nan
        upright = value.lane(j)
        known = dict.fromkeys(self.known(upright, groups, kind) for groups in choices or self.choices)

        def of(kind, group):
            try:
                error = float(difference(value.lane(i), upright, angle, kind, group, mirror, margin))
            except ValueError:
                return math.nan
            return math.inf if math.isnan(error) else error

        return _least(of(*each) for each in known)


_FITS = 0.1  # far above rounding, far below the error of a field that is read as one of another group


_FAR = 100.0


def _are_finite(values):
    return all(bool(jnp.isfinite(value.lane(0)).all()) for value in values)


def _turns(x, groups):
    """Whether an array beside a stage's first one is a map, or a field after pooling over space."""
    return x.ndim in (4, 5) or (x.ndim == 3 and x.shape[1] in groups)


def _least(errors):
    """The error of the group that fits; NaN where none does and one has no such rotation: it may be that one."""
    errors = [*errors]
    least = min(errors, key=lambda x: (math.isnan(x), x))
    return least if least < _FITS or not any(map(math.isnan, errors)) else math.nan


def _most(numbers):
    """The largest number; NaN if any is NaN."""
    return float(np.max([*numbers]))


def _rounding(*values):
    return tolerance(*(value.lane(0).dtype for value in values), least=TOLERANCE)


def _is_oblong(value):
    """Whether an array cannot be a map of a square image (inside attention: `[batch, position, head, channel]`)."""
    return len(value.shape) in (4, 5) and value.shape[1] != value.shape[2]


def _is_cut(value, rows):
    """Whether a map whose rows are the axis `rows` is not square, since an equation cut or padded it."""
    cut = value.cause is not None and value.cause.equation.primitive.name in CUTS
    return cut and len(value.shape) > 3 and value.shape[rows] != value.shape[rows + 1]


@jax.jit
def _signal(y):
    y = widened(y)
    return norm(y - y.mean(0, keepdims=True)) / jnp.maximum(norm(y), 1e-30)
