"""Measured equivariance errors, and the figures of what equivariance looks like."""

import functools
import math
from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fconv_jax
from experiments import data
from experiments.reporting import illustrations
from experiments.reporting.gathering import gathered
from experiments.reporting.tables import label, of_good, order
from experiments.rules import InputError
from experiments.runs import folder as folders
from experiments.runs.folder import write_json
from experiments.runs.reading import read_angles
from experiments.runs.results import versions
from experiments.training.devices import device_name
from fconv_jax.basis import REFERENCE
from fconv_jax.models.initial import fconv_init

MESHES = (20, 36, 68, 132)
"""Pixels along a side; a quarter of it, the kernel, is odd."""
ROTATIONS = (4, 8, 12, 16, 24)
KERNELS = (3, 5, 7, 9, 11)
FADINGS = {
    "smooth": lambda squares: np.maximum(1 - squares, 0) ** 3,
    "kink": lambda squares: np.maximum(1 - squares, 0),
    "cut": lambda squares: np.exp(-np.maximum(squares - 1, 0) / 0.2),
}
"""How a filter ends, as a function of the squared radius."""
FREE_ANGLES = (11.0, 23.0, 37.0, 52.0, 68.0)
"""Degrees; none is a step of a group above."""


def mesh_errors(meshes: tuple[int, ...]) -> dict[str, list[float]]:
    """Returns the relative equivariance error of a lifting layer at 45 degrees (t = 8) for each mesh.

    One smooth image and one filter, both fixed functions on the plane, are sampled on finer and finer
    meshes; the image is rotated as a function, so nothing but sampling is left.  `"kink"` is a filter that is zero
    outside a disk and meets it with a kink: the theory's order 2 in the mesh size.  `"smooth"` meets it
    smoothly.  `"cut"` is the same series under the reference's mask, which a square kernel cuts off: a part
    that no mesh removes.
    """
    return {name: [_mesh_error(size, name) for size in meshes] for name in FADINGS}


def _mesh_error(size, fading, num_rotations=8, angle=45.0):
    k = size // 4  # always the same part of the plane
    basis = jnp.asarray(_rotated_filter(k, num_rotations, fading))
    kernel = fconv_jax.lifting_filter(jnp.ones((1, 1, 1)), basis) / k**2

    def layer(x):
        return fconv_jax.convolve_fields(x, kernel, padding="SAME")

    rotated = fconv_jax.rotate_field(layer(_image(size, 0.0)), angle)
    actual = layer(_image(size, angle))
    mask = jnp.asarray(fconv_jax.disk_mask(size, 30.0))[..., None, None]
    return float(jnp.linalg.norm(mask * (actual - rotated)) / jnp.linalg.norm(mask * rotated))


def _rotated_filter(k, num_rotations, fading):
    """Samples `[k, k, t, 1]` of a short Fourier series times a mask, rotated to each group element."""
    centres = (np.arange(k) - (k - 1) / 2) * 2 / k  # pixel centres of a kernel on [-1, 1]
    x, y = np.meshgrid(centres, centres)
    radius = x**2 + y**2
    mask = FADINGS[fading](radius)
    filters = []
    for o in range(num_rotations):
        a = 2 * np.pi * o / num_rotations
        u, v = np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y
        filters.append((np.cos(2 * u + v) + 0.7 * np.sin(3 * u) + 0.4 * np.cos(2 * v)) * mask)
    return np.stack(filters, axis=-1)[..., None].astype(np.float32)


def _image(size, angle):
    """Samples `[1, size, size, 1]` of a sum of bells on [-1, 1], rotated by an angle."""
    centres = (np.arange(size) - (size - 1) / 2) * 2 / size
    x, y = np.meshgrid(centres, centres)
    a = math.radians(angle)
    u, v = np.cos(a) * x - np.sin(a) * y, np.sin(a) * x + np.cos(a) * y
    bells = [(0.2, 0.1, 0.14, 1.0), (-0.25, 0.05, 0.12, 0.8), (0.05, -0.3, 0.16, -0.6), (-0.1, 0.3, 0.12, 0.7)]
    total = np.zeros_like(u) + sum(h * np.exp(-((u - p) ** 2 + (v - q) ** 2) / (2 * w**2)) for p, q, w, h in bells)
    return jnp.asarray(total[None, ..., None], jnp.float32)


def invariance_errors(
    images: np.ndarray, *, init: str, smooth: bool = True, few: bool = False
) -> tuple[list[float], list[float]]:
    """Returns errors against ROTATIONS (kernel 7) and against KERNELS (8 rotations).

    Each is the relative error, inside a disk, of a lifting layer, ReLU and the maximum over rotations, on digits
    rotated by FREE_ANGLES: the mean over angles and three sets of random coefficients.  `few`: with (k + 1) / 2
    frequencies and filters that fade inside the kernel, as the invariant networks have them.
    """
    by_rotations = [_invariance_error(images, 7, t, init, smooth, few) for t in ROTATIONS]
    return by_rotations, [_invariance_error(images, k, 8, init, smooth, few) for k in KERNELS]


@nnx.jit
def _invariant(layer, x):  # the layer is an argument, so three layers of equal sizes compile once
    return fconv_jax.max_over_group(nnx.relu(layer(x)))


def _invariance_error(images, kernel_size, num_rotations, init, smooth, few=False):
    basis = fconv_jax.Fourier("few" if few else "all", smooth=smooth, mask="fading" if few else "adaptive")
    errors = []
    for seed in range(3):
        layer = fconv_jax.LiftingFConv(
            1, 4, kernel_size, num_rotations, basis=basis, **fconv_init(init), rngs=nnx.Rngs(seed)
        )
        function = functools.partial(_invariant, layer)
        errors += [float(fconv_jax.equivariance_error(function, images, angle, margin=5.0)) for angle in FREE_ANGLES]
    return float(np.mean(errors))


_LAYERS = {
    "he, smoothed basis": {"init": "he", "smooth": True},
    "report, smoothed basis": {"init": "report", "smooth": True},
    "report, basis not smoothed": {"init": "report", "smooth": False},
    "report, few frequencies that fade": {"init": "report", "few": True},
}


def draw(options: Namespace, command: str) -> None:
    """Writes the figures and the numbers in them.

    Raises:
      InputError: a folder that cannot be written, or results that are a file.
    """
    folders.check_no_run(options.output)
    if options.results.is_file():
        raise InputError(f"--results {options.results} is a file: give the folder that experiments.report wrote")
    output, cells = options.output, _upright_cells(options.results)
    digits = data.load("mnist_5k", 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    step = max(1, len(digits.labels) // 10)  # one of each class: they are sorted
    images = digits.images[::step].astype(np.float32) / 255
    with folders.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        title = "basis of a 7 x 7 kernel with 8 rotations: its first functions, rotated"
        illustrations.plot_basis(output / "basis.png", fconv_jax.fourier_basis(7, 8).values, title)
        illustrations.plot_features(output / "features.png", _features(images[4:5]))
        errors = mesh_errors(MESHES)
        illustrations.plot_mesh(output / "mesh.png", MESHES, errors)
        lines = {name: invariance_errors(images, **layer) for name, layer in _LAYERS.items()}
        panels = {
            "number of rotations (7 x 7 kernels)": (ROTATIONS, {n: pair[0] for n, pair in lines.items()}),
            "kernel size (8 rotations)": (KERNELS, {n: pair[1] for n, pair in lines.items()}),
        }
        illustrations.plot_choices(output / "choices.png", panels)
        contents = {"command": command, "data": "mnist_5k test digits, one of each class", "device": device_name()}
        contents |= {"versions": versions(), "meshes": MESHES, "mesh_errors": errors, "choices": panels}
        write_json(output / "errors.json", contents)
        more = _draw_gathered(output, cells)
    print(f"saved in {output}/: basis.png, features.png, mesh.png, choices.png, errors.json{more}")


def _upright_cells(results):
    """Gathered cells of setting 3, {label: (results.json, angles or None)}: read before anything is drawn.

    `None` without the folder: what was drawn of it before stays.
    """
    if not results.is_dir():
        return None
    cells = sorted(gathered(results).items(), key=lambda item: order(item[1]))
    cells = [(folder, cell) for folder, cell in cells if cell["dataset"] == "mnist_5k" and cell["setting"] == 3]
    found = {label(cell): (cell, read_angles(folder, cell)) for folder, cell in cells}
    return {name: (cell, angles and (angles[0], of_good(cell, angles[1]))) for name, (cell, angles) in found.items()}


def _draw_gathered(output, cells):
    """Draws the figures of the gathered runs; returns the names of their files."""
    if cells is None:
        return " (no gathered runs: there is no folder --results)"
    lines = {name: angles for name, (_, angles) in cells.items() if angles is not None}
    confusions = {name: np.sum(of_good(cell, cell["confusion"]), axis=0) for name, (cell, _) in cells.items()}
    for name in ("upright.png", "six_nine.png"):
        (output / name).unlink(missing_ok=True)  # it showed runs that are no longer there
    if lines:
        illustrations.plot_upright(output / "upright.png", lines, [cells[name][0] for name in lines])
    if confusions:
        illustrations.plot_six_nine(output / "six_nine.png", confusions, [cell for cell, _ in cells.values()])
    return ", upright.png" * bool(lines) + ", six_nine.png" * bool(confusions)


def _features(digit):
    """Maps of a digit and of the rotated digit, rotated back, of a plain layer and of an F-Conv; their difference."""
    angle = 45.0
    rotated = fconv_jax.rotate_image(jnp.asarray(digit), angle)
    plain = nnx.Conv(1, 1, (7, 7), padding="SAME", use_bias=False, rngs=nnx.Rngs(3))
    fconv = fconv_jax.LiftingFConv(1, 1, 7, use_bias=False, basis=REFERENCE, **fconv_init("report"), rngs=nnx.Rngs(3))
    layers = {
        "plain convolution": (plain, fconv_jax.rotate_image),
        "F-Conv, rotation 0": (fconv, fconv_jax.rotate_field),
    }
    rows = {}
    for name, (layer, rotate_back) in layers.items():
        maps = [jax.jit(layer)(digit), rotate_back(jax.jit(layer)(rotated), -angle)]
        first, second = (np.asarray(m).reshape(28, 28, -1)[..., 0] for m in maps)
        digits = [("a digit", digit[0, ..., 0]), ("rotated by 45°", np.asarray(rotated)[0, ..., 0])]
        rows[name] = [*digits, ("features of the digit", first), ("of the rotated one, back", second),
                      ("difference", second - first)]  # fmt: skip
    return rows
