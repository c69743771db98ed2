"""Stops and failures of the programs as processes: Ctrl-C at any instant, readers that leave, what is missing."""

import os
import signal
import subprocess
import sys

import pytest

from tests.experiments import helpers, small_digits

pytestmark = pytest.mark.unoptimized  # what is asked is when they stop

OPTIONS = [*helpers.QUICK[4:], "--epochs", "400"]
RUN = ["experiments.run", "--setting", "1", "--model", "lenet", *OPTIONS]
SWEEP = ["experiments.sweep", "--settings", "1", "--models", "lenet", *OPTIONS]


def start(tmp_path, words, *flags, **more):
    """A program as a process of its own; stderr comes with stdout."""
    data = [] if "experiments.report" in words else ["--data-dir", tmp_path / "data"]
    command = [sys.executable, *flags, "-m", *words, *data, "--output", tmp_path / "out"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


EARLY = [(RUN, "| experiments.rules"), (RUN, "| experiments.runs.config")]
EARLY += [(["experiments.evaluate", "nowhere"], "| experiments.rules")]
LATE = [(RUN, part) for part in ("| matplotlib", "| jax._src.", "| orbax", "train, 0 of", "400 epochs of")]
LATE += [(RUN, "expected duration"), (SWEEP, "training 1 of 1"), (SWEEP, "400 epochs of")]
QUICK = ("| jax._src.", "train, 0 of", "400 epochs of")
INSTANTS = [(*case, number) for case in EARLY for number in (signal.SIGINT, signal.SIGTERM)]
INSTANTS += [
    pytest.param(*case, signal.SIGINT, marks=pytest.mark.slow if case[1] in QUICK else pytest.mark.long)
    for case in LATE
]
INSTANTS += [pytest.param(*case, signal.SIGTERM, marks=pytest.mark.long) for case in LATE]


@pytest.mark.parametrize(("words", "instant", "number"), INSTANTS)
def test_a_signal_is_never_swallowed(tmp_path, words, instant, number):
    """The list of imports says where the process is."""
    environment = None if instant == "train, 0 of" else small_digits.environment(tmp_path / "site")
    process = start(tmp_path, words, "-X", "importtime", env=environment)
    for line in process.stdout:
        if instant in " ".join(line.split()):
            break
    process.send_signal(number)
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 130, rest[-2000:]
    assert "interrupted: " in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "out" / "results.json").exists()


WITHOUT = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("matplotlib", RUN),
        ("filelock", RUN),
        ("jax", ["experiments.evaluate", "nowhere"]),
        ("matplotlib", ["experiments.report", "nowhere"]),
        ("rich", SWEEP),
        pytest.param("optax", RUN, marks=pytest.mark.slow),
    ],
)
def test_a_missing_package_is_one_line_before_anything_is_done(tmp_path, name, words):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT.format(name=name))
    process = start(tmp_path, words, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")})
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 2, said
    line = said.strip().splitlines()[-1]
    assert f"error: {name} is not installed: pip install -r requirements.txt" in line
    assert "requirements.txt" in line
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "flags", [pytest.param([], marks=pytest.mark.slow), pytest.param(["-OO"], marks=pytest.mark.long)], ids=str
)  # -OO: without assertions and docstrings; every package is compiled for it
def test_a_run_ends_whoever_reads(tmp_path, flags):
    """Its reader leaves after the first line; names are printed as they are, in a command that can be pasted.

    In a locale without UTF-8.
    """
    environment = small_digits.environment(tmp_path / "site")
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [*RUN[:-1], "1"]
    process = start(tmp_path / "a :smile: b'c", words, *flags, env=environment)
    said = process.stdout.readline()
    assert said
    process.stdout.close()
    assert process.wait(timeout=240) == 0
    assert (tmp_path / "a :smile: b'c" / "out" / "results.json").exists()
    again = start(tmp_path / "a :smile: b'c", [*words, "--resume"], *flags, env=environment)
    assert "a :smile: b'c/out is finished" in again.communicate(timeout=240)[0]
