"""`--help` of every command: what it does, at once."""

import subprocess
import sys
import textwrap
import time

import pytest

from experiments import audit, convert, demo, evaluate, export, figures, ladder, predict, report, run, sweep
from tests.experiments import helpers


@pytest.mark.parametrize(
    "command", [run, evaluate, sweep, report, convert, audit, figures, ladder, predict, export, demo]
)
def test_help_of_every_command(command, capsys):
    assert helpers.call(command.main, "--help") == 0
    assert command.__doc__.splitlines()[0].split(":")[0] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("module", ["run", "evaluate"])
def test_help_is_quick_and_imports_no_jax(module):
    code = f"""
        import sys
        from experiments import {module}
        try:
            {module}.main(["--help"])
        except SystemExit as ended:
            assert ended.code == 0
        print([name for name in ("jax", "flax", "orbax", "tensorflow_datasets") if name in sys.modules])
    """
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert time.monotonic() - started < 4  # 2 on a quiet machine
