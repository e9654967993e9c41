"""`galley get`: lists of queues and tasks."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Raw

from galley.broker import inspect, queue_view
from galley.broker.queue_view import QueueView
from galley.cli.command import Command, text
from galley.cli.documents import queue_document, task_document
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.labels import labels_shown
from galley.cli.output import Column, Format, Listing, format_argument
from galley.cli.schedule import SCHEDULES
from galley.cli.selection import selected, selection_arguments, selects
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.cli.topic import TOPICS
from galley.cli.watch import watch
from galley.cli.workflow import WORKFLOWS
from galley.client import AsyncClient
from galley.limit import TASKS_LISTED
from galley.task_status import TaskStatus

QUEUES: Final = Listing[QueueView](
    (
        Column("name", lambda view: view.queue),
        Column("lanes", lambda view: ",".join(view.lanes)),
        Column("held", lambda view: view.held),
        Column("later", lambda view: view.later),
        Column("paused by", lambda view: ", ".join(view.paused_by), sparse=True),
        Column("limit", lambda view: view.backlog_limit, wide=True),
        Column("namespace", lambda view: view.namespace, wide=True),
    ),
    name=lambda view: view.queue,
    document=queue_document,
    empty="no queues here; `galley dev FILE...` makes those of its manifests",
)

_INPUT_SHOWN: Final = 100
"""Characters of an input in a table; `-o json` has all of it."""


def _short(value: Raw) -> str | None:
    """Return the beginning of an input."""
    text = bytes(value)[: _INPUT_SHOWN * 4].decode(errors="replace") if value else ""
    return text if len(text) <= _INPUT_SHOWN else f"{text[: _INPUT_SHOWN - 1]}…"


def _input(status: TaskStatus) -> str | None:
    return _short(status.input) or _locked(status)


def _failure(status: TaskStatus) -> str | None:
    if status.failure is None:
        return None
    return status.failure.message or f"{status.failure.reason} {_locked(status) or ''}".rstrip()


def _locked(status: TaskStatus) -> str | None:
    """Return what stands where something is encrypted, and cannot be decrypted here."""
    return f"(encrypted with {status.encrypted_with})" if status.encrypted_with else None


TASKS: Final = Listing[TaskStatus](
    (
        Column("queue", lambda status: status.address.queue),
        Column("id", lambda status: status.address.id),
        Column("handler", lambda status: status.handler),
        Column("lane", lambda status: status.address.lane.value),
        Column("phase", lambda status: status.phase.value),
        Column("attempt", lambda status: status.attempt),
        Column("waits", lambda status: status.waits, sparse=True),
        Column("submitted", lambda status: status.submitted_at),
        Column("due", lambda status: status.due_at, sparse=True),
        Column("progress", lambda status: str(status.progress or ""), sparse=True),
        Column("started", lambda status: status.started_at, wide=True),
        Column("ended", lambda status: status.ended_at, wide=True),
        Column("worker", lambda status: status.worker, wide=True),
        Column("failure", _failure, wide=True),
        Column("labels", lambda status: labels_shown(status.labels), wide=True),
        Column("input", _input, wide=True),
    ),
    name=lambda status: f"{status.address.queue}/{status.address.id}",
    document=task_document,
    empty="no tasks",
)

_NOUNS: Final = {
    f"{noun}{s}": f"{noun}s" for noun in ("queue", "task", "schedule", "topic", "workflow") for s in ("s", "")
}

_MANY: Final = 20_000
"""From so many on, a list takes seconds, and the command says what takes fewer."""

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
SORTS: Final[dict[str, Callable[[TaskStatus], Any]]] = {
    "submitted": inspect.submission_order,
    "due": lambda status: status.due_at or _NEVER,
    "started": lambda status: status.started_at or _NEVER,
    "ended": lambda status: status.ended_at or _NEVER,
    "handler": lambda status: status.handler,
    "phase": lambda status: list(type(status.phase)).index(status.phase),
    "attempt": lambda status: status.attempt,
    "id": lambda status: status.address.id,
}


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", metavar="queues|tasks|schedules|topics|workflows", choices=_NOUNS)
    parser.add_argument("queue", metavar="QUEUE", type=text, nargs="?", help="only this queue")
    selection_arguments(parser)
    parser.add_argument(
        "--sort", choices=SORTS, default="submitted", metavar="FIELD", help=f"{', '.join(SORTS)}; tasks only"
    )
    parser.add_argument(
        "--limit", type=_limit, metavar="N",
        help="at most this many: of each lane, the oldest that wait or run, and the latest changes. The rest "
        "of the queue is not read; tasks only",
    )  # fmt: skip
    parser.add_argument("--reverse", action="store_true", help="reverse the order; tasks only")
    parser.add_argument(
        "-w", "--watch", action="store_true",
        help="show changes until Ctrl-C: in the table, or in a pipe as one line each; tasks only",
    )  # fmt: skip
    format_argument(parser, *Format)
    server_arguments(parser, reads=True)


def _limit(argument: str) -> int:
    if not argument.isdecimal() or not TASKS_LISTED.holds(int(argument[:9])):
        raise Misuse(f"{argument[:40]!r} is not a limit", f"use a number from {TASKS_LISTED}")
    return int(argument)


async def _run(options: Namespace, terminal: Terminal) -> int:
    what = _NOUNS[options.what]
    if what != "tasks":
        _check_not_about_tasks(options, what)
    if what == "topics" and options.queue is not None:
        raise Misuse("topics are not of a queue", "galley get topics, or galley topic show NAME")
    async with connected(options, terminal) as client:
        if what == "topics":
            TOPICS.write(await client.topics.list(), options.output, terminal)
            return ExitCode.DONE
        views = await _views(client, options)
        if what == "schedules":
            found = [one for view in views for one in await client.schedules.list(view.queue)]
            SCHEDULES.write(found, options.output, terminal)
        elif what == "workflows":
            statuses = [one for view in views for one in await client.workflows.list(view.queue)]
            WORKFLOWS.write(statuses, options.output, terminal)
        elif what == "queues":
            QUEUES.write(await queue_view.with_pauses(client.broker, views), options.output, terminal)
        elif options.watch:

            async def look() -> list[TaskStatus]:
                return await _tasks(client, await _views(client, options), options, terminal)

            await watch(TASKS, look, options.output, terminal)
        else:
            listing = TASKS if views else replace(TASKS, empty=QUEUES.empty)
            listing.write(await _tasks(client, views, options, terminal), options.output, terminal)
    return ExitCode.DONE


async def _views(client: AsyncClient, options: Namespace) -> list[QueueView]:
    if options.queue is None:
        return await queue_view.queues(client.broker, client.namespace)
    return [await queue_view.queue(client.broker, client.namespace, options.queue)]


def _check_not_about_tasks(options: Namespace, what: str) -> None:
    if selects(options):
        raise Misuse(f"{what} have no phase, handler, age or labels here", "galley get tasks --phase ...")
    if options.watch or options.reverse or options.limit or options.sort != "submitted":
        ours = "--watch, --sort, --limit and --reverse"
        raise Misuse(f"{ours} are for tasks, not for {what}", "galley get tasks --watch")


async def _tasks(
    client: AsyncClient, views: list[QueueView], options: Namespace, terminal: Terminal
) -> list[TaskStatus]:
    """Return the tasks of some queues that the options select, in their order."""
    which = selected(options)
    found: list[TaskStatus] = []
    for view in views:
        place = client.broker, client.namespace, view.queue
        if options.limit is None:
            if view.held + view.later > _MANY:
                terminal.say(f"reading {view.held + view.later} tasks of {view.queue}; --limit N reads fewer")
            known = await inspect.tasks_in_order(*place)
        else:
            known = await inspect.latest(*place, options.limit)
        found += which.of(known, datetime.now(UTC))
    in_order = sorted(sorted(found, key=inspect.submission_order), key=SORTS[options.sort])
    last = in_order if options.limit is None else in_order[-options.limit :]
    return last[::-1] if options.reverse else last


command: Final = Command(
    "get",
    "List queues, tasks, schedules or topics",
    _arguments,
    _run,
    ("galley get queues -o wide", "galley get tasks images --phase failed --sort ended -o json"),
)
