"""How a command ends: 0 done, 1 failed, 2 bad input, 75 left to another process, 130 interrupted and resumable."""

import contextlib
import signal
import sys
from collections.abc import Callable

from experiments import is_own, missing_line, stop_now
from experiments.rules import InputError, Parser

DONE, FAILED, BAD_INPUT, BUSY, INTERRUPTED = 0, 1, 2, 75, 130
"""`BUSY`: of one training of a sweep, where another process is at work on it."""


class BusyError(InputError):
    """Another process is at work in the folder."""


class Interrupted(Exception):
    """A signal stopped the run; it is saved and can be resumed."""


def guarded(
    command: Parser, action: Callable[[], None], *, again="the same command starts again", busy=BAD_INPUT
) -> int:
    """Runs `action` and returns the exit code of what it raises: bad input 2, failure 1, interruption 130.

    `action` imports what it needs, so that a missing package is bad input too. `again`: how to go on after an
    interruption; `busy`: exit code where another process is at work in the folder.
    """
    try:
        from experiments.training import processes  # imports jax, after its flags are set

        processes.join()
        action()
    except InputError as error:
        if isinstance(error, BusyError) and busy != BAD_INPUT:
            print(command.line(str(error)), file=sys.stderr)
            return busy
        command.error(str(error))
    except ImportError as error:
        if is_own(error):
            raise
        command.error(missing_line(error))
    except (Interrupted, KeyboardInterrupt):
        print(f"interrupted: {again}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        print(f"{command.prog}: failed: {command.line(str(error))}", file=sys.stderr)
        return FAILED
    except (RuntimeError, MemoryError) as error:  # jax's own, which is not imported here, is a RuntimeError
        if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(error, MemoryError):
            raise
        trains = "--batch-size" in command.format_usage()
        remedy = "; train fewer seeds at once (--seeds) or a smaller --batch-size" if trains else ""
        print(f"{command.prog}: failed: the device's memory is full{remedy}", file=sys.stderr)
        return FAILED
    return DONE


class Signals:
    """Notes Ctrl-C and SIGTERM; the second one ends the process at once, on the last finished save."""

    def __enter__(self):
        self.heard = False
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, *_):
        if self.heard:
            stop_now("at once, on the last finished save")
        self.heard = True
        with contextlib.suppress(RuntimeError, OSError):  # in the middle of another print
            print("stopping after this step; once more to stop at once", file=sys.stderr)
