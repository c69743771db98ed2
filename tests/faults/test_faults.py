"""The short form of `python -m tests.faults`: one fault of each kind."""

import subprocess
import sys

import pytest

from tests.faults import operations


@pytest.mark.slow
def test_faults_lose_nothing_and_falsify_nothing(tmp_path):
    table = tmp_path / "faults.md"
    command = [sys.executable, "-m", "tests.faults", "--kills", "1", "--short", "--output", str(table)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    assert done.returncode == 0, done.stdout
    rows = [line.split("|")[2:6] for line in table.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == (16 if operations.COMPILER else 13)
    assert all(int(tries) > 0 and int(wrong) == 0 for tries, _, _, wrong in rows)
