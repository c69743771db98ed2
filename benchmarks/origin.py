"""Where a benchmark's figures come from, for the page that shows them."""

import subprocess
from pathlib import Path

import jax

from experiments.training.devices import device_name


def origin() -> str:
    """The device, jax's version and the commit; "and changes" if a Python file of the repository differs from it."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"], capture_output=True).returncode
    made_by = f"commit {commit}{' and changes' if changed else ''}" if commit else "no commit"
    return f"{device_name()}, jax {jax.__version__}, {made_by}"
