"""Where a network loses turns: every stage measured, and the first that breaks quarter turns named with its reason."""

import contextlib
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax import pooling
from fconv_jax.layers import PointwiseFConv, _FConv
from fconv_jax.observing import listening
from fconv_jax.turns import inside_disk, turn

TOLERANCE = 1e-5
"""A stage whose own relative error at a quarter turn is above this breaks it: float32 rounding stays well below."""


@dataclasses.dataclass(frozen=True)
class StageReport:
    """What one stage does.  Errors are |f(R x) - R f(x)| / |f(x)|, R a turn.

    Attributes:
      name, shape: of the stage and of its output for one image.
      error: at a quarter turn, f the network up to and with this stage.
      own_error: at a quarter turn, f this stage alone on white noise of the shape that it gets (its
        real input may be all zeros, where every stage would pass).
      free_errors: {angle: as `error`, inside a disk}; NaN where a field has no rotation by that angle.
      signal: |y - mean of y over the pictures| / |y|, the part of the output that depends on the picture.
      reason: why it breaks quarter turns; empty if it does not.
    """

    name: str
    shape: tuple[int, ...]
    error: float
    own_error: float
    free_errors: dict[float, float]
    signal: float
    reason: str


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

    Stages are those of `model.stages`.  Without them, the calls of the model's innermost modules
    (F-Conv and stock layers) and of this library's pools are audited one by one, in the order of the calls; where
    quarter turns are first lost between two of them, that is a stage too ("between A and B").

    Args:
      model: measured as in evaluation (no dropout, running averages); left as it is.
      input_shape: (height, width, channel); height and width equal.
      images: `[batch, height, width, channel]` of at least 2 pictures; `None` makes 8 smooth ones.
      angles: free angles in degrees, measured inside a disk.
      margin: of the disk, see `disk_mask`.

    Raises:
      ValueError: a shape that is not square, fewer than 2 pictures, or pictures of another shape.

    >>> import fconv_jax
    >>> from flax import nnx
    >>> report = fconv_jax.audit(fconv_jax.models.create("lenet_fconv", rngs=nnx.Rngs(0)), (28, 28, 1))
    >>> report.first_break.name
    'flatten'
    """
    if len(input_shape) != 3 or input_shape[0] != input_shape[1]:
        raise ValueError(
            f"input_shape (={input_shape}) must be (size, size, channel): other images do not turn into one"
        )
    images = _smooth_pictures(input_shape) if images is None else jnp.asarray(images)
    if images.ndim != 4 or images.shape[0] < 2 or images.shape[1:] != tuple(input_shape):
        raise ValueError(f"images of shape {images.shape} must be at least 2 of {tuple(input_shape)}")
    model = nnx.view(model, deterministic=True, use_running_average=True, raise_if_not_found=False)
    run = _stages if hasattr(model, "stages") else _calls
    calls, turned = run(model, images), run(model, turn(images, 90))
    disk = run(model, inside_disk(images, margin))
    free = {float(angle): run(model, turn(inside_disk(images, margin), angle)) for angle in angles}
    reports, before = [], "the input"
    for i, call in enumerate(calls):
        intact = all(report.error <= TOLERANCE for report in reports)
        error = _error(turned[i].x, call.x, 90)
        if intact and error > TOLERANCE:  # only where the network does more than its stages
            free_errors = {angle: _error(runs[i].x, disk[i].x, angle, margin) for angle, runs in free.items()}
            reason = (
                _vector_reason(call.x.shape) if call.x.ndim == 2 else "the network does more than its layers and pools"
            )
            name = f"between {before} and {call.name}"
            reports.append(StageReport(name, call.x.shape[1:], error, error, free_errors, _signal(call.x), reason))
        own = _own_error(call, jax.random.key(i))
        lost = own > TOLERANCE or (math.isnan(own) and call.x.ndim == 4)  # NaN: a field without this rotation begins
        free_errors = {angle: _error(runs[i].y, disk[i].y, angle, margin) for angle, runs in free.items()}
        error, reason = _error(turned[i].y, call.y, 90), _reason(call) if lost else ""
        reports.append(StageReport(call.name, call.y.shape[1:], error, own, free_errors, _signal(call.y), reason))
        before = call.name
    return Audit(tuple(reports))


@dataclasses.dataclass(frozen=True)
class _Call:
    """A stage at work: `y = function(x)`; `stage` is the callable that the network has, `options` its call's."""

    name: str
    stage: Callable
    function: Callable
    x: jax.Array
    y: jax.Array
    options: dict


def _stages(model, x):
    calls = []
    for name, stage in model.stages:
        function = jax.jit(stage) if not isinstance(stage, nnx.Module) else stage
        y = function(x)
        options = stage.keywords if isinstance(stage, functools.partial) else {}
        calls.append(_Call(name, stage, function, x, y, options))
        x = y
    return calls


def _calls(model, x):
    """The outermost calls of innermost modules and of pools while the model works."""
    children = {id(c) for _, m in nnx.iter_modules(model) for c in vars(m).values() if isinstance(c, nnx.Module)}
    parents = {id(m) for _, m in nnx.iter_modules(model) if any(isinstance(c, nnx.Module) for c in vars(m).values())}
    names = {
        id(module): ".".join(map(str, path)) or type(module).__name__
        for path, module in nnx.iter_modules(model)
        if callable(module) and (id(module) not in parents) and (id(module) in children or not path or path)
    }
    calls, inside = [], [0]

    def record(name, stage, function, x, options):
        if inside[0] or isinstance(x, jax.core.Tracer):
            return function(x)
        inside[0] += 1
        try:
            y = function(x)
        finally:
            inside[0] -= 1
        calls.append(_Call(name, stage, function, x, y, options))
        return y

    def pool(function, x, args, options):
        bound = inspect.signature(function).bind(x, *args, **options)
        given = {name: value for name, value in bound.arguments.items() if name != "x"}
        plain = functools.partial(function.__wrapped__, **given)
        return record(function.__name__, function, plain, x, given)

    kinds = {type(module) for _, module in nnx.iter_modules(model) if id(module) in names}
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(pool))
        for kind in kinds:
            original = kind.__call__

            def call(self, x, *args, _original=original, **options):
                function = functools.partial(_call_module, _original, self, args, options)
                return record(names[id(self)], self, function, x, {}) if id(self) in names else function(x)

            stack.callback(setattr, kind, "__call__", original)
            kind.__call__ = call
        y = model(x)
    if not calls or calls[-1].y is not y:
        calls.append(_Call("output", model, lambda x: x, y, y, {}))
    return calls


def _call_module(original, module, args, options, x):
    return original(module, x, *args, **options)


def _own_error(call, key):
    noise = jax.random.normal(key, (2, *call.x.shape[1:]), call.x.dtype)
    try:
        turned = turn(noise, 90)
    except ValueError:
        return math.nan  # a field without rotations by quarter turns
    return _error(call.function(turned), call.function(noise), 90)


def _error(actual, value, angle, margin=None):
    try:
        expected = inside_disk(turn(value, angle), margin)
    except ValueError:
        return math.nan  # a field that has no rotation by this angle
    difference = jnp.linalg.norm(jnp.ravel(inside_disk(actual, margin) - expected))
    return float(jnp.where(difference == 0, 0.0, difference / jnp.linalg.norm(jnp.ravel(expected))))


def _signal(y):
    return float(jnp.linalg.norm(jnp.ravel(y - y.mean(0))) / jnp.maximum(jnp.linalg.norm(jnp.ravel(y)), 1e-30))


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


def _reason(call):
    stage, size = call.stage, call.x.shape[1] if call.x.ndim > 2 else 0
    name = getattr(getattr(stage, "func", stage), "__name__", "")
    if isinstance(stage, (_FConv, PointwiseFConv)):
        if stage.num_rotations % 4:
            return f"a quarter turn is none of its {stage.num_rotations} rotations"
        return (
            f"its stride of {stage.strides} does not fit the size: it starts at one border and stops short of the other"
        )
    if name in ("corner_max_pool", "corner_blur_pool"):
        defaults = {n: p.default for n, p in inspect.signature(getattr(pooling, name)).parameters.items()}
        options = {**defaults, **call.options}
        return (
            f"windows of {options['window']} with padding {options['padding'] or 0} do not tile {size} pixels: "
            f"{size} -> {call.y.shape[1]} drops the last row and column (the symmetric pools do not)"
        )
    if isinstance(stage, nnx.Conv):
        return "a plain convolution: its filters have one direction"
    if call.x.ndim > 3 and call.y.ndim == 2:
        return (
            f"it makes a vector of the {'x'.join(map(str, call.x.shape[1:3]))} positions"
            f"{' and the rotations' if call.x.ndim == 5 else ''}: what follows sees a turned map as another vector"
        )
    return "it does not commute with quarter turns"


def _vector_reason(shape):
    return f"a vector of {shape[-1]} numbers that depends on positions or rotations: a turned map is another vector"


def _short(value):
    return "-" if math.isnan(value) else f"{value:.1e}" if value and value < 0.01 else f"{value:.3f}"
