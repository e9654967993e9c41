"""`galley audit`: who did what to queues and their tasks."""

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from galley.audit import AuditLine, Writer
from galley.broker import topology
from galley.broker.audit import lines_of
from galley.broker.errors import NotAllowed
from galley.cli.command import Command, text
from galley.cli.duration import age_argument
from galley.cli.errors import AuditNotReadable
from galley.cli.exit_code import ExitCode
from galley.cli.output import Column, Format, Listing, format_argument, rfc_3339
from galley.cli.server import connected, server_arguments
from galley.cli.terminal import Terminal
from galley.client import AsyncClient

_WHO: Final = {Writer.GATEWAY: "http", Writer.OPERATOR: "kubectl"}


def who(line: AuditLine) -> str:
    """Return who did it, and how that is known."""
    user, origin = line.entry.user, line.entry.origin
    if line.attested:
        return f"{user or 'not recorded'} ({', '.join(filter(None, (_WHO[line.writer], origin)))})"
    claimed = "@".join(filter(None, (user, origin)))
    return "credentials of the manager" + (f" (says it is {claimed})" if claimed else "")


def what(line: AuditLine) -> str:
    """Return what it was done to."""
    entry = line.entry
    many = "" if entry.count is None else f"{entry.count} task{'' if entry.count == 1 else 's'}"
    return "; ".join(filter(None, (entry.task, many, entry.detail)))


def document(line: AuditLine) -> dict[str, Any]:
    """Return all there is in a line."""
    entry = line.entry
    return {
        "time": rfc_3339(line.at), "queue": line.queue, "action": entry.action.value, "task": entry.task,
        "count": entry.count, "user": entry.user, "attested": line.attested, "writer": line.writer.value,
        "origin": entry.origin, "detail": entry.detail,
    }  # fmt: skip


AUDIT: Final = Listing[AuditLine](
    columns=(
        Column("time", lambda line: rfc_3339(line.at)),
        Column("queue", lambda line: line.queue),
        Column("action", lambda line: line.entry.action.value),
        Column("who", who),
        Column("what", what),
    ),
    name=lambda line: line.queue,
    document=document,
    empty="nothing was written down",
)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", type=text, nargs="?", help="only changes of this queue")
    parser.add_argument("--task", metavar="ID", type=text, help="only changes of this task")
    parser.add_argument(
        "--who", metavar="USER", type=text, help="only changes by this user, attested or claimed"
    )
    parser.add_argument(
        "--since",
        metavar="AGE",
        type=age_argument,
        help="only changes of the last 30m, 2h, 7d or similar",
    )
    format_argument(parser, Format.JSON, Format.YAML)
    server_arguments(parser, reads=True)


async def _run(options: Namespace, terminal: Terminal) -> int:
    async with connected(options, terminal) as client:
        try:
            found = [
                line
                async for line in _lines(client, options.queue or "", options.since, terminal)
                if options.task in (None, line.entry.task) and options.who in (None, line.entry.user)
            ]
        except NotAllowed as error:
            raise AuditNotReadable(topology.audit_stream(client.namespace)) from error
    AUDIT.write(found, options.output, terminal)
    return ExitCode.DONE


def _lines(
    client: AsyncClient, queue: str, age: timedelta | None, terminal: Terminal
) -> AsyncIterator[AuditLine]:
    since = None if age is None else terminal.now() - age
    return lines_of(client.broker, client.namespace, queue, since)


command: Final = Command(
    "audit",
    "Show the audit log: who changed what, and when",
    _arguments,
    _run,
    ("galley audit images --since 7d", "galley audit --who alice -o json"),
)
