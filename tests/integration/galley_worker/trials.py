"""What the tests of runners share: runners over the trial handlers, and short ways to start works."""

import asyncio
import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from galley_worker.ending import Finish, NotBegun, Raised, Returned
from galley_worker.runners.execution import Execution
from galley_worker.runners.runners import Runners
from galley_worker.runners.settings import CommandHandler, RunnerSettings
from galley_worker.work import Work
from tests.support.eventually import eventually

FOLDER = str(Path(__file__).parent)
_ids = itertools.count(1)
Line = tuple[str, str, str]


def settings(
    *commands: CommandHandler, modules: tuple[str, ...] = ("handlers_for_runners",), **others: Any
) -> RunnerSettings:
    return RunnerSettings("trials", modules, (FOLDER,), commands, **{"concurrency": 2, **others})


def start(
    runners: Runners, handler: str, /, *, timeout: float = 30.0, raw: bytes | None = None, **named: Any
) -> Execution:
    data = msgspec.json.encode(named) if raw is None else raw
    work = Work(f"t{next(_ids)}", "trials", "normal", handler, 1, Raw(data), timeout, datetime.now(UTC))
    return runners.start(work)


async def ended(execution: Execution, within: float = 30.0) -> Finish:
    return await asyncio.wait_for(asyncio.shield(execution.ending), within)


async def run(runners: Runners, handler: str, /, **named: Any) -> Finish:
    """Run a work to its end; one that a busy machine did not begin is started again, as the broker does."""
    while isinstance(ending := await ended(start(runners, handler, **named)), NotBegun):
        pass
    return ending


def value(ending: Finish) -> Any:
    assert isinstance(ending, Returned), ending
    return msgspec.json.decode(ending.result)


def failure(ending: Finish) -> tuple[str, str, bool]:
    assert isinstance(ending, Raised), ending
    return ending.failure.reason, ending.failure.message, ending.retryable


async def until(condition: Callable[[], Any], within: float = 30.0) -> None:
    await eventually(condition, within=within)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
