import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from galley.address import TaskAddress
from galley.cli.errors import OutputFailed
from galley.task_status import TaskStatus
from galley_local.dev import Run
from galley_local.plan import Plan
from galley_local.snapshot import Snapshot
from tests.support.eventually import eventually


class FailingBoard:
    """A board with a fault that shows at the first look."""

    def __init__(self) -> None:
        self.looks = 0
        self.passed_over = 0

    async def look(self, _empty: object) -> None:
        self.looks += 1
        if self.looks == 1:
            raise ZeroDivisionError

    def open_tasks(self) -> list[TaskAddress]:
        return []

    def tasks(self) -> list[TaskStatus]:
        return []


class Screen:
    def __init__(self, error: Exception | None = None) -> None:
        self.shown: list[Snapshot] = []
        self._error = error

    def show(self, snapshot: Snapshot) -> None:
        if self._error is not None:
            raise self._error
        self.shown.append(snapshot)


def a_run(screen: Screen) -> Run:
    parts: dict[str, Any] = {
        "project": SimpleNamespace(), "broker": SimpleNamespace(server="nats://127.0.0.1:1"),
        "starter": SimpleNamespace(), "board": FailingBoard(), "display": screen,
    }  # fmt: skip
    return Run(Plan(), **parts)


async def test_a_fault_in_showing_is_logged_and_costs_one_look(caplog: pytest.LogCaptureFixture) -> None:
    screen = Screen()
    showing = asyncio.create_task(a_run(screen).show_all_the_time())
    with caplog.at_level(logging.ERROR):
        await eventually(lambda: len(screen.shown) > 0, within=10)
    showing.cancel()
    assert "ZeroDivisionError" in caplog.text


async def test_an_output_that_cannot_be_written_ends_it() -> None:
    screen = Screen(OutputFailed("standard output", "No space left on device"))
    with pytest.raises(OutputFailed):
        async with asyncio.timeout(10):
            await a_run(screen).show_all_the_time()
