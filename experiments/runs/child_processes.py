"""A sweep: one child process for each training, so that none can harm the others.

A network is trained with the flags that suit it, its memory is free when it ends, and if it dies the sweep goes on.
"""

import argparse
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from rich.console import Console

from experiments.data import DataError, resolve_dataset
from experiments.rules import InputError, Parser
from experiments.runs import cells, config, exit_codes
from experiments.runs.plan import Planned


def sweep(command: Parser, options: argparse.Namespace, argv: list[str], planned: list[Planned]) -> int:
    """Runs a sweep's trainings; returns its exit code."""
    console = Console(soft_wrap=True, markup=False, emoji=False)
    try:
        dataset, line = resolve_dataset(
            options.dataset or "auto", options.data_dir, settings=options.settings, data_seed=options.data_seed or 0
        )
    except DataError as error:
        command.error(str(error))
    if line:
        console.print(line)
    if not planned:
        console.print("nothing to do: this share has no training")
    failed, busy = [], []
    with _signals() as heard:
        for number, training in enumerate(planned, 1):
            if heard:
                print(f"interrupted: {config.again(options)}", file=sys.stderr)
                return exit_codes.INTERRUPTED
            console.rule(f"training {number} of {len(planned)}: {training}")
            try:
                given = config.given(options) | {"dataset": dataset}
                if not options.overwrite and cells.are_finished(
                    training, options.output, given, options.data_dir, console.print
                ):
                    names = training.folder_names(dataset, options.init)
                    console.print(f"finished: {', '.join(str(options.output / name) for name in names)}")
                    continue
            except InputError as error:
                failed.append((exit_codes.BAD_INPUT, f"{training}: {command.line(str(error))}"))
                continue
            code, reason = _child([*argv, "--child", f"{number},{dataset}"], heard)
            if code == exit_codes.BUSY:
                busy.append(f"left to the process that is at work on it: {training}")
            elif code and not heard:
                failed.append((code, f"{training}: {reason}"))
            if heard:
                return exit_codes.INTERRUPTED
    for line in busy:
        console.print(line)
    for _, line in failed:
        print(f"{command.prog}: failed: {line}", file=sys.stderr)
    if failed:
        again = f"; the same command{' without --overwrite' * options.overwrite} tries again what failed"
        remedy = again if any(code != 2 for code, _ in failed) else ""
        print(f"{command.prog}: {len(failed)} of {len(planned)} trainings failed{remedy}", file=sys.stderr)
    return max((2 if code == 2 else 1 for code, _ in failed), default=0)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM, which `_child` hands on."""
    heard = []
    before = {n: signal.signal(n, lambda number, _: heard.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _child(argv: Sequence[str], heard: list[int]) -> tuple[int, str]:
    """Runs `experiments.sweep` with `argv` in a separate process; returns its exit code and its last message."""
    # A separate process group: Ctrl-C reaches the child once, through us.
    command = [sys.executable, "-m", "experiments.sweep", *argv]
    messages, told = [], 0
    with _deaf_child(command) as process:
        reader = threading.Thread(target=_pass_on, args=(process.stderr, messages))
        reader.start()
        while process.poll() is None:
            for number in heard[told:]:
                process.send_signal(number)
                told += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
        reader.join()
    code = process.returncode
    if code < 0:
        return 1, f"ended by signal {-code}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    return code, messages[-1] if messages else f"exit code {code}"


def _deaf_child(command):
    """Starts a process that ignores Ctrl-C until its own first instruction (`experiments/__init__.py`)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", process_group=0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pass_on(stream, messages):
    """Shows a child's messages as they come and keeps the last one, without the name of its program."""
    for line in stream:
        with contextlib.suppress(OSError):  # nobody reads our output any more; the child must not wait for a reader
            print(line, end="", file=sys.stderr, flush=True)
        if line.strip():
            messages[:] = [line.strip().split("error: ", 1)[-1].split("failed: ", 1)[-1]]
