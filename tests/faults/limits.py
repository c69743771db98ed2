"""A full disk, a folder that cannot be written, too few file descriptors, two runs in one folder."""

import ctypes
import os
import resource
import shutil

from tests.faults.laboratory import Findings, Laboratory, is_one_line


def full_disks(lab: Laboratory, sizes: tuple[int, ...]) -> Findings:
    """Limits the size of a file, as a full disk does; without the limit, --resume continues."""
    findings = Findings("full disk (a limit to files' size), then --resume without it")
    for size in sizes:
        folder = lab.folder("full")
        limited = lab.run(folder, prepare=_limit(resource.RLIMIT_FSIZE, size))
        code = limited.wait()
        if code != 0 and not (is_one_line(limited, code) and not (folder / "results.json").exists()):
            findings.wrong.append(f"{size} bytes: exit code {code}: {limited.complaint()[-2000:]}")
            continue
        lab.judge(findings, folder, lab.run(folder, *(["--resume"] if folder.exists() else [])))
        shutil.rmtree(folder)
    return findings


def few_descriptors(lab: Laboratory, numbers: tuple[int, ...]) -> Findings:
    """Limits the number of open files."""
    findings = Findings("too few file descriptors, then --resume with enough")
    for number in numbers:
        folder = lab.folder("few")
        limited = lab.run(folder, prepare=_limit(resource.RLIMIT_NOFILE, number))
        code = limited.wait()
        if code != 0 and not (is_one_line(limited, code) and not (folder / "results.json").exists()):
            findings.wrong.append(f"{number} descriptors: exit code {code}: {limited.complaint()[-2000:]}")
            continue
        lab.judge(findings, folder, lab.run(folder, *(["--resume"] if folder.exists() else [])))
        shutil.rmtree(folder, ignore_errors=True)
    return findings


def read_only(lab: Laboratory) -> Findings:
    """A run, an evaluation and a resume into folders that may be read only."""
    findings = Findings("a read-only folder")
    folder = lab.folder("closed")
    shutil.copytree(lab.reference, folder / "finished", ignore=shutil.ignore_patterns(".lock"))
    (folder / "finished" / "results.json").unlink()
    for path in (folder, *folder.rglob("*")):
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    tries = {
        "a new run": lab.run(folder / "new", prepare=_unprivileged),
        "a resumed run": lab.run(folder / "finished", "--resume", prepare=_unprivileged),
        "an overwritten run": lab.run(folder / "finished", "--overwrite", prepare=_unprivileged),
        "an evaluation": lab.evaluate(folder / "finished", folder / "finished", prepare=_unprivileged),
    }
    for name, process in tries.items():
        code = process.wait()
        if code == 2 and is_one_line(process, code) and not (folder / "new").exists():
            findings.refused += 1
        else:
            findings.wrong.append(f"{name}: exit code {code}: {process.complaint()[-2000:]}")
    return findings


def two_runs(lab: Laboratory) -> Findings:
    """A second run into the folder of one at work, by each way to start it."""
    findings = Findings("a second run into a folder that is in use")
    folder = lab.folder("shared")
    first = lab.run(folder)
    while not (folder / "config.json").exists() and first.poll() is None:
        pass
    seconds = [lab.run(folder, option) for option in ("--resume", "--overwrite")]
    for second in seconds:
        code = second.wait()
        if code == 2 and is_one_line(second, code):
            findings.refused += 1
        elif first.poll() is None or code != 0:  # it may come too late, after the first one's end
            findings.wrong.append(f"exit code {code}: {second.complaint()[-2000:]}")
    lab.judge(findings, folder, first)
    return findings


def _limit(kind, value):
    def prepare():
        resource.setrlimit(kind, (value, value))

    return prepare


def _unprivileged():
    """Gives up root's right to write into any folder (capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH)."""
    if os.getuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low and high words
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~0b110
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
