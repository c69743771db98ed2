"""One byte changed in every file of a checkpoint in turn."""

import shutil
from pathlib import Path

from tests.faults.laboratory import Findings, Laboratory, is_one_line, numbers


def change_best(lab: Laboratory, every: int = 1) -> Findings:
    """Changes best/, which `evaluate` reads."""
    good = lab.root / "evaluated"
    if lab.evaluate(lab.reference, good).wait() != 0:
        raise RuntimeError("the finished run cannot be evaluated")
    findings = Findings("a byte changed in each file of best/, then evaluate")
    for folder, name in _changed(lab, lab.reference, "best", every):
        output = lab.folder("evaluation")
        process = lab.evaluate(folder, output)
        code = process.wait()
        if code == 0 and _is_metadata(name):
            same = _accuracy(output) == _accuracy(good)
            findings.continued += same
            findings.wrong += [] if same else [f"{name}: other numbers"]
        elif code == 2 and is_one_line(process, code) and not output.exists():
            findings.refused += 1
        else:
            findings.wrong.append(f"{name}: exit code {code}: {process.complaint()[-2000:]}")
    return findings


def change_resume(lab: Laboratory, every: int = 1) -> Findings:
    """Changes resume/, which `run --resume` reads."""
    begun = lab.folder("begun")
    resume = begun / "resume"
    lab.run(begun).kill_when(lambda: resume.is_dir() and sum(path.name.isdigit() for path in resume.iterdir()) > 0)
    findings = Findings("a byte changed in each file of resume/, then --resume")
    for folder, name in _changed(lab, begun, "resume", every):
        process = lab.run(folder, "--resume")
        code = process.wait()
        if code == 0 and _is_metadata(name):
            same = numbers(folder) == lab.numbers
            findings.continued += same
            findings.wrong += [] if same else [f"{name}: other numbers"]
        elif code == 2 and is_one_line(process, code) and not (folder / "results.json").exists():
            findings.refused += 1
        else:
            findings.wrong.append(f"{name}: exit code {code}: {process.complaint()[-2000:]}")
    return findings


def _changed(lab, original, part, every):
    """Copies of a run's folder, each with one byte changed in one file of `part`."""
    files = sorted(path.relative_to(original) for path in (original / part).rglob("*") if path.is_file())
    for name in files[::every]:
        contents = bytearray((original / name).read_bytes())
        if not contents or "tmp" in str(name):
            continue
        folder = lab.folder("changed")
        shutil.copytree(original, folder, ignore=shutil.ignore_patterns(".lock"))
        contents[lab.draw.randrange(len(contents))] ^= 1 << lab.draw.randrange(8)
        (folder / name).write_bytes(contents)
        yield folder, str(name)
        shutil.rmtree(folder)


def _is_metadata(name: str) -> bool:
    """Whether a file holds no values of arrays: Orbax may do without it."""
    return "/d/" not in f"/{name}"


def _accuracy(output: Path):
    import json

    return json.loads((output / "evaluation.json").read_text())["confusion"]
