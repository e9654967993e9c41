"""The output of `galley dev`: a live table on a terminal, lines elsewhere."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from galley.cli.output import cell, in_words, styled
from galley.cli.terminal import Terminal
from galley.shown import safe
from galley.task_status import Phase, TaskStatus
from galley_local.snapshot import QueueSnapshot, Snapshot
from galley_operator.fleet.fleet import WorkerPhase

_LEAST_TASKS: Final = 4
_GAP: Final = 3
_TASK_TITLES: Final = ("QUEUE", "TASK", "HANDLER", "LANE", "PHASE", ">ATTEMPT", "WORKER", ">WHEN")
_LEAST_MISSED: Final = ("WORKER", "HANDLER", "LANE")
"""Columns that are left out on a narrow terminal, in this order."""


class Display(Protocol):
    """Shows a run of `galley dev`. Used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        """Show the current state."""
        ...

    def say(self, text: str) -> None:
        """Print a message."""
        ...


def display_for(terminal: Terminal, *, passing: bool) -> Display:
    """Return the display for a terminal or for a pipe.

    Args:
        terminal: where to print.
        passing: whether to remove the table at the end, because results follow.
    """
    if terminal.interactive and not terminal.dumb:
        return LiveTable(terminal.console(), passing=passing)
    return EventLines(terminal.result)


class LiveTable:
    """A table that is redrawn in place, with messages above it."""

    def __init__(self, console: Console, *, passing: bool) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=passing)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw the current state."""
        width, height = self._console.size
        reasons = sum(ceil(len(_reason(queue)) / width) for queue in snapshot.queues)
        room = height - len(snapshot.queues) - reasons - len(_lane_rows(snapshot)) - 6
        self._live.update(drawn(snapshot, max(_LEAST_TASKS, room), width), refresh=True)

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(safe(text), style="dim", soft_wrap=True)


def drawn(snapshot: Snapshot, most_tasks: int, width: int) -> RenderableType:
    """Return tables of the queues with their lanes, the reasons for scaling, and the latest tasks."""
    shown = snapshot.tasks[:most_tasks]
    hidden = len(snapshot.tasks) - len(shown)
    parts: list[RenderableType] = [_queues(snapshot), Text()]
    parts += [_tasks(shown, snapshot, width)] if shown else [Text("no tasks yet", style="dim")]
    if hidden:
        parts.append(Text(f"and {hidden} more: galley get tasks", style="dim"))
    return Group(*parts, Text(f"{snapshot.server}   {snapshot.note}", style="dim"))


def _queues(snapshot: Snapshot) -> RenderableType:
    table = _table("QUEUE", "LANE", ">WAITING", ">RUNNING", ">LATER", ">WANTED", ">MOST", "WORKERS")
    for queue in snapshot.queues:
        for index, lane in enumerate(queue.lanes):
            first = index == 0
            table.add_row(
                Text(queue.name if first else "", style="bold"),
                lane.lane.value,
                str(lane.waiting) if lane.waiting else Text("0", style="dim"),
                str(lane.in_flight) if lane.in_flight else Text("0", style="dim"),
                str(queue.later) if first else "",
                str(queue.wanted) if first else "",
                str(queue.most) if first else "",
                workers_in_words(queue) if first else "",
            )
    reasons = [cell(_reason(queue), "yellow" if queue.problem else "dim") for queue in snapshot.queues]
    return Group(table, Text(), *reasons)


def _reason(queue: QueueSnapshot) -> str:
    return f"{queue.name}: {queue.reason}"


def _lane_rows(snapshot: Snapshot) -> list[object]:
    return [lane for queue in snapshot.queues for lane in queue.lanes]


def workers_in_words(queue: QueueSnapshot) -> str:
    """Return the number of workers by phase."""
    others = Counter(worker.phase for worker in queue.workers if worker.phase is not WorkerPhase.READY)
    return ", ".join([f"{queue.ready} ready", *(f"{number} {phase}" for phase, number in others.items())])


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(
            title.removeprefix(">"), no_wrap=True, justify="right" if title.startswith(">") else "left"
        )
    return table


def _tasks(shown: Sequence[TaskStatus], snapshot: Snapshot, width: int) -> RenderableType:
    """Return the tasks as a table, without the columns that do not fit."""
    rows = [dict(zip(_TASK_TITLES, _task_cells(status, snapshot), strict=True)) for status in shown]
    widest = {title: max(len(title.strip(">")), *(len(row[title]) for row in rows)) for title in _TASK_TITLES}
    for title in _LEAST_MISSED:
        if sum(widest.values()) + _GAP * (len(widest) - 1) > width:
            del widest[title]
    table = _table(*widest)
    for row in rows:
        table.add_row(*(row[title] for title in widest))
    return table


def _task_cells(status: TaskStatus, snapshot: Snapshot) -> list[Text]:
    moment = (
        status.ended_at
        or (status.due_at if not status.phase.ended else None)
        or status.started_at
        or status.submitted_at
    )
    return [
        cell(status.address.queue),
        cell(status.address.id),
        cell(status.handler),
        Text(status.address.lane.value),
        styled(status.phase.value),
        Text(str(status.attempt or "")),
        cell(status.worker),
        Text(in_words(moment, snapshot.now) if moment is not None else ""),
    ]


class EventLines:
    """A line for each change, for logs and pipes."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._phases: dict[tuple[str, str], tuple[Phase, int]] = {}
        """Of the tasks of the last snapshot."""
        self._workers: dict[str, tuple[int, int, str]] = {}
        self._passed_over = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, text: str) -> None:
        """Write the line."""
        self._write(text)

    def show(self, snapshot: Snapshot) -> None:
        """Write what has changed since the last call."""
        for queue in snapshot.queues:
            now = (queue.ready, queue.wanted, queue.problem)
            if self._workers.get(queue.name, (0, 0, "")) != now:
                self._workers[queue.name] = now
                # The reason is from the last sweep and may not mention the problem yet.
                new = f"; {queue.problem}" if queue.problem not in queue.reason else ""
                self._write(f"queue/{queue.name}: {workers_in_words(queue)}; wanted {queue.reason}{new}")
        kept: dict[tuple[str, str], tuple[Phase, int]] = {}
        for status in reversed(snapshot.tasks):
            name = (status.address.queue, status.address.id)
            phase = (status.phase, status.attempt)
            if status.phase in (Phase.QUEUED, Phase.SCHEDULED):
                continue
            if status.phase is Phase.RUNNING and not status.worker:
                continue  # its worker is known by the next look, unless it has ended by then
            kept[name] = phase
            if self._phases.get(name) != phase:
                self._write(_task_line(status))
        self._phases = kept
        if snapshot.passed_over > self._passed_over:
            more = snapshot.passed_over - self._passed_over
            self._passed_over = snapshot.passed_over
            self._write(f"{more} more changes of tasks: galley get tasks")


def _task_line(status: TaskStatus) -> str:
    line = f"task/{status.address.id} ({status.address.queue}): {status.phase}"
    if status.worker:
        line += f" on {status.worker}"
    if status.attempt > 1:
        line += f", attempt {status.attempt}"
    if status.phase.ended and status.started_at is not None and status.ended_at is not None:
        line += f", {(status.ended_at - status.started_at).total_seconds():.2f} s"
    if status.failure is not None:
        line += f": {status.failure.message}"
    return line
