"""What a training says of its duration."""

import io

import pytest
from rich.console import Console

from experiments.runs import progress
from experiments.settings import RunConfig
from experiments.training.loop import Position

CONFIG = RunConfig("lenet", 1, "mnist_5k", 0, (0,), 11, 256, 2e-4, "report", "float32", "auto")


@pytest.mark.parametrize("compiled", [0.0, 600.0])
@pytest.mark.parametrize("resumed", [0, 1])
def test_estimates_leave_compilation_out(monkeypatch, compiled, resumed):
    """Ten steps of a second each are done, after which as many as ten times ten are left."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    bar = progress.Bar(Console(file=said, soft_wrap=True), CONFIG)
    position = Position(epoch=resumed, compile_seconds=5.0)
    bar.start(position, 10)
    now[0] += 10 + compiled
    position.epoch, position.compile_seconds = resumed + 1, 5.0 + compiled
    bar.report(position, 10)
    left = progress.duration(10.0 * (10 - resumed))
    assert said.getvalue().endswith(f"{progress.duration(10 + compiled)} gone, about {left} to go\n")
