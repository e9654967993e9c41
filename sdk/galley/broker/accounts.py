"""What the accounts of roles import from each other and from the account of the streams.

The server checks the subject of a request and never its reply subject, so an answer of JetStream can be
directed at any subject of the account it is in. Therefore each role of each queue has an account of its own.
It imports from the account of the streams (`EXPORTS`) exactly what the role may do (`imports_of`), and an
answer that is directed elsewhere stays in it. See docs/adr/0017-an-account-for-each-role.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from galley.broker import topology
from galley.broker.permissions import INBOX, Role, among_workers, backup_permissions, permissions_of

_SILENCE_SECONDS: Final = 15
"""How long the server keeps the way back to a requester who may get several answers: three heartbeats of a
parked pull."""


class Flow(StrEnum):
    """Which way messages go between two accounts, in the words of NATS."""

    SERVICE = "service"
    """From the importing account to the exporting one; answers find their way back."""
    STREAM = "stream"
    """From the exporting account to the importing one."""


@dataclass(frozen=True, slots=True)
class Export:
    """Subjects the account of the streams offers to the accounts of roles."""

    subject: str
    flow: Flow = Flow.SERVICE
    silence_seconds: int = 0
    """If not 0, a request may get several answers, with at most this time between two of them."""


class Import(NamedTuple):
    """Subjects of another account that the account of a role takes part in."""

    subject: str
    flow: Flow
    origin: Role | None = None
    """Whose account it is, among those of the same queue; None is the account of the streams."""


EXPORTS: Final = (
    *(
        Export(f"galley.{verb}.>")
        for verb in (
            "task",
            "wait",
            "due",
            "plan",
            "schedule",
            "again",
            "result",
            "dead",
            "note",
            "hb",
            "object",
            "count",
            "event",
            "flow",
            "subscribe",
            "audit",
        )
    ),
    Export("galley.answer.>"),
    Export("galley.workers.>"),
    *(Export(f"galley.{verb}.>", Flow.STREAM) for verb in ("done", "noted", "ctl", "live")),
    Export("$JS.API.INFO"),
    Export("$JS.API.STREAM.INFO.*"),
    Export("$JS.API.STREAM.LIST"),
    Export("$JS.API.STREAM.MSG.GET.*"),
    Export("$JS.API.STREAM.PURGE.*"),
    Export("$JS.API.STREAM.MSG.DELETE.*"),
    Export("$JS.API.CONSUMER.LIST.*"),
    Export("$JS.API.CONSUMER.INFO.*.*"),
    Export("$JS.API.CONSUMER.PAUSE.*.*"),
    Export("$JS.API.CONSUMER.MSG.NEXT.*.*", silence_seconds=_SILENCE_SECONDS),
    Export("$JS.API.DIRECT.GET.>", silence_seconds=_SILENCE_SECONDS),
    Export("$JS.ACK.>"),
)
"""All that any role may use. Only accounts the operator signs can import, and it signs no others."""


def backup_imports() -> tuple[Import, ...]:
    """Return what the account of backups imports from that of the streams."""
    return tuple(Import(subject, Flow.SERVICE) for subject in backup_permissions().publish)


def imports_of(role: Role, namespace: str, queue: str) -> tuple[Import, ...]:
    """Return what the account of a role of a queue imports: its permissions, less its own inboxes.

    Control requests of producers and managers, and the workers' answers, go straight from account to account:
    the server does not pass on what came into the account of the streams from another one.
    """
    rights = permissions_of(role, namespace, queue)
    local = set(among_workers(namespace, queue))
    if role is not Role.WORKER:
        local |= {export.subject for export in exports_of(role, namespace, queue)}
    services = [subject for subject in rights.publish if subject not in local]
    control = topology.control_subject(namespace, queue, "")
    answers = topology.answer_subject(namespace, queue, "*")
    streams: list[Import] = []
    for subject in rights.subscribe:
        if subject == answers:
            streams.append(Import(subject, Flow.STREAM, Role.WORKER))
        elif subject not in local and not subject.startswith(INBOX):
            streams.append(Import(subject, Flow.STREAM))
    if role is Role.WORKER:
        streams += [
            Import(export.subject, Flow.STREAM, other)
            for other in (Role.PRODUCER, Role.MANAGER)
            for export in exports_of(other, namespace, queue)
            if export.subject.startswith(control)
        ]
    return (*(Import(subject, Flow.SERVICE) for subject in services), *streams)


def exports_of(role: Role, namespace: str, queue: str) -> tuple[Export, ...]:
    """Return what the account of a role of a queue offers to the accounts of the queue's other roles."""
    if role is Role.WORKER:
        return (Export(topology.answer_subject(namespace, queue, "*"), Flow.STREAM),)
    verbs = ("ping", "cancel") if role is Role.MANAGER else ("ping",)
    return tuple(Export(topology.control_subject(namespace, queue, verb), Flow.STREAM) for verb in verbs)
