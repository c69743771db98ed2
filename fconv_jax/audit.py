"""Where a network loses rotations: every stage measured, and the first that breaks quarter turns named with its reason.

For a network with reflections, also where it loses mirror images.

The network is traced once; the equations of its program then work on the images and their rotated copies side by side.
"""

import dataclasses
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax._checks import finite, whole
from fconv_jax._precision import norm, tolerance, widened
from fconv_jax._traced import Cause, Program, Value, Walk, each
from fconv_jax.draws import draw
from fconv_jax.group import groups_in
from fconv_jax.layers import EquivarianceWarning
from fconv_jax.reasons import NOT_FINITE, of_cause, of_layer
from fconv_jax.symmetry import TOLERANCE, difference, kinds_of, moved
from fconv_jax.transforms import inside_disk, mirror_image

LEGEND = (
    "90: relative error at a quarter turn, of the network up to the stage; alone: of the stage, on noise; "
    "mirror: as 90, for a mirror image; numbers: at such an angle, inside a disk; "
    "signal: the part of the output that depends on the image"
)


@dataclasses.dataclass(frozen=True)
class StageReport:
    """What one stage does.  Errors are |f(R x) - R f(x)| / |f(x)|, R a rotation.

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


@dataclasses.dataclass(frozen=True)
class Audit:
    """An audited network: its stages in their order, and warnings of what breaks with the next update."""

    stages: tuple[StageReport, ...]
    warnings: tuple[str, ...] = ()

    @property
    def breaking(self) -> tuple[StageReport, ...]:
        """The stages that break quarter turns themselves, in order."""
        return tuple(stage for stage in self.stages if stage.reason)

    @property
    def first_break(self) -> StageReport | None:
        """The first of them; `None` for a network that keeps quarter turns."""
        return next(iter(self.breaking), None)

    def __str__(self) -> str:
        angles = list(self.stages[0].free_errors) if self.stages else []
        mirrors = any(not math.isnan(stage.mirror_error) for stage in self.stages)
        heads = ["stage", "output", "90", "alone", *["mirror"] * mirrors, *(f"{angle:g}" for angle in angles), "signal"]
        rows = [
            [stage.name, "x".join(map(str, stage.shape)), *map(_short, (stage.error, stage.own_error)),
             *[_short(stage.mirror_error)] * mirrors,
             *(_short(stage.free_errors[angle]) for angle in angles), _short(stage.signal)]
            for stage in self.stages
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
        ]
        found = [f"{stage.name} breaks quarter turns: {stage.reason}" for stage in self.breaking]
        last = self.stages[-1] if found else None
        if last and last.error <= last.tolerance < last.signal:  # dead features keep everything
            found.append("the output is exact nevertheless: the last stages do not depend on what is lost")
        found = found or ["quarter turns are exact"]
        if mirrors:
            lost = next((stage.name for stage in self.stages if stage.breaks_mirrors), None)
            found.append(f"mirror images are lost first at {lost}" if lost else "mirror images are exact")
        return "\n".join([*lines, f"({LEGEND})", *self.warnings, *found])


def audit(
    model: nnx.Module,
    input_shape: tuple[int, int, int],
    *,
    images: jax.Array | None = None,
    angles: tuple[float, ...] = (30.0, 45.0),
    margin: float = 10.0,
    kind: Any = None,
) -> Audit:
    """Returns what each stage of a network does to rotations, and where and why quarter turns break.

    Stages are those of `model.stages`.  Without them, the model's innermost modules (F-Conv and stock layers) and pools
    (this library's, flax's and `jax.lax.reduce_window`), one row for each call; where quarter turns are first lost
    between two of them, that is a stage too ("between A and B").  A second measurement with slightly changed
    parameters gives the warnings: what breaks only then, such as a position embedding that is still zero.

    Args:
      model: measured as in evaluation (no dropout, running averages); left as it is.  One that `jax.jit` can trace.
      input_shape: (height, width, channel); height and width equal.
      images: `[batch, height, width, channel]` of at least 2 images; `None` makes 8 smooth ones.
      angles: free angles in degrees, measured inside a disk.
      margin: of the disk, see `disk_mask`.
      kind: of the model's output, as for `equivariance_error`.

    Raises:
      ValueError: a shape that is not square, fewer than 2 images, images of another shape or that are not
        finite, no stages, or a stage that returns something else than arrays.

    >>> import fconv_jax
    >>> from flax import nnx
    >>> report = fconv_jax.audit(fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0)), (28, 28, 1))
    >>> report.first_break.name
    'flatten'
    """
    images, angles = _checked_images(input_shape, images), _checked_angles(angles)
    if not getattr(model, "stages", True):
        raise ValueError("the network's stages are empty")
    check_images = getattr(model, "_check_images", None)
    if check_images is not None:
        check_images(images)
    with warnings.catch_warnings():  # a stride that does not fit is reported as a reason
        warnings.simplefilter("ignore", EquivarianceWarning)
        return _audited(model, images, angles, margin, kind)


def _audited(model, images, angles, margin, kind):
    model = nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
    disk = inside_disk(images, margin)
    lanes = [images, moved(images, 90), disk, *(moved(disk, angle) for angle in angles)]
    mirrored = any(group.reflections for group in groups_in(model).values())
    lanes = (*lanes, mirror_image(images)) if mirrored else tuple(lanes)
    net = Program(model, images)
    stages = _Run(net, angles, margin, mirrored).network(lanes, kind)
    broken = {stage.name for stage in stages if stage.reason}
    notes = [
        f"{stage.name} keeps quarter turns with these parameters only, not after an update: {stage.reason}"
        for stage in _Run(net.updated(_updated)).network(lanes[:2], kind)
        if stage.reason not in ("", NOT_FINITE) and stage.name not in broken
    ]
    return Audit(tuple(stages), tuple(notes))


def _updated(leaf):
    """A parameter after a small random step, which makes equal numbers differ."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    random, spread = np.random.default_rng(0), float(np.std(np.asarray(leaf, np.float32)))
    step = random.normal(size=leaf.shape) * spread if spread else random.uniform(size=leaf.shape)
    return leaf + jnp.asarray(0.1 * step, leaf.dtype)


class _Run(Walk):
    """Runs a network on images, rotated images, images in a disk, those rotated by `angles`, and mirrored images."""

    def __init__(self, net, angles=(), margin=None, mirrored=False):
        super().__init__(net)
        self.angles, self.margin, self.mirrored, self.calls = angles, margin, mirrored, 0
        self.reports, self.before, self.rounding, self.last = [], "the input", TOLERANCE, None

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
            self.report("output" if len(outs) == 1 else f"output {i}", out, [out], own, "", each_kind)
        return self.reports

    def lost(self, value):
        """Whether a value has lost the rotation, as far as its axes can tell."""
        return not self.error(value, 1) <= max(self.rounding, _rounding(value))

    def stage(self, stage, ins, inner):
        """The results of a stage; adds its report."""
        x = next(value for value in [*ins[stage.first :], *ins] if value.depends)
        outs, on_noise, own = each(stage.function, ins), self.on_noise(stage, ins, x), math.nan
        self.calls += 1
        if on_noise and not any(map(_is_oblong, [x, *outs])):
            own = _most(self.error(y, 1) for y in each(stage.function, on_noise))
        # NaN where an image becomes a field without this rotation, or a map one that is not square.
        no_map = math.isnan(own) and not _is_oblong(x) and (len(x.shape) == 4 or any(map(_is_oblong, outs)))
        lost = own > _rounding(x, *outs) or no_map
        self.report(stage.name + self.suffix, x, outs, own, self.why(stage, ins, x, outs, inner) if lost else "")
        return outs

    def on_noise(self, stage, ins, x, few=True):
        """A stage's inputs with white noise for x, upright and rotated; `None` if they cannot be rotated."""
        noise = x.lane(0)
        if jnp.issubdtype(noise.dtype, jnp.floating):  # other inputs belong to the whole batch
            count = 2 if few and len(ins) - stage.first == 1 else x.shape[0]
            noise = draw(jax.random.normal, jax.random.key(self.calls), (count, *x.shape[1:]), noise.dtype)
        given = [noise if value is x else value.lane(0) for value in ins]
        try:
            rotated = [
                moved(y, 90, *self.known(y)) if value is x or (value.depends and y.ndim in (4, 5)) else y
                for value, y in zip(ins, given, strict=True)
            ]
        except ValueError:
            return None
        return [Value((y, z), value.depends) for y, z, value in zip(given, rotated, ins, strict=True)]

    def why(self, stage, ins, x, outs, inner):
        """The reason why a stage breaks quarter turns."""
        if not all(bool(jnp.isfinite(out.lane(0)).all()) for out in outs):
            return NOT_FINITE
        words = of_layer(stage, x.shape, outs[0].shape)
        on_noise = self.on_noise(stage, ins, x, few=False)
        if words or not inner or not on_noise:
            return words or of_cause(Cause.of(stage.stage, x, ins) if inner is None else None, outs[0].shape)
        run = _Run(self.net)
        outs = run.program(inner, on_noise)
        return next((report.reason for report in run.reports if report.reason), of_cause(outs[0].cause, outs[0].shape))

    def report(self, name, x, outs, own, reason, kind=None):
        """Adds a stage's report, and before it one for the code in between if quarter turns break there."""
        intact = not any(report.error > report.tolerance or report.reason for report in self.reports)
        error = self.error(x, 1, kind=kind)
        self.rounding = max(self.rounding, _rounding(x))
        if intact and error > self.rounding:
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

    def known(self, x, kind=None):
        """The kind of an array and its group."""
        vectors = kind is None and x.ndim == 5 and x.shape[3] == 2 and 2 not in self.net.groups
        return "vector" if vectors else kind, self.net.groups.get(x.shape[-2] if x.ndim > 1 else 0)

    def error(self, value, i, j=0, angle=90, margin=None, kind=None, mirror=False):
        """|lane i - R lane j| / |R lane j|; NaN for a field without rotation by this angle, infinite if not finite."""
        if _is_oblong(value):
            return math.nan
        upright = value.lane(j)
        try:
            error = float(difference(value.lane(i), upright, angle, *self.known(upright, kind), mirror, margin))
        except ValueError:
            return math.nan
        return math.inf if math.isnan(error) else error


def _most(numbers):
    """The largest number; NaN if any is NaN."""
    return float(np.max([*numbers]))


def _rounding(*values):
    return tolerance(*(value.lane(0).dtype for value in values), least=TOLERANCE)


def _checked_images(shape, images):
    try:
        height, width, channels = (whole("input_shape", size) for size in shape)
    except (TypeError, ValueError):
        height, width, channels = 0, 0, 0
    if height != width or height < 2:
        raise ValueError(
            f"input_shape (={shape}) must be (size, size, channel), whole numbers, with a size of at least 2: "
            "other images do not rotate into one"
        )
    shape = (height, width, channels)
    if images is None:
        return _smooth_images(shape)
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[0] < 2 or images.shape[1:] != shape:
        raise ValueError(f"images of shape {images.shape} must be at least 2 of {shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        images = images.astype(jnp.float32)
    if not bool(jnp.isfinite(images).all()):
        raise ValueError("images must be finite numbers")
    return images


def _checked_angles(angles):
    if np.ndim(angles) != 1:
        raise ValueError(f"angles (={angles!r}) must be some numbers of degrees, such as (30.0, 45.0)")
    return tuple(finite("angle", angle, "number of degrees") for angle in angles)


def _is_oblong(value):
    """Whether an array cannot be a map of a square image (inside attention: `[batch, position, head, channel]`)."""
    return len(value.shape) in (4, 5) and value.shape[1] != value.shape[2]


@jax.jit
def _signal(y):
    y = widened(y)
    return norm(y - y.mean(0, keepdims=True)) / jnp.maximum(norm(y), 1e-30)


def _smooth_images(shape, count=8, width=2.0):
    """Noise, smoothed over `width` pixels, 0..1, fading towards the border."""
    noise = np.random.default_rng(0).normal(size=(count, *shape))
    frequencies = [np.fft.fftfreq(size) for size in shape[:2]]
    squares = frequencies[0][:, None] ** 2 + frequencies[1] ** 2
    smooth = np.fft.ifft2(
        np.fft.fft2(noise, axes=(1, 2)) * np.exp(-2 * (np.pi * width) ** 2 * squares)[..., None], axes=(1, 2)
    ).real
    smooth = (smooth - smooth.min((1, 2, 3), keepdims=True)) / np.ptp(smooth, axis=(1, 2, 3), keepdims=True)
    return inside_disk(jnp.asarray(smooth, jnp.float32), 15.0)


def _short(value):
    return "-" if math.isnan(value) else f"{value:.1e}" if value and value < 0.01 else f"{value:.3f}"
