"""Gathers finished runs into tables and figures, from any subset of the report's cells.

python -m experiments.report checkpoints/* --output results
"""

import sys
from collections.abc import Sequence

from experiments import missing_line
from experiments.rules import InputError, Parser, path
from experiments.runs import config


def parser() -> Parser:
    """The command line."""
    result = config.new_parser("report", __doc__)
    result.add_argument("run_dirs", metavar="RUN_DIR", nargs="*", type=path, help="default: checkpoints/setting*")
    result.add_argument("--output", metavar="DIR", type=path, required=True, help="holds the tables and figures")
    result.add_argument("--single-file", action="store_true", help="report.html holds its figures itself")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    line = config.command_line("experiments.report", argv)
    try:
        from experiments.reporting import gathering  # imports matplotlib, which --help need not wait for

        written = gathering.gather(options.run_dirs, options.output, line, options.single_file)
    except ImportError as error:
        command.error(missing_line(error))
    except InputError as error:
        command.error(str(error))
    except OSError as error:
        command.error(f"{error.filename or options.output}: {error.strerror or error}")
    print(f"saved in {options.output}/: {', '.join(written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
