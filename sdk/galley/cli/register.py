"""Registering the schedules of code: `galley schedule register`."""

import contextlib
import importlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from galley import code_schedules
from galley.cli.errors import Misuse, ModuleBroken
from galley.errors import GalleyError
from galley.registry import REGISTRY
from galley.schedules import AsyncSchedules, ScheduleView


def import_module(target: str, folder: Path) -> None:
    """Import a module, or a file as one, for its handlers.

    Raises:
        ModuleBroken: if it cannot be imported, whatever it raised.
    """
    file = folder / target
    name, place = (file.stem, file.parent) if target.endswith(".py") else (target, folder)
    sys.path.insert(0, str(place))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        problem = str(error) if isinstance(error, GalleyError) else f"{type(error).__name__}: {error}"
        raise ModuleBroken(target, problem) from error


async def register(schedules: AsyncSchedules, only: str | None) -> AsyncIterator[ScheduleView]:
    """Make the schedules of the modules that were imported, as workers with them would, and yield them.

    Args:
        schedules: where.
        only: a queue, whose workers import all these modules; None for the queues that the handlers name.

    Raises:
        Misuse: a handler names no queue, and none is given.
        As `AsyncSchedules.create`.
    """
    for queue in REGISTRY.queues() if only is None else (only,):
        for handler, its in REGISTRY.of_queue(queue).items():
            if its.repeat is None:
                continue
            if its.any_queue and only is None:
                raise Misuse(f"handler {handler!r} names no queue", "name the queue: --queue QUEUE")
            name = await code_schedules.declare(schedules, queue, handler, its)
            yield await schedules.get(queue, name)
