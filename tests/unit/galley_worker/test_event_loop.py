"""Tests of which event loop a worker runs on."""

import asyncio
import sys
from types import ModuleType

import pytest

from galley_worker.main import event_loop


async def _present() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_uvloop_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = asyncio.new_event_loop()
    uvloop = ModuleType("uvloop")
    uvloop.new_event_loop = lambda: made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uvloop", uvloop)
    with event_loop() as runner:
        assert runner.run(_present()) is made


def test_a_worker_runs_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with event_loop() as runner:
        assert type(runner.run(_present())).__module__.startswith("asyncio")
