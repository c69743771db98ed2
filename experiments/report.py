"""Gathers finished runs into tables and figures, whatever subset of the report's cells exists.

python -m experiments.report checkpoints/* --output results
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import arguments, folders, plots, tables
from experiments.arguments import InputError

_COPIED = (folders.RESULTS, folders.CONFIG, folders.CURVES, "angles.csv")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__.splitlines()[0])
    result.add_argument("run_dirs", metavar="RUN_DIR", nargs="*", type=Path, help="default: every run in checkpoints/")
    result.add_argument("--output", metavar="DIR", type=Path, required=True, help="holds the tables and figures")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    command = parser()
    options = command.parse_args(argv)
    try:
        written = write(options.run_dirs, options.output, arguments.command_line("experiments.report", argv))
    except (InputError, OSError) as error:
        command.error(str(error))
    print(f"saved in {options.output}/: {', '.join(written)}")
    return 0


def write(run_dirs: list[Path], output: Path, command: str) -> list[str]:
    """Copies the runs' numbers to OUTPUT/DATASET/settingN_MODEL/ and writes the tables and figures.

    Cells that are in `output` already, from earlier calls, are taken in.

    Raises:
      InputError: no finished run, or one whose results cannot be read.
    """
    named = bool(run_dirs)
    run_dirs = run_dirs or sorted(Path("checkpoints").glob("setting*"))
    new = [folder for folder in run_dirs if (folder / folders.RESULTS).exists()]
    missing = sorted(set(run_dirs) - set(new))
    if named and missing:
        raise InputError(f"{missing[0]} is not a finished run: it has no {folders.RESULTS}")
    for folder in new:
        cell = _read(folder)
        target = output / cell["dataset"] / f"setting{cell['setting']}_{cell['model']}"
        if target.resolve() != folder.resolve():
            target.mkdir(parents=True, exist_ok=True)
            for name in _COPIED:
                if (folder / name).exists():
                    shutil.copyfile(folder / name, target / name)
    kept = sorted(path.parent for path in output.glob("*/setting*_*/results.json"))
    if not kept:
        raise InputError("no finished run found: name the folders of finished runs, or train one first")
    cells = [_read(folder) for folder in kept]
    (output / "figures").mkdir(parents=True, exist_ok=True)
    tables.write_table(output, cells, command)
    plots.plot_cells(output / "figures" / "figure3.png", cells)
    written = ["table2.md", "table2.csv", "figures/figure3.png"]
    angles = {_title(_read(folder)): folder / "angles.csv" for folder in kept if (folder / "angles.csv").exists()}
    if angles:
        plots.plot_angle_files(output / "figures" / "angles.png", angles)
        written.append("figures/angles.png")
    return written


def _title(cell):
    return f"{cell['model']}, setting {cell['setting']}, {cell['dataset']}"


def _read(folder):
    path = folder / folders.RESULTS
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
        tables.table_rows([cell])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a run's results ({type(error).__name__}: {error})") from error
    return cell


if __name__ == "__main__":
    sys.exit(main())
