"""Where a network loses turns: every stage measured, and the first that breaks quarter turns named with its reason."""

import contextlib
import dataclasses
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax._checks import finite, whole
from fconv_jax._precision import norm, relative_error, tolerance, widened
from fconv_jax.calls import inner_calls, stage_calls
from fconv_jax.draws import draw
from fconv_jax.layers import EquivarianceWarning
from fconv_jax.reasons import between, reason
from fconv_jax.transforms import inside_disk, rotate

TOLERANCE = 1e-5
"""A stage whose own relative error at a quarter turn is above this breaks it: float32 rounding stays well below.

For half precision it is 8 steps of the type (float16 0.008, bfloat16 0.06)."""


@dataclasses.dataclass(frozen=True)
class StageReport:
    """What one stage does.  Errors are |f(R x) - R f(x)| / |f(x)|, R a turn.

    Attributes:
      name, shape: of the stage and of its output for one image.
      error: at a quarter turn, f the network up to and with this stage; infinite where f is not finite.
      own_error: at a quarter turn, f this stage alone on white noise of the shape that it gets (its
        real input may be all zeros, where every stage would pass).
      free_errors: {angle: as `error`, inside a disk}; NaN where a field has no rotation by that angle.
      signal: |y - mean of y over the pictures| / |y|, the part of the output that depends on the picture.
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


@dataclasses.dataclass(frozen=True)
class Audit:
    """An audited network: its stages in the order in which they work."""

    stages: tuple[StageReport, ...]

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
        heads = ["stage", "output", "90", "alone", *(f"{angle:g}" for angle in angles), "signal"]
        rows = [
            [stage.name, "x".join(map(str, stage.shape)), *map(_short, (stage.error, stage.own_error)),
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
        return "\n".join([*lines, *(found or ["quarter turns are exact"])])


def audit(
    model: nnx.Module,
    input_shape: tuple[int, int, int],
    *,
    images: jax.Array | None = None,
    angles: tuple[float, ...] = (30.0, 45.0),
    margin: float = 10.0,
) -> Audit:
    """Returns what each stage of a network does to turns, and where and why quarter turns break.

    Stages are those of `model.stages`.  Without them, the calls of the model's innermost modules (F-Conv and stock
    layers) and of pools (this library's and flax's) are audited one by one, in the order of the calls; where quarter
    turns are first lost between two of them, that is a stage too ("between A and B").

    Args:
      model: measured as in evaluation (no dropout, running averages); left as it is.
      input_shape: (height, width, channel); height and width equal.
      images: `[batch, height, width, channel]` of at least 2 pictures; `None` makes 8 smooth ones.
      angles: free angles in degrees, measured inside a disk.
      margin: of the disk, see `disk_mask`.

    Raises:
      ValueError: a shape that is not square, fewer than 2 pictures, pictures of another shape or that are not
        finite, no stages, or a stage that returns something else than one array.

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
    model = nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)

    def run(x):
        with _no_warnings():
            calls = stage_calls(model, x) if hasattr(model, "stages") else inner_calls(model, x)
        for call in calls:
            if not isinstance(call.y, jax.Array):
                raise ValueError(f"{call.name} returns a {type(call.y).__name__}, but an audit needs one array")
        return calls

    calls, turned = run(images), run(rotate(images, 90))
    disk = run(inside_disk(images, margin))
    free = {angle: run(rotate(inside_disk(images, margin), angle)) for angle in angles}
    reports, before, rounding = [], "the input", TOLERANCE
    for i, call in enumerate(calls):
        intact = not any(report.error > report.tolerance or report.reason for report in reports)
        error = _error(turned[i].x, call.x, 90)
        own_rounding = tolerance(call.x.dtype, call.y.dtype, least=TOLERANCE)
        rounding = tolerance(call.x.dtype, least=rounding)
        if intact and error > rounding:  # only where the network does more than its stages
            free_errors = {angle: _error(runs[i].x, disk[i].x, angle, margin) for angle, runs in free.items()}
            name = f"between {before} and {call.name}"
            reports.append(
                StageReport(name, call.x.shape[1:], error, error, free_errors, _signal(call.x), between(call), rounding)
            )
        own = _own_error(call, jax.random.key(i))
        # NaN where an image becomes a field without this rotation.
        lost = own > own_rounding or (math.isnan(own) and call.x.ndim == 4 and not _is_oblong(call.x))
        free_errors = {angle: _error(runs[i].y, disk[i].y, angle, margin) for angle, runs in free.items()}
        error, why = _error(turned[i].y, call.y, 90), reason(call) if lost else ""
        rounding = max(rounding, own_rounding)
        reports.append(
            StageReport(call.name, call.y.shape[1:], error, own, free_errors, _signal(call.y), why, rounding)
        )
        before = call.name
    return Audit(tuple(reports))


@contextlib.contextmanager
def _no_warnings():
    """A stride that does not fit becomes a reason."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EquivarianceWarning)
        yield


def _checked_images(shape, images):
    try:
        height, width, channels = (whole("input_shape", size) for size in shape)
    except (TypeError, ValueError):
        height, width, channels = 0, 0, 0
    if height != width or height < 2:
        raise ValueError(
            f"input_shape (={shape}) must be (size, size, channel), whole numbers, with a size of at least 2: "
            "other images do not turn into one"
        )
    shape = (height, width, channels)
    if images is None:
        return _smooth_pictures(shape)
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


def _own_error(call, key):
    count = 2 if not call.others else call.x.shape[0]  # the others are of the whole batch
    x = call.x
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = draw(jax.random.normal, key, (count, *x.shape[1:]), x.dtype)
    if _is_oblong(x) or _is_oblong(call.y):
        return math.nan
    try:
        turned = rotate(x, 90)
        others = [rotate(other, 90) if other.ndim in (4, 5) else other for other in call.others]
    except ValueError:
        return math.nan  # a field without rotations by quarter turns
    with _no_warnings():
        return _error(call.function(turned, *others), call.function(x, *call.others), 90)


def _error(actual, value, angle, margin=None):
    """|actual - R value| / |R value|; NaN for a field without rotation by this angle, infinite if not finite."""
    if _is_oblong(value):
        return math.nan
    try:
        expected = inside_disk(rotate(widened(value), angle), margin)
    except ValueError:
        return math.nan
    error = float(relative_error(inside_disk(widened(actual), margin), expected))
    return math.inf if math.isnan(error) else error


def _is_oblong(x):
    """Such an array is no map of a square picture (inside attention: `[batch, position, head, channel]`)."""
    return x.ndim in (4, 5) and x.shape[1] != x.shape[2]


def _signal(y):
    y = widened(y)
    return float(norm(y - y.mean(0, keepdims=True)) / jnp.maximum(norm(y), 1e-30))


def _smooth_pictures(shape, count=8, width=2.0):
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
