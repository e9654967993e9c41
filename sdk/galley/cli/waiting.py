"""Waiting for a task: its progress on a terminal, and why no worker runs it."""

import asyncio
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from galley.cli.output import cell
from galley.cli.terminal import Terminal
from galley.error_group import ungrouped
from galley.handle import AsyncHandle
from galley.note import Progress

LOOK_SECONDS: Final = 1.0
"""Time between two looks at a task."""
_BAR_WIDTH: Final = 30


async def wait_for(handle: AsyncHandle[Any], seconds: float | None, terminal: Terminal) -> Any:
    """Return the result of a task, and show meanwhile how far it is.

    Raises:
        GalleyError: as `AsyncHandle.result`.
    """
    shown = Shown(f"{handle.address.queue}/{handle.id}", terminal)
    with ungrouped(), shown:
        async with asyncio.TaskGroup() as beside:
            telling = beside.create_task(_tell(handle, shown, terminal))
            result = await handle.result(within=seconds)
            telling.cancel()
    return result


async def _tell(handle: AsyncHandle[Any], shown: "Shown", terminal: Terminal) -> None:
    """Show the progress of a task, and why no worker runs it, as long as that is so."""
    told = problem = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        progress = await handle.progress()
        if progress is not None:
            shown.show(progress)
            continue
        before, problem = problem, await handle.worker_problem()
        if problem and problem != told:
            terminal.say(f"still waiting: {problem}")
            told = problem
        elif told and not problem and not before:
            # Not at the first look without a problem: a task that has just ended has none either.
            terminal.say("still waiting: a worker can run it now")
            told = ""


class Shown:
    """A bar on standard error, if that is a terminal; it is gone when the wait is over."""

    def __init__(self, name: str, terminal: Terminal) -> None:
        self._name = name
        self._bars: Bars | None = None
        if terminal.stderr.isatty() and not terminal.dumb:
            no_color = not terminal.colours(terminal.stderr)
            console = Console(file=terminal.stderr, force_terminal=True, no_color=no_color)
            columns = TextColumn("{task.fields[name]}"), BarColumn(_BAR_WIDTH), TaskProgressColumn()
            text = TextColumn("{task.fields[text]}")
            self._bars = Bars(*columns, text, console=console, transient=True)

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, progress: Progress) -> None:
        """Show how far the task is."""
        if self._bars is None:
            return
        text = cell(progress.text).plain.replace("[", "\\[")
        if not self._bars.tasks:
            self._bars.add_task("", total=None, name=self._name, text=text)
            self._bars.start()
        total = None if progress.fraction is None else 1.0
        self._bars.update(self._bars.tasks[0].id, total=total, completed=progress.fraction or 0.0, text=text)
