"""One byte changed in every file of a checkpoint in turn."""

import json
import shutil
from pathlib import Path

from tests.faults.laboratory import Findings, Laboratory, Process, is_one_line, numbers

BLOCK = 4096


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
        right = code == 0 and _confusion(output) == _confusion(good)
        _note(findings, name, process, code, right=right, absent=not output.exists())
    return findings


def change_resume(lab: Laboratory, every: int = 1) -> Findings:
    """Changes resume/, which `run --resume` reads."""
    started = lab.folder("started")
    resume = started / "resume"
    lab.run(started).kill_when(lambda: resume.is_dir() and sum(path.name.isdigit() for path in resume.iterdir()) > 0)
    findings = Findings("a byte changed in each file of resume/, then --resume")
    for folder, name in _changed(lab, started, "resume", every):
        process = lab.run(folder, "--resume")
        code = process.wait()
        results = folder / "results.json"
        right = code == 0 and results.exists() and numbers(folder) == lab.numbers
        _note(findings, name, process, code, right=right, absent=not results.exists())
    return findings


def change_values(lab: Laboratory, every: int = 1) -> Findings:
    """Changes one bit of a value of each array and saves all again beside the old digest.

    The files of a checkpoint also hold bytes that no restore reads (indices that a later one replaces), where a
    changed byte rightly goes unnoticed; here each change is one of a value, and each must be found.
    """
    findings = Findings("one bit changed in a value of each array of best/, then evaluate")
    for name, folder in _changed_values(lab, every):
        output = lab.folder("evaluation")
        process = lab.evaluate(folder, output)
        code = process.wait()
        _note(findings, name, process, code, right=False, absent=not output.exists())
        shutil.rmtree(folder)
    return findings


def change_blocks(lab: Laboratory, part: str, every: int = 1) -> Findings:
    """Changes a byte in every 4 KiB of best/ or resume/, which are then restored, all in one process."""
    folder = lab.folder("blocks")
    shutil.copytree(lab.reference / part, folder)
    findings = Findings(f"a byte changed in every 4 KiB of {part}/, then a restore")
    return _in_blocks(lab, findings, folder, every, lambda: _restoring(folder))


def change_data(lab: Laboratory, every: int = 1) -> Findings:
    """Changes a byte in every 4 KiB of a prepared data set, which is then loaded, all in one process."""
    folder = lab.folder("data")
    shutil.copytree(lab.data, folder)
    findings = Findings("a byte changed in every 4 KiB of a prepared data set, then loaded")
    return _in_blocks(lab, findings, folder, every, lambda: _loading(folder))


def _in_blocks(lab, findings, folder, every, prepare):
    """`prepare` returns a function that gives what the folder holds and raises `InputError` if that cannot be used."""
    places = [
        (path, start + lab.draw.randrange(min(BLOCK, path.stat().st_size - start)), 1 << lab.draw.randrange(8))
        for path in sorted(folder.rglob("*")) if path.is_file()
        for start in range(0, path.stat().st_size, BLOCK)
    ][::every]  # fmt: skip
    results = lab.folder("outcomes")
    process = Process(lambda: _try_all(prepare(), places, results))
    code = process.wait(timeout=3600)
    outcomes = results.read_text().splitlines()
    findings.continued, findings.refused = outcomes.count("same"), outcomes.count("refused")
    for (path, position, bit), outcome in zip(places, outcomes, strict=False):
        if outcome not in ("same", "refused"):
            findings.wrong.append(f"{path.relative_to(folder)}, byte {position}, bit {bit}: {outcome}")
    if code or len(outcomes) < len(places):
        findings.wrong.append(
            f"after {len(outcomes)} of {len(places)}: exit code {code}: {process.complaint()[-1000:]}"
        )
    return findings


def _try_all(read, places, results):
    from experiments.rules import InputError

    good = read()
    with results.open("w", buffering=1) as file:
        for path, position, bit in places:
            with path.open("r+b", buffering=0) as changed:
                changed.seek(position)
                right = changed.read(1)
                changed.seek(position)
                changed.write(bytes([right[0] ^ bit]))
                try:
                    outcome = "same" if read() == good else "other numbers"
                except InputError as error:
                    outcome = "several lines" if "\n" in str(error) else "refused"
                except Exception as error:
                    outcome = " ".join(repr(error).split())
                changed.seek(position)
                changed.write(right)
            print(outcome, file=file)
    return 0


def _restoring(folder):
    import jax

    from experiments.runs import checkpoints

    manager, step, _ = _saved(folder)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), manager.item_metadata(step).arrays
    )
    manager.close()

    def read():
        arrays, record = checkpoints.restore(folder, target)
        return checkpoints.digest(arrays, record)

    return read


def _loading(folder):
    from experiments import data

    return lambda: data.digest(data.load("mnist_5k", 1, data_dir=folder))


def _note(findings, name, process, code, *, right, absent):
    """Right numbers, or one line and no numbers; all else is wrong."""
    if right:
        findings.continued += 1
    elif code == 2 and is_one_line(process, code) and absent:
        findings.refused += 1
    else:
        findings.wrong.append(f"{name}: exit code {code}: {process.complaint()[-2000:]}")


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


def _changed_values(lab, every):
    """(name, folder) of copies of the finished run, saved again with one bit of one array changed, the digest not."""
    listing = Process(lambda: _print_names(lab.reference / "best"))
    if listing.wait() != 0:
        raise RuntimeError(listing.complaint())
    for name in listing.complaint().split()[::every]:
        folder = lab.folder("changed")
        shutil.copytree(lab.reference, folder, ignore=shutil.ignore_patterns(".lock", "best"))
        place = lab.draw.random(), lab.draw.randrange(8)
        saving = Process(
            lambda name=name, folder=folder, place=place: _save_changed(lab.reference, folder, name, place)
        )
        if saving.wait() != 0:
            raise RuntimeError(saving.complaint())
        yield name, folder


def _saved(run):
    """A manager of best/ as plain Orbax knows it, its step, the arrays by name and the record."""
    import logging

    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)
    handlers = {"arrays": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
    manager = ocp.CheckpointManager(run, item_handlers=handlers)
    step = manager.latest_step()
    args = ocp.args.Composite(arrays=ocp.args.StandardRestore(), record=ocp.args.JsonRestore())
    return manager, step, manager.restore(step, args=args)


def _print_names(best):
    import jax

    manager, _, saved = _saved(best)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(saved.arrays)]
    manager.close()
    print(*paths, sep="\n")
    return 0


def _save_changed(original, folder, name, place):
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    manager, step, saved = _saved(original / "best")
    manager.close()

    def changed(path, leaf):
        leaf = np.array(leaf)
        if jax.tree_util.keystr(path) == name:
            values = leaf.reshape(-1).view(np.uint8)
            values[int(place[0] * values.size)] ^= 1 << place[1]
        return leaf

    arrays = jax.tree_util.tree_map_with_path(changed, saved.arrays)
    handlers = {"arrays": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
    with ocp.CheckpointManager(folder / "best", item_handlers=handlers) as manager:
        record = ocp.args.JsonSave(saved.record)
        manager.save(step, args=ocp.args.Composite(arrays=ocp.args.StandardSave(arrays), record=record))
        manager.wait_until_finished()
    return 0


def _confusion(output: Path):
    return json.loads((output / "evaluation.json").read_text())["confusion"]
