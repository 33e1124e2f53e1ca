"""A stop has as much time as its container may take, however short the deadline of other commands."""

from __future__ import annotations

import time

import pytest

from reconciler.engine.docker import container_commands
from reconciler.model.observed import Action, State
from tests.support.harness.adapter import AdapterHarness, Make


@pytest.mark.pitfall(16)
async def test_a_stop_may_take_longer_than_any_other_command(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    b: AdapterHarness = await bench('services: {web: {image: "bed/standin:1", command: [sleep, "1000"]}}')
    container = await b.running("web")
    # From here on, with a new client.
    b.engine._commands.close()
    monkeypatch.setattr(container_commands, "_DEADLINE", 4.0)
    began = time.monotonic()
    # Process 1 without a handler ignores SIGTERM.
    await b.act(Action.STOP, "web", container=container.id, grace=6.0)
    assert 5.9 < time.monotonic() - began < 20.0
    stopped = await b.seen("web")
    assert (stopped.state, stopped.exit_code) == (State.EXITED, 137)
