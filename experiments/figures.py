"""Draws what equivariance looks like: the basis and its rotations, features of a turned digit, errors of layers.

python -m experiments.figures --output results/figures

Two more are drawn from the runs that `experiments.report` gathered: accuracy against the angle of networks trained on
upright digits, and what becomes of sixes and nines.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arguments, backends
from experiments.arguments import InputError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m experiments.figures", description=__doc__.splitlines()[0])
    result.add_argument("--output", metavar="DIR", type=Path, required=True, help="holds the PNG files and errors.json")
    result.add_argument(
        "--results", metavar="DIR", type=Path, default=Path("results"), help="what `report` wrote (default: results)"
    )
    result.add_argument("--data-dir", metavar="DIR", help="where data are kept (default: TFDS's own folder)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    backends.configure("lenet")
    from experiments import session  # imports jax, after its flags are set

    line = arguments.command_line("experiments.figures", argv)
    return session.guarded(command, lambda: draw(options, line))


def draw(options: argparse.Namespace, line: str) -> None:
    """Writes the figures and the numbers in them.

    Raises:
      InputError: a folder that cannot be written.
    """
    import numpy as np

    import fconv_jax
    from experiments import measures, pictures
    from experiments.data import load
    from experiments.results import device_name, versions, write_json

    output = options.output
    digits = load("mnist_5k", 1, data_dir=options.data_dir, splits=("test",), progress=print)["test"]
    step = max(1, len(digits.labels) // 10)  # one of each class: they are sorted
    images = digits.images[::step].astype(np.float32) / 255
    try:
        output.mkdir(parents=True, exist_ok=True)
        basis = fconv_jax.fourier_basis(7, 8)
        title = "basis of a 7 x 7 kernel with 8 rotations: its first functions, turned"
        pictures.plot_basis(output / "basis.png", basis.values, title)
        pictures.plot_features(output / "features.png", _features(images[4:5]))
        errors = measures.mesh_errors(measures.MESHES)
        pictures.plot_mesh(output / "mesh.png", measures.MESHES, errors)
        lines = {
            "he, smoothed basis": measures.invariance_errors(images, init="he", smooth=True),
            "report, smoothed basis": measures.invariance_errors(images, init="report", smooth=True),
            "report, basis not smoothed": measures.invariance_errors(images, init="report", smooth=False),
            "report, few frequencies that fade": measures.invariance_errors(images, init="report", few=True),
        }
        panels = {
            "number of rotations (7 x 7 kernels)": (measures.ROTATIONS, {n: pair[0] for n, pair in lines.items()}),
            "kernel size (8 rotations)": (measures.KERNELS, {n: pair[1] for n, pair in lines.items()}),
        }
        pictures.plot_choices(output / "choices.png", panels)
        contents = {"command": line, "data": "mnist_5k test digits, one of each class", "device": device_name()}
        contents |= {"versions": versions(), "meshes": measures.MESHES, "mesh_errors": errors, "choices": panels}
        write_json(output / "errors.json", contents)
        gathered = _draw_gathered(output, options.results)
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror}): choose another --output") from error
    print(f"saved in {output}/: basis.png, features.png, mesh.png, choices.png, errors.json{gathered}")


def _draw_gathered(output, results):
    """Draws what is to be drawn of the gathered runs; the names of the files."""
    import numpy as np

    from experiments import pictures
    from experiments.report import gathered
    from experiments.results import read_angles
    from experiments.tables import label, order

    cells = sorted(gathered(results).items(), key=lambda item: order(item[1]))
    cells = [(folder, cell) for folder, cell in cells if cell["dataset"] == "mnist_5k" and cell["setting"] == 3]
    lines = {}
    for folder, cell in cells:
        if (folder / "angles.csv").exists():
            lines[label(cell)] = read_angles(folder / "angles.csv")
    confusions = {label(cell): np.sum(cell["confusion"], axis=0) for _, cell in cells}
    if lines:
        pictures.plot_upright(output / "upright.png", lines)
    if confusions:
        pictures.plot_six_nine(output / "six_nine.png", confusions)
    return ", upright.png" * bool(lines) + ", six_nine.png" * bool(confusions)


def _features(digit):
    """Maps of a digit and of the turned digit, turned back, of a plain layer and of an F-Conv; and their difference."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    import fconv_jax

    angle = 45.0
    turned = fconv_jax.rotate_image(jnp.asarray(digit), angle)
    plain = nnx.Conv(1, 1, (7, 7), padding="SAME", use_bias=False, rngs=nnx.Rngs(3))
    fconv = fconv_jax.LiftingFConv(1, 1, 7, padding="SAME", use_bias=False, init="report", rngs=nnx.Rngs(3))
    layers = {
        "plain convolution": (plain, fconv_jax.rotate_image),
        "F-Conv, rotation 0": (fconv, fconv_jax.rotate_features),
    }
    rows = {}
    for name, (layer, turn_back) in layers.items():
        maps = [jax.jit(layer)(digit), turn_back(jax.jit(layer)(turned), -angle)]
        first, second = (np.asarray(m).reshape(28, 28, -1)[..., 0] for m in maps)
        digits = [("a digit", digit[0, ..., 0]), ("turned by 45°", np.asarray(turned)[0, ..., 0])]
        rows[name] = [*digits, ("features of the digit", first), ("of the turned one, turned back", second),
                      ("difference", second - first)]  # fmt: skip
    return rows


if __name__ == "__main__":
    sys.exit(main())
