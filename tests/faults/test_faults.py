"""The short form of `python -m tests.faults`: one fault of each kind."""

import subprocess
import sys

import pytest

from tests.faults import operations

QUICK = [
    "kill_runs",
    "kill_saves",
    "values",
    "disks",
]  # the others before a release; their like is in other tests


@pytest.mark.parametrize(
    ("only", "kinds"),
    [
        pytest.param([*QUICK, *["saves", "preparations"] * bool(operations.COMPILER)], None, marks=pytest.mark.slow),
        pytest.param([], 16 if operations.COMPILER else 13, marks=pytest.mark.long),
    ],
    ids=["some", "all"],
)
def test_faults_lose_nothing_and_falsify_nothing(tmp_path, only, kinds):
    table = tmp_path / "faults.md"
    command = [sys.executable, "-m", "tests.faults", "--kills", "1", "--short", "--output", str(table)]
    command += ["--only", ",".join(only)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    assert done.returncode == 0, done.stdout
    rows = [line.split("|")[2:6] for line in table.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == (kinds or len(only))
    assert all(int(tries) > 0 and int(wrong) == 0 for tries, _, _, wrong in rows)
