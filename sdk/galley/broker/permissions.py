"""What each role may do with a queue on the broker: subjects, spelled as `topology` spells them.

A role has what its code uses and nothing more. Of records and dead letters only reads by subject are allowed:
where 0.1 made the stream several queues share it, and the server can tell no other reads apart. Only the
operator may list or read such a stream as a whole.

Each role of each queue has an account of its own, which these rights make: `accounts`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from galley.address import Kind
from galley.audit import Writer
from galley.broker import topology

INBOX: Final = "_INBOX"
"""What subjects for answers begin with; each role of each queue has a part of its own."""


class Role(StrEnum):
    """What a client of a queue is allowed to be."""

    PRODUCER = "producer"
    """Submits tasks, and sees what becomes of them."""
    WORKER = "worker"
    """Takes tasks, and settles them."""
    MANAGER = "manager"
    """A producer who may also cancel tasks, make schedules, and read, edit, drop and redrive dead letters."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects a client may publish to and subscribe to; both as patterns."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_of(role: Role, namespace: str, queue: str) -> str:
    """Return what the inboxes of a role of a queue begin with.

    It depends on nothing that changes with new credentials: a connection keeps its inboxes for good.
    """
    return f"{INBOX}.{role}.{namespace}.{queue}"


def permissions_of(role: Role, namespace: str, queue: str) -> Permissions:
    """Return what a role may do with a queue."""
    inbox = f"{inbox_of(role, namespace, queue)}.>"
    answers = topology.answer_subject(namespace, queue, "*")
    if role is Role.WORKER:
        return Permissions(
            publish=(
                *_connecting(),
                *_working(namespace, queue),
                *among_workers(namespace, queue),
                answers,
            ),
            subscribe=(
                inbox,
                topology.control_subject(namespace, queue, "*"),
                topology.holder_subject(namespace, queue, "*"),
            ),
        )
    news = (
        topology.changes_of_queue(namespace, queue),
        topology.noted_in_queue(namespace, queue),
        topology.live_subject(namespace, "*"),
    )
    heard = (inbox, *news, answers)
    publish = (*_connecting(), *_submitting(namespace, queue), *_looking(namespace, queue))
    if role is Role.MANAGER:
        publish += _managing(namespace, queue)
    else:
        # A manager writes all records, unique keys among them; an account cannot import a subject twice.
        publish += (topology.key_subject(namespace, queue, "*"),)
    return Permissions(publish, heard)


def backup_permissions() -> Permissions:
    """Return what `galley backup` may do: read all streams, and change nothing.

    JetStream's own snapshots are not among it, since they are delivered to any subject:
    docs/adr/0018-backup-by-reading.md.
    """
    reads = ("STREAM.LIST", "STREAM.INFO.*", "STREAM.MSG.GET.*", "CONSUMER.LIST.*", "DIRECT.GET.*")
    return Permissions((*_connecting(), *(f"$JS.API.{read}" for read in reads)), (f"{INBOX}.backup.>",))


def gateway_permissions() -> Permissions:
    """Return what the gateway may do: with all queues what their managers and producers may, and no more.

    It is a user of the account of the streams and not an account of its own, since control requests go from
    account to account: docs/adr/0031-a-gateway-of-operations.md. Names of streams are single words, in which
    patterns cannot tell queues apart.
    """
    every = "*", "*"
    reads = ("STREAM.LIST", "STREAM.INFO.*", "CONSUMER.INFO.*.*", "DIRECT.GET.>")
    changes = ("STREAM.PURGE.*", "CONSUMER.PAUSE.*.*")
    return Permissions(
        (
            *_connecting(),
            *(f"$JS.API.{each}" for each in (*reads, *changes)),
            *_submitting(*every),
            topology.control_subject(*every, "ping"),
            topology.control_subject(*every, "cancel"),
            topology.workers_subject(*every),
            topology.dead_of_queue(*every),
            topology.timer_subject(*every, "*"),
            f"galley.result.{'.'.join(every)}.>",
            # It names the user that the API server named; no other account may write such lines.
            topology.audit_subject(*every, Writer.GATEWAY),
            topology.audit_subject(*every, f"{Writer.GATEWAY}-submits"),
            topology.event_subject("*", "*"),
            # Of the counts, those of tasks that were cancelled before they ran.
            topology.count_subject(*every, "*", "cancelled"),
        ),
        (
            f"{INBOX}.gateway.>",
            topology.changes_of_queue(*every),
            topology.noted_in_queue(*every),
            topology.answer_subject(*every, "*"),
            topology.heartbeat_subject(*every, "*"),
            topology.live_subject(*every),
        ),
    )


def _connecting() -> tuple[str, ...]:
    # Whether there is JetStream; the answer tells the limits and the use of the account of the streams.
    return ("$JS.API.INFO",)


def _working(namespace: str, queue: str) -> tuple[str, ...]:
    streams = _own_streams(namespace, queue)
    return (
        *(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*" for stream in streams),
        *(f"$JS.ACK.{stream}.>" for stream in streams),
        *(f"$JS.API.STREAM.INFO.{stream}" for stream in streams),
        *_reads_of_records(namespace, queue),
        f"galley.result.{namespace}.{queue}.>",
        f"galley.schedule.{namespace}.{queue}.>",
        f"galley.again.{namespace}.{queue}.>",
        f"galley.dead.{namespace}.{queue}.>",
        topology.notes_of_queue(namespace, queue),
        # The checkpoint of an earlier attempt.
        f"$JS.API.DIRECT.GET.{topology.notes_stream(namespace, queue)}.galley.note.{namespace}.{queue}.>",
        f"galley.hb.{namespace}.{queue}.*",
        topology.count_subject(namespace, queue, "*", "*"),
        # Whether the task of an earlier tick waits, and which schedules there are.
        f"$JS.API.DIRECT.GET.{topology.later_stream(namespace, queue)}",
        *_reads_of_objects(namespace, queue),
        # Workers delete what no task refers to, dead ones included.
        *_reads_of_dead_letters(namespace, queue),
        topology.objects_of_queue(namespace, queue),
        f"$JS.API.STREAM.PURGE.{topology.object_stream(namespace, queue)}",
        # Who settles a step of a workflow stores what follows.
        f"galley.plan.{namespace}.{queue}.*.{Kind.DIRECT}.*",
        topology.flows_of_queue(namespace, queue),
        f"$JS.API.STREAM.PURGE.{topology.flow_stream(namespace, queue)}",
        *_reads_of_flows(namespace, queue),
        *_copying(namespace, queue),
        *_publishing(namespace),
        *_taking_turns(namespace, queue),
    )


def _taking_turns(namespace: str, queue: str) -> tuple[str, ...]:
    """Return what moves tasks from where they wait under a key to their lane; workers may run them anyway."""
    work = topology.work_stream(namespace, queue)
    return (
        f"$JS.API.DIRECT.GET.{work}",
        f"$JS.API.STREAM.MSG.DELETE.{work}",
        f"galley.wait.{namespace}.{queue}.*.{Kind.DIRECT}.*",
        f"galley.task.{namespace}.{queue}.*.{Kind.TURN}.*",
        f"galley.due.{namespace}.{queue}.*.{Kind.DIRECT}.*",
    )


def _copying(namespace: str, queue: str) -> tuple[str, ...]:
    """Return what copies events of topics into a queue: its own consumer, and its own subscriptions."""
    stream, code = topology.topics_stream(namespace), topology.code_subscriptions_subject(namespace, queue)
    return (
        f"$JS.API.CONSUMER.INFO.{stream}.{queue}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{queue}",
        f"$JS.ACK.{stream}.{queue}.>",
        f"$JS.API.DIRECT.GET.{stream}.{code}",
        code,
        f"galley.task.{namespace}.{queue}.*.{Kind.DIRECT}.*",
    )


def _publishing(namespace: str) -> tuple[str, ...]:
    """Return what publishes events: each role of a namespace may, to all its topics and to no others."""
    stream = topology.topics_stream(namespace)
    return (
        topology.event_subject(namespace, "*"),
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.{topology.topic_subject(namespace, '>')}",
    )


def among_workers(namespace: str, queue: str) -> tuple[str, ...]:
    """Return what workers of a queue say to each other; it does not leave their account."""
    return (
        topology.holder_subject(namespace, queue, "*"),
        f"{inbox_of(Role.WORKER, namespace, queue)}.>",
        # A schedule may replace the task of an earlier tick.
        topology.control_subject(namespace, queue, "cancel"),
    )


def _submitting(namespace: str, queue: str) -> tuple[str, ...]:
    # Declared tasks are the operator's alone to submit. Schedules are for workers and managers: who stores
    # one chooses the subject it fires at, among all of its stream, and whether it repeats.
    tail = f"{namespace}.{queue}.*.{Kind.DIRECT}.*"
    # An object is written once: the stream replaces nothing, so none can change what another has stored.
    written = ("part.*.*", "whole.*", f"use.*.input.{Kind.DIRECT}.*")
    return (
        f"galley.task.{tail}",
        f"galley.plan.{tail}",
        # Where a task with a key waits, and the turn that has a worker look there.
        f"galley.wait.{tail}",
        f"galley.task.{namespace}.{queue}.*.{Kind.TURN}.*",
        *(topology.objects_of_queue(namespace, queue, each) for each in written),
        # A workflow: what it is and its plan, and not how far it is.
        topology.flow_subject(namespace, queue, "*"),
        topology.flow_part_subject(namespace, queue, "*", "plan.*"),
    )


def _looking(namespace: str, queue: str) -> tuple[str, ...]:
    streams = _own_streams(namespace, queue)
    return (
        *(f"$JS.API.STREAM.INFO.{stream}" for stream in streams),
        *(f"$JS.API.CONSUMER.INFO.{stream}.*" for stream in streams),
        *(f"$JS.API.DIRECT.GET.{stream}" for stream in streams),
        *_reads_of_records(namespace, queue),
        *_reads_of_objects(namespace, queue),
        *_reads_of_notes(namespace, queue),
        f"$JS.API.DIRECT.GET.{topology.counts_stream(namespace, queue)}",
        *_reads_of_flows(namespace, queue),
        f"$JS.API.STREAM.INFO.{topology.flow_stream(namespace, queue)}",
        topology.control_subject(namespace, queue, "ping"),
        topology.workers_subject(namespace, queue),
        *_publishing(namespace),
        f"$JS.API.CONSUMER.INFO.{topology.topics_stream(namespace)}.*",
    )


def _managing(namespace: str, queue: str) -> tuple[str, ...]:
    return (
        *(f"$JS.API.STREAM.PURGE.{stream}" for stream in _own_streams(namespace, queue)),
        *_reads_of_dead_letters(namespace, queue),
        *(f"$JS.API.CONSUMER.PAUSE.{stream}.*" for stream in _own_streams(namespace, queue)),
        # All of the queue's own dead letters; of those in a shared stream, none can be listed or dropped.
        f"$JS.API.DIRECT.GET.{topology.dead_stream(namespace, queue)}",
        f"$JS.API.STREAM.PURGE.{topology.dead_stream(namespace, queue)}",
        topology.dead_of_queue(namespace, queue),
        topology.timer_subject(namespace, queue, "*"),
        # The events that are kept, to list topics and to replay them.
        f"$JS.API.DIRECT.GET.{topology.topics_stream(namespace)}",
        f"galley.result.{namespace}.{queue}.>",
        topology.control_subject(namespace, queue, "cancel"),
        # Of the counts, those of tasks that were cancelled before they ran.
        topology.count_subject(namespace, queue, "*", "cancelled"),
        # Lines that say what a client did; no role of a queue may read, change or remove one.
        topology.audit_subject(namespace, queue, Writer.CLIENT),
    )


def _own_streams(namespace: str, queue: str) -> tuple[str, str]:
    return topology.work_stream(namespace, queue), topology.later_stream(namespace, queue)


def _reads_of_notes(namespace: str, queue: str) -> tuple[str, ...]:
    # No queues share such a stream, so it may be read as a whole.
    stream = topology.notes_stream(namespace, queue)
    return f"$JS.API.DIRECT.GET.{stream}", f"$JS.API.DIRECT.GET.{stream}.galley.note.{namespace}.{queue}.>"


def _reads_of_flows(namespace: str, queue: str) -> tuple[str, ...]:
    # As with notes.
    stream = topology.flow_stream(namespace, queue)
    return (
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.{topology.flows_of_queue(namespace, queue)}",
    )


def _reads_of_records(namespace: str, queue: str) -> tuple[str, ...]:
    return tuple(
        f"$JS.API.DIRECT.GET.{stream}.galley.result.{namespace}.{queue}.>"
        for stream in (topology.records_stream(namespace, queue), topology.shared_records_stream(namespace))
    )


def _reads_of_dead_letters(namespace: str, queue: str) -> tuple[str, ...]:
    return tuple(
        f"$JS.API.DIRECT.GET.{stream}.galley.dead.{namespace}.{queue}.>"
        for stream in (topology.dead_stream(namespace, queue), topology.shared_dead_stream(namespace))
    )


def _reads_of_objects(namespace: str, queue: str) -> tuple[str, str]:
    stream = topology.object_stream(namespace, queue)
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.{topology.objects_of_queue(namespace, queue)}",
    )
