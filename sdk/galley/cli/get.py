"""`galley get`: lists of queues and tasks."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from typing import Final

from msgspec import Raw

from galley.broker import inspect
from galley.broker.inspect import QueueView
from galley.cli.command import Command, one_of, text
from galley.cli.documents import queue_document, task_document
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.labels import labels_shown, selector_argument
from galley.cli.output import Column, Format, Listing, format_argument
from galley.cli.schedule import SCHEDULES
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient
from galley.labels import Test, selector
from galley.task_status import Phase, TaskStatus

QUEUES: Final = Listing[QueueView](
    (
        Column("name", lambda view: view.queue),
        Column("lanes", lambda view: ",".join(view.lanes)),
        Column("held", lambda view: view.held),
        Column("later", lambda view: view.later),
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
        Column("submitted", lambda status: status.submitted_at),
        Column("due", lambda status: status.due_at),
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

_NOUNS: Final = {f"{noun}{s}": f"{noun}s" for noun in ("queue", "task", "schedule") for s in ("s", "")}
# This command asks the broker, which does not know a Task that was only declared.
_PHASES: Final = tuple(phase for phase in Phase if phase is not Phase.PENDING)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", metavar="queues|tasks|schedules", choices=_NOUNS)
    parser.add_argument("queue", metavar="QUEUE", type=text, nargs="?", help="only this queue, or its own")
    parser.add_argument(
        "--phase",
        type=one_of("a phase", _PHASES),
        metavar="PHASE",
        help=f"only tasks in this phase: {', '.join(_PHASES)}",
    )
    selector_argument(parser)
    format_argument(parser, *Format)
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        if options.queue is None:
            views = await inspect.queues(client.broker, client.namespace)
        else:
            views = [await inspect.queue(client.broker, client.namespace, options.queue)]
        what = _NOUNS[options.what]
        if what != "tasks" and options.phase is not None:
            raise Misuse(f"{what} have no phase", "galley get tasks --phase ...")
        if what != "tasks" and options.selector:
            raise Misuse(f"{what} have no labels here", "galley get tasks -l ...")
        if what == "schedules":
            found = [one for view in views for one in await client.schedules.list(view.queue)]
            SCHEDULES.write(found, options.output, terminal)
        elif what == "queues":
            QUEUES.write(views, options.output, terminal)
        else:
            listing = TASKS if views else replace(TASKS, empty=QUEUES.empty)
            tasks = await _tasks(client, views, options.phase, selector(options.selector))
            listing.write(tasks, options.output, terminal)
    return ExitCode.DONE


async def _tasks(
    client: AsyncClient, views: list[QueueView], phase: Phase | None, fits: Test
) -> list[TaskStatus]:
    """Return the tasks of some queues, in the order they were submitted."""
    found = [
        await inspect.tasks_in_order(client.broker, client.namespace, view.queue, phase) for view in views
    ]
    meant = (status for some in found for status in some if fits(status.labels))
    return sorted(meant, key=inspect.submission_order)


command: Final = Command(
    "get",
    "List queues, tasks or schedules",
    _arguments,
    _run,
    ("galley get queues -o wide", "galley get tasks images --phase failed -o json"),
)
