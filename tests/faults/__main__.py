"""Makes faults happen to runs and data preparations and checks that nothing is lost and no number is wrong.

python -m tests.faults --kills 20 --output results/faults.md
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import changed_bytes, kills, limits, operations
from tests.faults.laboratory import Laboratory


def main() -> int:
    """Runs all faults; the exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="of each kind (default 20)")
    parser.add_argument("--short", action="store_true", help="few files, limits and digits: the form that CI runs")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--only", default="", help="names of faults, such as saves,runs (default all)")
    parser.add_argument("--output", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    operations.preload()
    rows, started = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        only = options.only.split(",") if options.only else []
        trained = not only or not set(only) <= operations.NAMES
        lab = Laboratory(Path(folder), options.seed, short=options.short, trained=trained)
        print(f"uninterrupted run: {lab.seconds:.1f} s", flush=True)
        checks = _checks(lab, options)
        for name in only or checks:
            findings = checks[name]()
            rows.append(findings)
            print(f"{findings.name}: {findings.tries} tries, {findings.continued} continued to the same numbers, "
                  f"{findings.refused} refused in one line, {len(findings.wrong)} wrong", flush=True)  # fmt: skip
            for wrong in findings.wrong:
                print(f"  WRONG: {wrong}", flush=True)
    operations.clean()
    if options.output:
        seconds = time.monotonic() - started
        options.output.write_text(_table(rows, lab, seconds), encoding="utf-8")
        print(f"saved in {options.output}")
    return int(any(findings.wrong for findings in rows))


def _checks(lab, options):
    """The faults by name, each a function that makes them; in the short form every 16th file or the like."""
    short, count = options.short, options.kills
    sizes = (200_000,) if short else (0, 100, 1_000, 20_000, 200_000, 1_000_000, 2_500_000, 20_000_000)
    numbers = (24,) if short else (6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 128)
    every, sparse = (16, 80) if short else (1, 1)
    checks = {
        "kill_runs": lambda: kills.kill_runs(lab, count),
        "kill_saves": lambda: kills.kill_saves(lab, count),
        "kill_preparations": lambda: kills.kill_preparations(lab, count),
        "best": lambda: changed_bytes.change_best(lab, every),
        "resume": lambda: changed_bytes.change_resume(lab, every),
        "values": lambda: changed_bytes.change_values(lab, 4 if short else 1),
        "blocks_of_best": lambda: changed_bytes.change_blocks(lab, "best", sparse),
        "blocks_of_resume": lambda: changed_bytes.change_blocks(lab, "resume", sparse),
        "blocks_of_data": lambda: changed_bytes.change_data(lab, 10 * sparse if short else 1),
        "disks": lambda: limits.full_disks(lab, sizes),
        "descriptors": lambda: limits.few_descriptors(lab, numbers),
        "read_only": lambda: limits.read_only(lab),
        "two_runs": lambda: limits.two_runs(lab),
    }
    if operations.COMPILER:
        checks |= {
            "saves": lambda: operations.fail_saves(lab, sparse),
            "runs": lambda: operations.fail_runs(lab, 8 * sparse if short else 1),
            "preparations": lambda: operations.fail_preparations(lab, 12 if short else 1),
        }
    return checks


def _table(rows, lab, seconds):
    lines = [
        "# Faults: kills, full disks, corrupt files", "",
        f"`{shlex.join(['python', '-m', 'tests.faults', *sys.argv[1:]])}` on {os.cpu_count()} cores, "
        f"{seconds / 60:.0f} minutes. Each fault happens to a run: `python -m experiments.run {shlex.join(lab.words)}` "
        f"({lab.seconds:.1f} s uninterrupted, saved after every epoch). \"Same numbers\": `results.json` equals that "
        "of the uninterrupted run, bit for bit. \"Refused\": exit code 1 or 2 and one line; no results. "
        "\"Wrong\": anything else.", "",
        "| fault | tries | then the same numbers | refused in one line | wrong |", "|---|---|---|---|---|",
        *(f"| {row.name} | {row.tries} | {row.continued} | {row.refused} | {len(row.wrong)} |" for row in rows), "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
