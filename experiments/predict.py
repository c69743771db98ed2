"""Says which digit each image shows: a photograph, a scan or a drawing, dark on light or light on dark.

python -m experiments.predict photo.jpg drawing.png --show
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.rules import Parser, path
from experiments.runs import config, folder
from experiments.runs.exit_codes import BAD_INPUT, guarded
from experiments.settings import NAMED, WEIGHTS
from experiments.training import devices


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("predict", __doc__)
    result.add_argument("images", metavar="IMAGE", nargs="+", type=path, help="PNG, JPEG, GIF, BMP, WEBP or TIFF")
    result.add_argument(
        "--weights",
        metavar="FOLDER_OR_NAME",
        type=os.path.expanduser,
        default=WEIGHTS,
        help=f"a run's folder (seeds that failed are left out), or what fconv_jax.from_pretrained loads ({WEIGHTS})",
    )
    result.add_argument("--json", action="store_true", help="one JSON list instead of lines")
    result.add_argument("--show", action="store_true", help="also the 28 x 28 pixels that the network gets")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 if any image cannot be read (the others are answered)."""
    command = parser()
    options = command.parse_args(sys.argv[1:] if argv is None else list(argv))
    in_name = max((name for name in NAMED if name in options.weights), key=len, default="")
    devices.configure(config.model_of(Path(options.weights)) or in_name)
    unread: list[str] = []
    code = guarded(command, lambda: unread.extend(_predict(options)))
    for line in unread:
        print(f"{command.prog}: error: {command.line(line)}", file=sys.stderr)
    return code or (BAD_INPUT if unread else 0)


def _predict(options):
    from experiments.reporting import predicting  # imports jax, after its flags are set

    if folder.is_finished(where := Path(options.weights)) or (where / folder.BEST).is_dir():
        from experiments.runs.best import Evaluator  # and this Orbax and TFDS, which take a second

        networks = predicting.of_run(Evaluator(where))
    else:
        networks = predicting.of_weights(options.weights)
    return predicting.predict(options.images, networks, as_json=options.json, show=options.show)


if __name__ == "__main__":
    sys.exit(main())
