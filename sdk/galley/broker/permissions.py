"""What each role may do with a queue on the broker: subjects, spelled as `topology` spells them.

A role has what its code uses and nothing more. Of streams that several queues share (records, dead letters)
only reads by subject are allowed, since those alone the server can tell apart; nobody but the operator may
list or read such a stream as a whole.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from galley.address import Kind
from galley.broker import topology

INBOX: Final = "_INBOX"
"""Where answers come in. Each role of each queue has a part of its own, or it would hear others' answers."""

_ANSWER_SECONDS: Final = 60


class Role(StrEnum):
    """Who somebody is to a queue."""

    PRODUCER = "producer"
    """Submits tasks, and sees what becomes of them."""
    WORKER = "worker"
    """Takes tasks, and settles them."""
    MANAGER = "manager"
    """A producer who may also cancel tasks and read dead letters."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects somebody may publish to and subscribe to; both as patterns."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: int = 0
    """How many times each message with a reply subject may be answered, within `answer_seconds`."""
    answer_seconds: int = _ANSWER_SECONDS


def inbox_of(role: Role, namespace: str, queue: str) -> str:
    """Return what the inboxes of a role of a queue begin with; the same for ever.

    A connection keeps its inboxes when it is made anew with newer credentials, so they hang on nothing that
    changes with those.
    """
    return f"{INBOX}.{role}.{namespace}.{queue}"


def permissions_of(role: Role, namespace: str, queue: str) -> Permissions:
    """Return what a role may do with a queue."""
    inbox = f"{inbox_of(role, namespace, queue)}.>"
    if role is Role.WORKER:
        return Permissions(
            publish=(*_connecting(), *_working(namespace, queue)),
            subscribe=(
                inbox,
                topology.control_subject(namespace, queue, "*"),
                topology.holder_subject(namespace, queue, "*"),
            ),
            answers=1,
        )
    heard = (inbox, f"galley.done.{namespace}.{queue}.>")
    publish = (*_connecting(), *_submitting(namespace, queue), *_looking(namespace, queue))
    if role is Role.MANAGER:
        publish += _managing(namespace, queue)
    return Permissions(publish, heard)


def _connecting() -> tuple[str, ...]:
    # Whether there is JetStream; tells how much room the account has, and nothing of what is in it.
    return ("$JS.API.INFO",)


def _working(namespace: str, queue: str) -> tuple[str, ...]:
    streams = _own_streams(namespace, queue)
    return (
        *(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*" for stream in streams),
        *(f"$JS.ACK.{stream}.>" for stream in streams),
        f"$JS.API.STREAM.INFO.{topology.work_stream(namespace, queue)}",
        _reads_of_records(namespace, queue),
        f"galley.result.{namespace}.{queue}.>",
        f"galley.again.{namespace}.{queue}.>",
        f"galley.dead.{namespace}.{queue}.>",
        f"galley.hb.{namespace}.{queue}.*",
        topology.holder_subject(namespace, queue, "*"),
    )


def _submitting(namespace: str, queue: str) -> tuple[str, ...]:
    # Declared tasks are the operator's alone to submit.
    tail = f"{namespace}.{queue}.*.{Kind.DIRECT}.*"
    return f"galley.task.{tail}", f"galley.schedule.{tail}"


def _looking(namespace: str, queue: str) -> tuple[str, ...]:
    streams = _own_streams(namespace, queue)
    return (
        *(f"$JS.API.STREAM.INFO.{stream}" for stream in streams),
        *(f"$JS.API.CONSUMER.INFO.{stream}.*" for stream in streams),
        *(f"$JS.API.DIRECT.GET.{stream}" for stream in streams),
        _reads_of_records(namespace, queue),
        topology.control_subject(namespace, queue, "ping"),
    )


def _managing(namespace: str, queue: str) -> tuple[str, ...]:
    return (
        *(f"$JS.API.STREAM.PURGE.{stream}" for stream in _own_streams(namespace, queue)),
        f"$JS.API.DIRECT.GET.{topology.dead_stream(namespace)}.galley.dead.{namespace}.{queue}.>",
        f"galley.result.{namespace}.{queue}.>",
        topology.control_subject(namespace, queue, "cancel"),
    )


def _own_streams(namespace: str, queue: str) -> tuple[str, str]:
    return topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)


def _reads_of_records(namespace: str, queue: str) -> str:
    return f"$JS.API.DIRECT.GET.{topology.records_stream(namespace)}.galley.result.{namespace}.{queue}.>"
