"""Where a benchmark's figures come from, for the page that shows them."""

import jax

from experiments.runs.results import commit
from experiments.training.devices import device_name


def origin() -> str:
    """The device, jax's version and the commit; "and changes" if a Python file of the repository differs from it."""
    made_by = commit()
    return f"{device_name()}, jax {jax.__version__}, {f'commit {made_by}' if made_by else 'no commit'}"
