"""SIGKILL at random moments of a run, of a save and of a data preparation."""

import hashlib
import shutil
import time
from pathlib import Path

from tests.faults.laboratory import Findings, Laboratory, Process


def kill_runs(lab: Laboratory, count: int) -> Findings:
    """Kills a run at a moment between its start and its end, every other one a second time, and resumes it."""
    findings = Findings("kill of a run at a random moment, then --resume")
    for number in range(count):
        folder = lab.folder("killed")
        lab.run(folder).kill_after(lab.draw.uniform(0, lab.seconds))
        if number % 2:
            lab.run(folder, "--resume").kill_after(lab.draw.uniform(0, lab.seconds))
        lab.judge(findings, folder, lab.run(folder, "--resume"))
        shutil.rmtree(folder)
    return findings


def kill_saves(lab: Laboratory, count: int) -> Findings:
    """Kills a run within the first milliseconds of one of its saves, in resume/ or best/, and resumes it."""
    findings = Findings("kill within a save, then --resume")
    for number in range(count):
        folder, place = lab.folder("saving"), ("resume", "resume", "resume", "best")[number % 4]
        after = lab.draw.randrange(lab.epochs - 2) if place == "resume" else 0
        process = lab.run(folder)
        process.kill_when(_Saving(folder / place, after), then=lab.draw.uniform(0, 0.03))
        lab.judge(findings, folder, lab.run(folder, "--resume"))
        shutil.rmtree(folder)
    return findings


class _Saving:
    """Whether a save is under way in a folder, the first of those after `after` finished ones."""

    def __init__(self, folder: Path, after: int):
        self.folder, self.after, self.finished = folder, after, set()

    def __call__(self) -> bool:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return False
        self.finished |= {name for name in names if name.isdigit()}
        return len(self.finished) >= self.after and any("tmp" in name for name in names)


def kill_preparations(lab: Laboratory, count: int) -> Findings:
    """Kills the preparation of setting 4 (short: 1) at a moment between its start and its end, and prepares again."""
    findings = Findings("kill of a data preparation, then again")
    wanted = lab.folder("prepared")
    started = time.monotonic()
    first = _prepare(lab, wanted)
    if first.wait() != 0:
        raise RuntimeError(first.complaint())
    seconds, digest = time.monotonic() - started, first.complaint()
    for _ in range(count):
        folder = lab.folder("preparing")
        _prepare(lab, folder).kill_after(lab.draw.uniform(0, seconds))
        again = _prepare(lab, folder)
        if again.wait() == 0 and again.complaint() == digest:
            findings.continued += 1
        else:
            findings.wrong.append(f"{folder.name}: {again.complaint()[-2000:]}")
        shutil.rmtree(folder)
    return findings


def _prepare(lab: Laboratory, folder: Path) -> Process:
    """Prepares and loads a setting; writes the digest of what it got."""

    def action():
        from experiments.data import load

        total = hashlib.sha256()
        for split in load("mnist_5k", 1 if lab.short else 4, data_dir=folder, progress=lambda line: None).values():
            for array in (split.images, split.labels, split.angles):
                total.update(array.tobytes())
        print(total.hexdigest())
        return 0

    return Process(action)
