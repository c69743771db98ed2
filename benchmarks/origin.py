"""Where a benchmark's figures come from, for the page that shows them."""

import subprocess
from pathlib import Path

import jax

from benchmarks.data import machine


def origin() -> str:
    """The processor, the number of cores, jax's version and the commit; "and changes" if files differ from it."""
    found = machine()
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"], capture_output=True).returncode
    made_by = f"commit {commit}{' and changes' if changed else ''}" if commit else "no commit"
    return f"{found['processor']}, {found['cores']} cores, jax {jax.__version__}, {made_by}"
