"""How a command ends: the exit code of what is raised, and signals, which are noted and given back."""

import os
import signal

import pytest

from experiments.rules import InputError, Parser
from experiments.runs import exit_codes
from experiments.runs.exit_codes import BusyError, Interrupted, Signals, guarded


def ends(error, **options):
    """The exit code of a command whose action raises `error`."""

    def action():
        raise error

    return guarded(Parser(prog="program"), action, **options)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError("no space left"), 1, "program: failed: no space left"),
        (MemoryError(), 1, "program: failed: the device's memory is full"),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), 1, "program: failed: the device's memory is full"),
        (Interrupted(), 130, "interrupted: the same command starts again"),
        (KeyboardInterrupt(), 130, "interrupted: the same command starts again"),
    ],
)
def test_what_stops_a_command_has_its_exit_code_and_line(error, code, says, capsys):
    assert ends(error) == code
    assert capsys.readouterr().err.splitlines() == [says]


def test_bad_input_is_2_and_a_busy_folder_what_the_caller_says(capsys):
    for error in (InputError("wrong"), BusyError("at work"), ModuleNotFoundError("no optax", name="optax")):
        with pytest.raises(SystemExit) as stop:
            ends(error)
        assert stop.value.code == 2
    assert "optax is not installed" in capsys.readouterr().err
    assert ends(BusyError("at work"), busy=exit_codes.BUSY) == exit_codes.BUSY
    with pytest.raises(SystemExit):
        ends(InputError("wrong"), busy=exit_codes.BUSY)


@pytest.mark.parametrize("error", [RuntimeError("a fault"), ModuleNotFoundError("gone", name="experiments.gone")])
def test_a_fault_of_the_program_is_shown_whole(error):
    with pytest.raises(type(error)) as raised:
        ends(error)
    assert raised.value is error


def test_the_second_signal_ends_at_once_and_handlers_are_given_back(monkeypatch):
    stopped, numbers = [], (signal.SIGINT, signal.SIGTERM)
    monkeypatch.setattr(exit_codes, "stop_now", stopped.append)
    before = [signal.getsignal(number) for number in numbers]
    for first in numbers:
        with Signals() as signals:
            os.kill(os.getpid(), first)
            assert signals.heard
            assert not stopped
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopped.pop()
        assert [signal.getsignal(number) for number in numbers] == before
