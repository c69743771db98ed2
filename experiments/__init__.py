"""The programs that reproduce the report. What a program (`python -m experiments.NAME`) needs first of all is here.

Nothing else is imported before: Ctrl-C is heard, a reader may leave, and a missing package is one line from here on.
"""

import errno
import io
import os
import signal
import sys

AGAIN_ANEW = (
    "the same command without --overwrite continues, and leaves finished cells that were not reached as they are"
)
"""How to go on with a sweep that was stopped while it made its cells anew."""


def stop_now(again: str) -> None:
    """Ends the process with exit code 130, safely inside a signal's handler, and says how to go on."""
    if os.isatty(1):
        os.write(1, b"\x1b[?25h")  # a bar hides the cursor
    try:
        os.write(2, f"interrupted: {again}\n".encode())
    finally:
        os._exit(130)


def missing_line(error: ImportError) -> str:
    """What to do about a package that is not installed, or that cannot be imported."""
    is_absent = isinstance(error, ModuleNotFoundError) and error.name
    what = f"{str(error.name).partition('.')[0]} is not installed" if is_absent else " ".join(str(error).split())
    return f"{what}: pip install -r requirements.txt"


def is_own(error: BaseException) -> bool:
    """Whether the missing module belongs to this repository, which is not the user's fault."""
    return str(getattr(error, "name", None)).partition(".")[0] in ("experiments", "fconv_jax")


class _Patient(io.FileIO):
    """A standard stream whose reader may close it (`| head -1`): later output is dropped, and the program goes on."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            return memoryview(data).nbytes


def _patient(stream, number):
    """A stream that shows what its terminal cannot show as an escape."""
    if stream is None:
        return None
    raw = io.BufferedWriter(_Patient(number, "w", closefd=False))
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=True)


def _hear(*_):
    name = os.path.basename(sys.argv[0])
    others = "the same command " + ("continues" if name in ("sweep.py", "ladder.py") else "starts again")
    if {"--child", "--overwrite"} <= set(sys.argv):
        others = AGAIN_ANEW
    stop_now("continue with --resume" if name == "run.py" else others)


def _say(kind, error, trace):
    if issubclass(kind, ImportError) and not is_own(error):
        name = os.path.basename(sys.argv[0]).removesuffix(".py")
        print(f"python -m experiments.{name}: error: {missing_line(error)}", file=sys.stderr, flush=True)
        os._exit(2)
    sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # Only while Python looks for the program that it was told to run.
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _hear)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # a sweep blocks them in its children
    sys.excepthook = _say
    sys.stdout = sys.__stdout__ = _patient(sys.stdout, 1)
    sys.stderr = sys.__stderr__ = _patient(sys.stderr, 2)
