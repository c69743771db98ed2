"""The figures of what equivariance looks like, and the numbers in them."""

from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fconv_jax
from experiments import data
from experiments.reporting import figure_plots, measurements
from experiments.reporting.gathering import gathered
from experiments.reporting.tables import label, order
from experiments.runs import folder as folders
from experiments.runs.files import write_json
from experiments.runs.results import read_angles, versions
from experiments.training.devices import device_name

_LAYERS = {
    "he, smoothed basis": {"init": "he", "smooth": True},
    "report, smoothed basis": {"init": "report", "smooth": True},
    "report, basis not smoothed": {"init": "report", "smooth": False},
    "report, few frequencies that fade": {"init": "report", "few": True},
}


def draw(options: Namespace, command: str) -> None:
    """Writes the figures and the numbers in them.

    Raises:
      InputError: a folder that cannot be written.
    """
    output = options.output
    digits = data.load("mnist_5k", 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    step = max(1, len(digits.labels) // 10)  # one of each class: they are sorted
    images = digits.images[::step].astype(np.float32) / 255
    with folders.writing(output):
        output.mkdir(parents=True, exist_ok=True)
        title = "basis of a 7 x 7 kernel with 8 rotations: its first functions, rotated"
        figure_plots.plot_basis(output / "basis.png", fconv_jax.fourier_basis(7, 8).values, title)
        figure_plots.plot_features(output / "features.png", _features(images[4:5]))
        errors = measurements.mesh_errors(measurements.MESHES)
        figure_plots.plot_mesh(output / "mesh.png", measurements.MESHES, errors)
        lines = {name: measurements.invariance_errors(images, **layer) for name, layer in _LAYERS.items()}
        panels = {
            "number of rotations (7 x 7 kernels)": (measurements.ROTATIONS, {n: pair[0] for n, pair in lines.items()}),
            "kernel size (8 rotations)": (measurements.KERNELS, {n: pair[1] for n, pair in lines.items()}),
        }
        figure_plots.plot_choices(output / "choices.png", panels)
        contents = {"command": command, "data": "mnist_5k test digits, one of each class", "device": device_name()}
        contents |= {"versions": versions(), "meshes": measurements.MESHES, "mesh_errors": errors, "choices": panels}
        write_json(output / "errors.json", contents)
        more = _draw_gathered(output, options.results)
    print(f"saved in {output}/: basis.png, features.png, mesh.png, choices.png, errors.json{more}")


def _draw_gathered(output, results):
    """Draws what is to be drawn of the gathered runs; the names of the files."""
    cells = sorted(gathered(results).items(), key=lambda item: order(item[1]))
    cells = [(folder, cell) for folder, cell in cells if cell["dataset"] == "mnist_5k" and cell["setting"] == 3]
    files = {label(cell): folder / folders.ANGLES for folder, cell in cells if (folder / folders.ANGLES).exists()}
    confusions = {label(cell): np.sum(cell["confusion"], axis=0) for _, cell in cells}
    if files:
        figure_plots.plot_upright(output / "upright.png", {name: read_angles(file) for name, file in files.items()})
    if confusions:
        figure_plots.plot_six_nine(output / "six_nine.png", confusions)
    return ", upright.png" * bool(files) + ", six_nine.png" * bool(confusions)


def _features(digit):
    """Maps of a digit and of the rotated digit, rotated back, of a plain layer and of an F-Conv; their difference."""
    angle = 45.0
    rotated = fconv_jax.rotate_image(jnp.asarray(digit), angle)
    plain = nnx.Conv(1, 1, (7, 7), padding="SAME", use_bias=False, rngs=nnx.Rngs(3))
    fconv = fconv_jax.LiftingFConv(1, 1, 7, padding="SAME", use_bias=False, init="report", rngs=nnx.Rngs(3))
    layers = {
        "plain convolution": (plain, fconv_jax.rotate_image),
        "F-Conv, rotation 0": (fconv, fconv_jax.rotate_features),
    }
    rows = {}
    for name, (layer, rotate_back) in layers.items():
        maps = [jax.jit(layer)(digit), rotate_back(jax.jit(layer)(rotated), -angle)]
        first, second = (np.asarray(m).reshape(28, 28, -1)[..., 0] for m in maps)
        digits = [("a digit", digit[0, ..., 0]), ("rotated by 45°", np.asarray(rotated)[0, ..., 0])]
        rows[name] = [*digits, ("features of the digit", first), ("of the rotated one, back", second),
                      ("difference", second - first)]  # fmt: skip
    return rows
