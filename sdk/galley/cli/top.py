"""`galley top`: queues, workers, running tasks and rates, live."""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group
from rich.live import Live
from rich.text import Text

from galley.broker import inspect
from galley.broker.errors import BrokerUnreachable
from galley.broker.overview import Overview, QueueFigures
from galley.cli.command import Command, text
from galley.cli.documents import task_document
from galley.cli.exit_code import ExitCode
from galley.cli.output import Column, Format, Listing, format_argument, write_document
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.task_status import Phase, TaskStatus

LOOK_SECONDS: Final = 1.0
"""Time between two looks."""

_LISTED: Final = 1000
"""Running tasks are listed for queues that hold at most so many tasks: each has to be read."""
_SHOWN: Final = 20


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


QUEUES: Final = Listing[QueueFigures](
    (
        Column("queue", lambda each: each.view.queue),
        Column("waiting", lambda each: each.waiting),
        Column("running", lambda each: each.running),
        Column("later", lambda each: each.view.later),
        Column("workers", lambda each: each.workers or None),
        Column("done/s", lambda each: _rate(each.succeeded_per_second)),
        Column("failed/s", lambda each: _rate(each.failed_per_second)),
        Column("retried/s", lambda each: _rate(each.retried_per_second)),
        Column("paused by", lambda each: ", ".join(each.paused_by), sparse=True),
        Column("under keys", lambda each: each.keyed or None, sparse=True),
    ),
    name=lambda each: each.view.queue,
    document=lambda each: _document(each),  # noqa: PLW0108 - defined below
    empty="no queues here; `galley dev FILE...` makes those of its manifests",
)

TASKS: Final = Listing[TaskStatus](
    (
        Column("id", lambda status: status.address.id),
        Column("queue", lambda status: status.address.queue),
        Column("lane", lambda status: status.address.lane),
        Column("handler", lambda status: status.handler),
        Column("attempt", lambda status: status.attempt),
        Column("started", lambda status: status.started_at),
        Column("worker", lambda status: status.worker),
    ),
    name=lambda status: status.address.id,
    document=task_document,
    empty="",
)


def _document(figures: QueueFigures) -> dict[str, Any]:
    return {
        "queue": figures.view.queue,
        "waiting": figures.waiting,
        "waitingUnderKeys": figures.keyed,
        "running": figures.running,
        "later": figures.view.later,
        "workers": figures.supply.workers if figures.supply is not None else None,
        "succeededPerSecond": figures.succeeded_per_second,
        "failedPerSecond": figures.failed_per_second,
        "retriedPerSecond": figures.retried_per_second,
        "pausedBy": figures.paused_by,
    }


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", type=text, nargs="?", help="only this queue")
    format_argument(parser, Format.JSON, Format.YAML)
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        overview = Overview(client.broker, client.namespace, options.queue, time.monotonic)
        if options.output is None and terminal.interactive and not terminal.dumb:
            await follow(lambda: frame(client, overview, terminal), terminal)
        # A rate takes two looks.
        await overview.look()
        await asyncio.sleep(LOOK_SECONDS)
        figures = await overview.look()
        if options.output is not None:
            write_document([_document(each) for each in figures], options.output, terminal)
        else:
            QUEUES.write(figures, None, terminal)
    return ExitCode.DONE


async def follow(
    look: Callable[[], Awaitable[Group]],
    terminal: Terminal,
    pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(LOOK_SECONDS),
) -> None:
    """Show frames until Ctrl-C; while the broker is away the last one stays, and a line says so.

    Args:
        look: returns what is shown, or raises `BrokerUnreachable`.
        terminal: where.
        pause: returns when it is time to look again.
    """
    last, since = Group(), terminal.now()
    with Live(console=terminal.console(), auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            try:
                last = await look()
                since = terminal.now()
                live.update(last, refresh=True)
            except BrokerUnreachable as error:
                live.update(Group(_away(error, since), last), refresh=True)
            await pause()


def _away(error: BrokerUnreachable, since: datetime) -> Text:
    return Text(f"the broker does not answer; this is of {since:%H:%M:%S} UTC ({error})", style="red")


async def frame(client: AsyncClient, overview: Overview, terminal: Terminal) -> Group:
    """Return all that is shown, as it is now.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    figures = await overview.look()
    if not figures:
        return Group(Text(QUEUES.empty))
    running, left_out = await _running(client, figures)
    parts: list[Any] = [QUEUES.table(figures, terminal)]
    if running:
        parts += [Text(""), TASKS.table(running[:_SHOWN], terminal)]
    if left_out or len(running) > _SHOWN:
        parts.append(Text(_rest(len(running) - _SHOWN, left_out), style="dim"))
    return Group(*parts)


def _rest(more: int, left_out: Sequence[str]) -> str:
    said = [f"{more} more run"] if more > 0 else []
    if left_out:
        said.append(f"running tasks of {', '.join(left_out)} are not listed: there are too many tasks")
    return "; ".join(said)


async def _running(
    client: AsyncClient, figures: Sequence[QueueFigures]
) -> tuple[list[TaskStatus], list[str]]:
    """Return the tasks that run, the longest first, and the queues they were not read of."""
    found: list[TaskStatus] = []
    left_out = []
    for each in figures:
        if not each.running:
            continue
        if each.view.held + each.view.later > _LISTED:
            left_out.append(each.view.queue)
            continue
        found += await inspect.tasks_in_order(client.broker, client.namespace, each.view.queue, Phase.RUNNING)
    return sorted(found, key=_started), left_out


def _started(status: TaskStatus) -> datetime:
    return status.started_at or datetime.max.replace(tzinfo=UTC)


command: Final = Command(
    "top",
    "Show live queues, workers, running tasks and rates",
    _arguments,
    _run,
    ("galley top", "galley top images -o json"),
)
