"""The command line of `galley record-trace`: the load a queue had, as a trace for `galley simulate`."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from galley.broker import inspect, queue_view
from galley.cli.command import Command, text
from galley.cli.errors import Misuse
from galley.cli.exit_code import ExitCode
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.task_status import TaskStatus
from galley_local.simulation.trace import write_line

_SINCE: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", type=text)
    parser.add_argument(
        "--since", metavar="TIME", type=_time, default=timedelta(hours=1),
        help="how far to go back, such as 30m, 12h or 7d; 1h by default. Expired records are missing",
    )  # fmt: skip
    server_arguments(parser, reads=True)


def _time(argument: str) -> timedelta:
    match = _SINCE.fullmatch(argument)
    if match is None:
        raise Misuse(f"{argument[:40]!r} is no time", "write it as 30m, 12h or 7d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        view = await queue_view.queue(client.broker, client.namespace, options.queue)
        statuses = await inspect.tasks_in_order(client.broker, client.namespace, view.queue)
    lines = trace_lines(statuses, terminal.now() - options.since)
    for line in lines:
        terminal.result(line)
    if not lines:
        terminal.say(f"no task of {view.queue} has ended in that time")
    return ExitCode.DONE


def trace_lines(statuses: Iterable[TaskStatus], since: datetime) -> list[str]:
    """Return a line for each task that has ended, in the order they became due.

    A task counts from when it was due, and takes what its last attempt took: earlier attempts are not in its
    record.

    Args:
        statuses: of the tasks of one queue.
        since: tasks that became due before are left out.
    """
    found = []
    for status in statuses:
        if status.ended_at is None or status.started_at is None or status.submitted_at is None:
            continue
        due = max(status.submitted_at, status.due_at or status.submitted_at)
        if due >= since:
            seconds = max(0.0, (status.ended_at - status.started_at).total_seconds())
            found.append((due, seconds, status.address.lane.value))
    found.sort()
    return [write_line((due - found[0][0]).total_seconds(), seconds, lane) for due, seconds, lane in found]


command: Final = Command(
    "record-trace",
    "Write the past load of a queue as a trace for `galley simulate`",
    _arguments,
    _run,
    ("galley record-trace images > load.jsonl", "galley record-trace images --since 12h > load.jsonl"),
)
