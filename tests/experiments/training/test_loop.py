"""The loop's clock."""

import jax
import pytest

from experiments.training.loop import _CompileClock


def test_the_clock_adds_up_what_jax_compiles_and_nothing_else():
    clock = _CompileClock()
    for seconds in (2.0, 0.5):
        jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", seconds)
    jax.monitoring.record_event_duration_secs("/jax/checkpoint/write/async/blocking_duration_secs", 100.0)
    assert clock.read() == pytest.approx(2.5)
    assert clock.read() == 0.0
    jax.monitoring.record_event_duration_secs("/jax/core/compile/jaxpr_trace_duration", 0.25)
    assert clock.read() == pytest.approx(0.25)
    assert clock.total == pytest.approx(2.75)
