"""The JetStream configuration of the streams and consumers of a queue; `topology` spells names and subjects.

Why these: docs/adr/0001-a-broker-not-a-database.md and 0003-lanes.md.
"""

from collections.abc import Iterable
from typing import Any, Final

from galley.address import Kind
from galley.broker.topology import (
    COUNT_BYTES,
    ENCRYPTED,
    ENCRYPTION_KEY,
    LANES_KEY,
    LIFE_KEY,
    LIMITED_KEY,
    NAMESPACE_KEY,
    NOT_ENCRYPTED,
    NOTE_SECONDS,
    OWNER_KEY,
    PLAN,
    QUEUE_KEY,
    TIMER,
    UID_KEY,
    QueueLayout,
    count_subject,
    counts_stream,
    dead_stream,
    fired_subject,
    flow_stream,
    flows_of_queue,
    later_stream,
    noted_in_queue,
    notes_of_queue,
    notes_stream,
    object_stream,
    objects_of_queue,
    planned,
    records_stream,
    timer_subject,
    work_stream,
)

COUNT_REPEAT_SECONDS: Final = 120.0
"""How long the server knows an increment again that is sent twice."""

_MAX_WAITING: Final = 8192
"""Parked pulls a consumer holds; above it workers would be refused. Cannot be changed later."""


def stream_definitions(layout: QueueLayout, replicas: int) -> list[dict[str, Any]]:
    """Return the JetStream configurations a queue needs, ready for STREAM.CREATE and STREAM.UPDATE."""
    return [
        work_definition(layout, replicas),
        later_definition(layout, replicas),
        records_definition(layout, replicas),
        dead_definition(layout, replicas),
        object_definition(layout, replicas),
        notes_definition(layout, replicas),
        counts_definition(layout, replicas),
        flow_definition(layout, replicas),
    ]


def work_definition(layout: QueueLayout, replicas: int) -> dict[str, Any]:
    """Return the stream of submitted tasks: bounded, and full means the producer hears of it."""
    return {
        "name": work_stream(layout.namespace, layout.queue),
        "subjects": [
            *(subject for verb in ("task", "plan") for subject in _lane_subjects(verb, layout)),
            f"galley.wait.{layout.namespace}.{layout.queue}.*.{Kind.DIRECT}.*",
        ],
        "retention": "workqueue",
        "discard": "new",
        "max_msgs": layout.backlog,
        "max_bytes": layout.backlog_bytes,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "duplicate_window": 100_000_000,  # the least there is: message ids are not used
        "metadata": _metadata(layout),
    }


def later_definition(layout: QueueLayout, replicas: int) -> dict[str, Any]:
    """Return the stream of tasks for later.

    The server does not refuse a message to a stream with schedules: above `max_bytes` the oldest would go.
    So only workers write to it, and they stop at a share of it (`galley.broker.room`).
    """
    fired = f"galley.due.{layout.namespace}.{layout.queue}."
    return {
        "name": later_stream(layout.namespace, layout.queue),
        "subjects": [
            *(subject for verb in ("schedule", "again", "due") for subject in _lane_subjects(verb, layout)),
            timer_subject(layout.namespace, layout.queue, "*"),
            fired_subject(layout.namespace, layout.queue, "*"),
        ],
        "retention": "workqueue",
        "max_bytes": layout.later_bytes,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
        "duplicate_window": 100_000_000,
        "republish": {
            "src": f"{fired}*.>",
            "dest": f"galley.bell.{layout.namespace}.{layout.queue}.{{{{wildcard(1)}}}}.>",
            "headers_only": True,
        },
        "metadata": _metadata(layout),
    }


def records_definition(layout: QueueLayout, replicas: int) -> dict[str, Any]:
    """Return the stream of records."""
    tail = f"{layout.namespace}.{layout.queue}.>"
    return {
        "name": records_stream(layout.namespace, layout.queue),
        "subjects": [f"galley.result.{tail}"],
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": layout.record_bytes,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "duplicate_window": 100_000_000,
        "republish": {"src": f"galley.result.{tail}", "dest": f"galley.done.{tail}", "headers_only": True},
        "metadata": _metadata(layout),
    }


def dead_definition(layout: QueueLayout, replicas: int) -> dict[str, Any]:
    """Return the stream of dead letters: none goes before its time, and a full stream takes no more."""
    return {
        "name": dead_stream(layout.namespace, layout.queue),
        "subjects": [f"galley.dead.{layout.namespace}.{layout.queue}.>"],
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_bytes": layout.dead_letter_bytes,
        "max_age": layout.dead_letter_seconds * 1_000_000_000,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "duplicate_window": 100_000_000,
        "metadata": _metadata(layout),
    }


def object_definition(layout: QueueLayout, replicas: int) -> dict[str, Any]:
    """Return the stream of objects: nothing in it is ever replaced, and a full stream takes no more."""
    return {
        "name": object_stream(layout.namespace, layout.queue),
        "subjects": [objects_of_queue(layout.namespace, layout.queue)],
        "retention": "limits",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs_per_subject": 1,
        "max_bytes": layout.object_bytes,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "duplicate_window": 100_000_000,
        "metadata": _metadata(layout),
    }


def notes_definition(layout: QueueLayout, replicas: int) -> dict[str, Any]:
    """Return the stream of notes: the oldest go when it is full, since nothing depends on them."""
    return {
        "name": notes_stream(layout.namespace, layout.queue),
        "subjects": [notes_of_queue(layout.namespace, layout.queue)],
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": layout.output_bytes,
        "max_age": NOTE_SECONDS * 1_000_000_000,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "duplicate_window": 100_000_000,
        "republish": {
            "src": notes_of_queue(layout.namespace, layout.queue),
            "dest": noted_in_queue(layout.namespace, layout.queue),
        },
        "metadata": _metadata(layout),
    }


def counts_definition(layout: QueueLayout, replicas: int) -> dict[str, Any]:
    """Return the stream of counts: each message adds to the number its subject stands for."""
    return {
        "name": counts_stream(layout.namespace, layout.queue),
        "subjects": [count_subject(layout.namespace, layout.queue, "*", "*")],
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_bytes": COUNT_BYTES,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_msg_counter": True,
        "duplicate_window": int(COUNT_REPEAT_SECONDS * 1_000_000_000),
        "metadata": _metadata(layout),
    }


def flow_definition(layout: QueueLayout, replicas: int) -> dict[str, Any]:
    """Return the stream of workflows: one message for each subject, and a full stream takes no more."""
    return {
        "name": flow_stream(layout.namespace, layout.queue),
        "subjects": [flows_of_queue(layout.namespace, layout.queue)],
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_bytes": layout.workflow_bytes,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "duplicate_window": 100_000_000,
        "metadata": _metadata(layout),
    }


def consumer_definitions(layout: QueueLayout) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield stream name and consumer configuration for each lane of the work and the later stream."""
    work = work_stream(layout.namespace, layout.queue)
    for stream, verb in ((work, "task"), (later_stream(layout.namespace, layout.queue), "due")):
        for lane in layout.lanes:
            pattern = f"galley.{verb}.{layout.namespace}.{layout.queue}.{lane}.>"
            yield stream, _consumer(layout, lane.value, pattern)
    yield work, _consumer(layout, PLAN, planned(layout.namespace, layout.queue))
    fired = fired_subject(layout.namespace, layout.queue, "*")
    yield later_stream(layout.namespace, layout.queue), _consumer(layout, TIMER, fired)


def _consumer(layout: QueueLayout, name: str, pattern: str) -> dict[str, Any]:
    return {
        "durable_name": name,
        "name": name,
        "filter_subject": pattern,
        "ack_policy": "explicit",
        "ack_wait": int(layout.lease_seconds * 1_000_000_000),
        "max_deliver": -1,
        "max_waiting": _MAX_WAITING,
        "max_ack_pending": layout.in_flight,
        "deliver_policy": "all",
        "replay_policy": "instant",
    }


def _lane_subjects(verb: str, layout: QueueLayout) -> list[str]:
    return [
        f"galley.{verb}.{layout.namespace}.{layout.queue}.{lane}.{kind}.*"
        for lane in layout.lanes
        for kind in Kind
    ]


def _metadata(layout: QueueLayout) -> dict[str, str]:
    metadata = {
        OWNER_KEY: layout.install,
        NAMESPACE_KEY: layout.namespace,
        QUEUE_KEY: layout.queue,
        LANES_KEY: ",".join(layout.lanes),
        ENCRYPTION_KEY: ENCRYPTED if layout.encrypted else NOT_ENCRYPTED,
    }
    metadata |= {LIFE_KEY: layout.life} if layout.life else {}
    metadata |= {LIMITED_KEY: layout.limited} if layout.limited else {}
    return metadata | ({UID_KEY: layout.uid} if layout.uid else {})
