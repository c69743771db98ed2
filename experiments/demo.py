"""Serves a web page on which you draw a digit and rotate it, and two networks answer.

python -m experiments.demo --port 8000
"""

import sys
from collections.abc import Sequence

from experiments.reporting import serving
from experiments.rules import InputError, Parser, whole
from experiments.runs import config


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("demo", __doc__)
    rule, text = whole(0, 65535), "0: any free one (default 8000)"
    result.add_argument("--port", type=rule, metavar="N", default=8000, help=text)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line until it is interrupted; returns the exit code."""
    command = parser()
    options = command.parse_args(sys.argv[1:] if argv is None else list(argv))
    try:
        serving.serve(options.port)
    except InputError as error:
        command.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
