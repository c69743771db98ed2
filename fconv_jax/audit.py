"""Where a network loses rotations: every stage measured, and the first that breaks quarter turns named with its reason.

For a network with reflections, also where it loses mirror images.

The network is traced once; the equations of its program then work on the images and their rotated copies side by side.
"""

import dataclasses
import functools
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fconv_jax._audit_run import Run, StageReport
from fconv_jax._checks import finite, whole
from fconv_jax._traced import Program, named
from fconv_jax.group import groups_in
from fconv_jax.layers import EquivarianceWarning
from fconv_jax.reasons import NOT_FINITE
from fconv_jax.symmetry import moved
from fconv_jax.transforms import inside_disk, mirror_image

LEGEND = (
    "90: relative error at a quarter turn, of the network up to the stage; alone: of the stage, on noise; "
    "mirror: as 90, for a mirror image; numbers: at such an angle, inside a disk; "
    "signal: the part of the output that depends on the image"
)


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
        last = self.stages[-1] if self.stages else None
        unknown = "are not measured at the output, whose axes do not say how it rotates: give its kind="
        lost = last and last.error > last.tolerance
        exact = "are lost, at no single stage" if lost else "are exact"
        found = found or [f"quarter turns {unknown if last and math.isnan(last.error) else exact}"]
        if mirrors:
            lost = next((stage.name for stage in self.stages if stage.breaks_mirrors), None)
            exact = unknown if last and math.isnan(last.mirror_error) else "are exact"
            found.append(f"mirror images are lost first at {lost}" if lost else f"mirror images {exact}")
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
    parameters and statistics gives the warnings: what breaks only then, such as a position embedding that is zero.

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
    if not isinstance(model, nnx.Module):
        raise ValueError(f"model (={model!r:.200}) must be an nnx.Module")
    images, angles = _checked_images(input_shape, images), _checked_angles(angles)
    if margin is not None:
        margin = finite("margin", margin)
    if named(getattr(model, "stages", None)) in ([], ()):
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
    mirrored = any(group.reflections for groups in groups_in(model).values() for group in groups)
    lanes = (*lanes, mirror_image(images)) if mirrored else tuple(lanes)
    net, step = Program(model, images), functools.partial(_updated, np.random.default_rng(0))
    stages = Run(net, angles, margin, mirrored).network(lanes, kind)
    broken = {stage.name for stage in stages if stage.reason}
    notes = [
        f"{stage.name} keeps quarter turns with these parameters only, not after an update: {stage.reason}"
        for stage in Run(net.updated(step)).network(lanes[:2], kind)
        if stage.reason not in ("", NOT_FINITE) and stage.name not in broken
    ]
    return Audit(tuple(stages), tuple(notes))


def _updated(random, leaf, is_statistic):
    """An array after a small random step, which makes equal numbers differ; a variance must not become negative."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    spread = float(np.std(np.asarray(leaf, np.float32)))
    either = spread and not is_statistic
    step = random.normal(size=leaf.shape) * spread if either else random.uniform(size=leaf.shape) * (spread or 1.0)
    return leaf + jnp.asarray(0.1 * step, leaf.dtype)


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
