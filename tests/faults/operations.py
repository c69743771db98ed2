"""Every operation on files fails once: the first one, then the second one, ... until none is left.

A small library (`failing.c`), compiled at run time and preloaded, sees native writes (Orbax, ArrayRecord) too.
"""

import ctypes
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.laboratory import SMALL, Findings, Laboratory, Process, is_one_line, numbers, use_small_digits

_LOADED = "FAULTS_LIBRARY"
COMPILER = shutil.which("cc")
NAMES = {"saves", "runs", "preparations"}
ERRORS = (errno.ENOSPC, errno.EIO)


def preload() -> None:
    """Starts this process anew with the library before all others, unless that is done or there is no compiler."""
    if not COMPILER or os.environ.get(_LOADED):
        return
    library = Path(tempfile.mkdtemp()) / "failing.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, Path(__file__).with_name("failing.c")], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), _LOADED: str(library)}
    os.execve(sys.executable, [sys.executable, "-m", "tests.faults", *sys.argv[1:]], environment)


def clean() -> None:
    """Removes the library."""
    if loaded := os.environ.get(_LOADED):
        shutil.rmtree(Path(loaded).parent)


def _arm(folder: Path | str, which: int = 0, error: int = 0):
    """Makes operation `which` (from 1) below `folder` fail; returns how to learn (number of operations, the failed)."""
    library = ctypes.CDLL(None)
    library.faults_what.restype = ctypes.c_char_p
    library.faults_arm(str(folder).encode(), which, error)
    return lambda: (library.faults_seen(), library.faults_what().decode())


class _Fault(Process):
    """An action in which operation `which` below `folder` fails; `seen` and `what` tell what came of it at its end."""

    def __init__(self, folder: Path, which: int, error: int, action, note: Path):
        def faulty():
            learn = _arm(folder, which, error)
            try:
                return action()
            finally:
                seen = learn()
                _arm("")
                note.write_text(json.dumps(seen))

        super().__init__(faulty)
        self._note = note

    def outcome(self) -> tuple[int, int, str]:
        """(exit code, number of operations, the one that failed)."""
        code = self.wait()
        seen, what = json.loads(self._note.read_text()) if self._note.exists() else (0, "and it died")
        self._note.unlink(missing_ok=True)
        return code, seen, what


def _each(lab, findings, every, attempt, k=1):
    """Calls `attempt(folder, k, error)` for k, k + every, ... until a process ends before its operation k.

    `attempt` returns (number of operations, the failed one, "continued" or "refused" or what is wrong).
    """
    while True:
        folder = lab.folder("operation")
        seen, what, came = attempt(folder, k, ERRORS[(k - 1) // every % 2])
        shutil.rmtree(folder, ignore_errors=True)
        if not what and came == "continued":  # this many operations are not there
            return findings
        if came in ("continued", "refused"):
            setattr(findings, came, getattr(findings, came) + 1)
        else:
            findings.wrong.append(f"operation {k} of {seen}, {what}: {came}")
        if seen < k:
            return findings
        k += every


def fail_saves(lab: Laboratory, every: int = 1) -> Findings:
    """A save beside an earlier one; what is read afterwards is one of them, whole, and the next save works."""
    findings = Findings("each file operation of a save fails once, then a restore and a save")

    def attempt(folder, k, error):
        first = Process(lambda: _save(folder / "saves", 1))
        if first.wait():
            raise RuntimeError(first.complaint())
        process = _Fault(folder / "saves", k, error, lambda: _save(folder / "saves", 2), lab.root / "note")
        code, seen, what = process.outcome()
        after = Process(lambda: _read_and_save(folder / "saves"))
        if after.wait():
            return seen, what, f"wrong afterwards: {after.complaint()[-1000:]}"
        read = int(after.complaint().split()[-1])
        if code == 0:
            return seen, what, "continued" if read == 2 else f"wrong: saved, but save {read} is read"
        said = is_one_line(process, code)
        return seen, what, "refused" if said else f"wrong: exit code {code}: {process.complaint()[-1000:]}"

    return _each(lab, findings, every, attempt)


def _tree(step):
    import numpy as np

    draw = np.random.default_rng(step)
    return {"params": {name: draw.normal(size=(2, 40)).astype(np.float32) for name in ("bias", "kernel")}}


def _save(folder, step):
    from experiments.runs.checkpoints import Checkpoints

    try:
        saver = Checkpoints(folder)
        try:
            saver.save(step, _tree(step), {"step": step})
        finally:
            saver.close()
    except OSError as error:
        print(f"save: failed: {error}")
        return 1
    return 0


def _read_and_save(folder):
    """Prints which of the saves 1 and 2 is read; a third one works and is read after them."""
    import jax
    import numpy as np

    from experiments.runs import checkpoints

    def read():
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), _tree(0))
        arrays, record = checkpoints.restore(folder, target)
        jax.tree.map(np.testing.assert_array_equal, arrays, _tree(record["step"]))
        return record["step"]

    found = read()
    code = _save(folder, 3)
    if code or read() != 3:
        print("the next save fails")
        return 71
    print(found)
    return 0


def fail_runs(lab: Laboratory, every: int = 1, first: int = 1) -> Findings:
    """A small run from nothing to its results; where it is refused, --resume comes to the same numbers."""
    findings = Findings("each file operation of a run fails once, then --resume")
    reference = lab.folder("small")
    for _ in range(1 if lab.short else 2):  # the second one with compiled programs, as the laboratory has in short
        shutil.rmtree(reference, ignore_errors=True)
        if (process := Process(lambda: _run(reference))).wait():
            raise RuntimeError(process.complaint())
    expected = numbers(reference)

    def attempt(folder, k, error):
        process = _Fault(folder, k, error, lambda: _run(folder), lab.root / "note")
        code, seen, what = process.outcome()
        if code and not is_one_line(process, code):
            return seen, what, f"wrong: exit code {code}: {process.complaint()[-1000:]}"
        resume = ["--resume"] if folder.exists() and any(p.name != ".lock" for p in folder.iterdir()) else []
        if (folder / "results.json").exists() and numbers(folder) != expected:
            return seen, what, "wrong: other numbers"
        again = Process(lambda: _run(folder, *resume))
        if again.wait() or numbers(folder) != expected:
            return seen, what, f"wrong afterwards: {again.complaint()[-1000:]}"
        if code:
            return seen, what, "refused"
        best = Process(lambda: _evaluate(folder, lab.root / "small_evaluation"))
        return seen, what, f"wrong best/: {best.complaint()[-1000:]}" if best.wait() else "continued"

    return _each(lab, findings, every, attempt, first)


def _run(folder, *more):
    from experiments import run

    use_small_digits()
    return run.main([*SMALL, "--output", str(folder), *more])


def _evaluate(folder, output):
    from experiments import evaluate

    use_small_digits()
    return evaluate.main([str(folder), "--output", str(output)])


def fail_preparations(lab: Laboratory, every: int = 1) -> Findings:
    """The preparation of a data set and its first reading; then it is prepared again."""
    findings = Findings("each file operation of a data preparation fails once, then again")
    first = Process(lambda: load(lab.folder("right")))
    if first.wait():
        raise RuntimeError(first.complaint())
    expected = first.complaint()

    def attempt(folder, k, error):
        process = _Fault(folder, k, error, lambda: load(folder), lab.root / "note")
        code, seen, what = process.outcome()
        if code and not is_one_line(process, code):
            return seen, what, f"wrong: exit code {code}: {process.complaint()[-1000:]}"
        if not code and process.complaint() != expected:
            return seen, what, "wrong: other images"
        again = Process(lambda: load(folder))
        if again.wait() or again.complaint() != expected:
            return seen, what, f"wrong afterwards: {again.complaint()[-1000:]}"
        return seen, what, "refused" if code else "continued"

    return _each(lab, findings, every, attempt)


def load(folder: Path) -> int:
    """Prepares and loads mnist_5k; prints its digest, or why it cannot be used, as the programs do."""
    from experiments import data

    try:
        splits = data.load("mnist_5k", 1, data_dir=folder)
    except data.DataError as error:
        print(f"load: error: {error}")
        return 2
    total = hashlib.sha256()
    for split in splits.values():
        for array in (split.images, split.labels, split.angles):
            total.update(array.tobytes())
    print(total.hexdigest())
    return 0
