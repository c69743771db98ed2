"""Writes one seed of a run, or a network of fconv_jax.from_pretrained, as a file for other programs.

python -m experiments.export checkpoints/setting3_lenet_fconv_invariant_mnist_5k --format onnx --output digits.onnx
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.rules import Parser, one_of, path, whole
from experiments.runs import config
from experiments.runs.exit_codes import guarded
from experiments.settings import EXPORT_FORMATS
from experiments.training import devices


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("export", __doc__)
    text = "folder of a finished run or of save_pretrained, or a packaged network's name"
    result.add_argument("run_dir", metavar="RUN_DIR|FOLDER", type=_place, help=text)
    listed = "; ".join(f"{name}: {what}" for name, what in EXPORT_FORMATS.items())
    rule = one_of(EXPORT_FORMATS)
    result.add_argument("--format", type=rule, metavar=rule.shown, required=True, help=listed)
    result.add_argument("--output", metavar="PATH", type=path, required=True, help="a new file or folder")
    seed = "default: the seed with the best validation accuracy"
    size = "height and width of the images, of a network that takes any: an onnx or stablehlo file is for one size"
    result.add_argument("--size", type=whole(1), metavar="N", help=size)
    result.add_argument("--seed", type=whole(0, 2**32 - 1), metavar="S", help=seed)
    return result


def _place(word):
    """A path; ./NAME stays as it is, a folder where NAME alone is a packaged network."""
    found = path(word)
    return word if word.startswith("./") else found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    command = parser()
    options = command.parse_args(sys.argv[1:] if argv is None else list(argv))
    devices.configure(config.model_of(Path(options.run_dir)))
    return guarded(command, lambda: _export(options))


def _export(options):
    from experiments.reporting import exporting  # imports jax, after its flags are set

    seed = exporting.export(options.run_dir, options.format, options.output, options.seed, options.size)
    print(f"saved {'the network' if seed is None else f'seed {seed}'} in {options.output}")


if __name__ == "__main__":
    sys.exit(main())
