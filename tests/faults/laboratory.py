"""Commands run in forked processes that can be killed and limited, and what they leave behind.

The parent imports everything once and never uses jax, so that a fork starts within a second.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from experiments.training import devices

RUN = ("--setting", "1", "--model", "lenet", "--dataset", "mnist_5k")
SMALL = (*RUN, "--seeds", "0", "--epochs", "1", "--batch-size", "32")
"""Options of a run on some 100 synthetic images (`use_small_digits`)."""
BACKGROUND = ("train_images_per_second", "compile_seconds", "wall_seconds", "command")
"""Fields of results.json that differ between two equal runs."""


@dataclasses.dataclass
class Findings:
    """What came of one kind of fault.

    continued: tries after which the numbers were right; refused: those that ended in one clear line.
    wrong: a sentence for each other outcome.
    """

    name: str
    continued: int = 0
    refused: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)

    @property
    def tries(self) -> int:
        """How often the fault was made."""
        return self.continued + self.refused + len(self.wrong)


class Process:
    """A forked process that runs `action`; `prepare` is called before and sets its limits."""

    def __init__(self, action: Callable[[], int], prepare: Callable[[], None] = lambda: None):
        # A pipe, which no limit to files concerns; large enough for all that is said, so nobody need read meanwhile.
        self._output, theirs = os.pipe()
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 1 << 20)
        self._said, self._started = b"", time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._output)
            _become(action, theirs, prepare)
        os.close(theirs)

    def kill_after(self, seconds: float) -> None:
        """Kills it (SIGKILL) that many seconds after its start, if it still runs."""
        while self.poll() is None and time.monotonic() - self._started < seconds:
            time.sleep(0.001)
        self.kill()

    def kill_when(self, condition: Callable[[], bool], then: float = 0.0) -> None:
        """Kills it `then` seconds after `condition` becomes true, if it still runs."""
        while self.poll() is None and not condition():
            time.sleep(0.0005)
        time.sleep(then)
        self.kill()

    def kill(self) -> None:
        """Kills it and waits for its end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    _code = None

    def poll(self) -> int | None:
        """Its exit code (the negative signal if one ended it), or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float = 600.0) -> int:
        """Its exit code; a process that hangs is killed and counts as -1000."""
        limit = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self._code = -1000
            time.sleep(0.005)
        return self._code

    def complaint(self) -> str:
        """What it wrote; call it after its end."""
        if self._output is not None:
            with open(self._output, "rb") as file:
                self._said, self._output = file.read(), None
        return self._said.decode(errors="replace")


def _become(action, output, prepare):
    code = 70
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        prepare()
        code = action()
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 70)


class Laboratory:
    """A folder with prepared data and one uninterrupted run, the measure of all others; neither if not `trained`.

    Runs have six epochs and two seeds; in the `short` form three epochs of one seed on synthetic digits.
    """

    def __init__(self, root: Path, seed: int = 0, *, short: bool = False, trained: bool = True):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "cache")
        devices.configure("lenet", 1 if short else 2)
        os.environ["MPLCONFIGDIR"] = str(root / "matplotlib")
        from experiments import evaluate, run  # noqa: F401 (imported before the fork)
        from experiments.reporting import evaluation, plots  # noqa: F401
        from experiments.runs import train  # noqa: F401
        from experiments.training import loop

        # Every epoch is saved, so that most kills find saves of all ages.
        loop.SAVING_SHARE, loop.SHORTEST_SECONDS = 1.0, 0.0
        self.short, self.epochs = short, 3 if short else 6
        self.words = (*(SMALL if short else (*RUN, "--seeds", "0,3")), "--epochs", str(self.epochs))
        self.root, self.draw, self._count = root, random.Random(seed), 0
        self.data, self.reference = root / "data", root / "reference"
        self.seconds, self.numbers = 0.0, {}
        if trained:
            self._prepare()
            self._train()

    def _prepare(self):
        from experiments import data

        process = Process(lambda: data.load("mnist_5k", 1, data_dir=self.data) is None)
        if process.wait() != 0:
            raise RuntimeError(f"the data cannot be prepared:\n{process.complaint()}")

    def _train(self):
        for _ in range(2):  # the second one with compiled programs
            shutil.rmtree(self.reference, ignore_errors=True)
            started = time.monotonic()
            process = self.run(self.reference)
            if process.wait() != 0:
                raise RuntimeError(f"the uninterrupted run failed:\n{process.complaint()}")
            self.seconds = time.monotonic() - started
        self.numbers = numbers(self.reference)

    def folder(self, name: str) -> Path:
        """A new folder's path."""
        self._count += 1
        return self.root / f"{name}{self._count}"

    def start(self, main: Callable[..., int], *argv: str, prepare: Callable[[], None] = lambda: None) -> Process:
        """Starts a command line."""

        def action():
            if self.short:
                use_small_digits()
            return main(list(map(str, argv)))

        return Process(action, prepare)

    def run(self, folder: Path, *more: str, **options) -> Process:
        """Starts the run that all are compared with, in `folder`."""
        from experiments import run

        return self.start(run.main, *self.words, "--data-dir", self.data, "--output", folder, *more, **options)

    def evaluate(self, folder: Path, output: Path, **options) -> Process:
        """Starts an evaluation."""
        from experiments import evaluate

        return self.start(evaluate.main, folder, "--data-dir", self.data, "--output", output, **options)

    def judge(self, findings: Findings, folder: Path, process: Process, may_refuse: bool = False) -> None:
        """Notes what a run came to: right numbers, one line and no numbers, or something that must not be."""
        code = process.wait()
        if code == 0 and (folder / "results.json").exists():
            same = numbers(folder) == self.numbers
            findings.continued += same
            findings.wrong += [] if same else [f"{folder.name}: other numbers"]
        elif may_refuse and is_one_line(process, code) and not (folder / "results.json").exists():
            findings.refused += 1
        else:
            findings.wrong.append(f"{folder.name}: exit code {code}: {process.complaint()[-2000:]}")


def use_small_digits() -> None:
    """Lets this process load synthetic digits, and compile without optimizations: that takes longer than training."""
    import jax

    from experiments import data
    from tests.experiments import small_digits

    jax.config.update("jax_disable_most_optimizations", True)
    data.load = small_digits.load


def is_one_line(process: Process, code: int) -> bool:
    """Whether a process said in one line what is wrong, and ended as such."""
    said = process.complaint()
    told = [line for line in said.splitlines() if ": error: " in line or ": failed: " in line]
    return code in (1, 2) and len(told) == 1 and "Traceback" not in said


def numbers(folder: Path) -> dict:
    """A finished run's results without what differs between two equal runs."""
    contents = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in contents.items() if name not in BACKGROUND}
