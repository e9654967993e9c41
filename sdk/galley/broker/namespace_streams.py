"""The JetStream configuration of the streams that all queues of a namespace share: topics, and the audit.

Why these: docs/adr/0032-topics.md and 0036-audit.md.
"""

from collections.abc import Iterable
from typing import Any, Final

from galley.broker.topology import (
    LEASE_SECONDS,
    NAMESPACE_KEY,
    OWNER_KEY,
    SUBSCRIBERS_KEY,
    audit_stream,
    audit_subject,
    code_subscriptions_subject,
    event_subject,
    live_subject,
    topic_subject,
    topics_stream,
)
from galley.topic import LATE_SECONDS

AUDIT_LINES: Final = 1000
"""Lines that are kept for each queue and kind of writer: none can push out those of another."""
AUDIT_LINE_BYTES: Final = 2048
AUDIT_BYTES: Final = 32 * 1024**2
AUDIT_SECONDS: Final = 90 * 24 * 3600

REPEATED_SECONDS: Final = 60
"""How long the server knows an event again that is published a second time."""

_EVENTS_IN_FLIGHT: Final = 1000


def topics_definition(
    namespace: str, install: str, retention_seconds: int, retention_bytes: int, subscribers: Iterable[str]
) -> dict[str, Any]:
    """Return the stream of topics: an event that was accepted stays for its time, so a full one refuses more.

    What the topics are stands in it, too, without an end. A message id is known for a minute: a publisher
    that publishes again within that time adds nothing.
    """
    return {
        "name": topics_stream(namespace),
        "subjects": [
            event_subject(namespace, "*"),
            topic_subject(namespace, ">"),
            code_subscriptions_subject(namespace, "*"),
        ],
        "retention": "limits",
        "discard": "new",
        "max_bytes": retention_bytes,
        "max_age": (retention_seconds + LATE_SECONDS) * 1_000_000_000,
        "storage": "file",
        "allow_direct": True,
        "allow_msg_ttl": True,
        "duplicate_window": min(REPEATED_SECONDS, retention_seconds) * 1_000_000_000,
        "republish": {
            "src": event_subject(namespace, "*"),
            "dest": live_subject(namespace, "{{wildcard(1)}}"),
        },
        "metadata": {
            OWNER_KEY: install,
            NAMESPACE_KEY: namespace,
            SUBSCRIBERS_KEY: ",".join(sorted(subscribers)),
        },
    }


def audit_definition(namespace: str, install: str, replicas: int) -> dict[str, Any]:
    """Return the stream of who did what: nothing in it can be changed or removed before its time."""
    return {
        "name": audit_stream(namespace),
        "subjects": [audit_subject(namespace, "*", "*")],
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": AUDIT_LINES,
        "max_msg_size": AUDIT_LINE_BYTES,
        "max_bytes": AUDIT_BYTES,
        "max_age": AUDIT_SECONDS * 1_000_000_000,
        "deny_delete": True,
        "deny_purge": True,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "duplicate_window": 120_000_000_000,
        "metadata": {OWNER_KEY: install, NAMESPACE_KEY: namespace},
    }


def topics_consumer(
    namespace: str, queue: str, topics: Iterable[str], since: str, *, ordered: bool
) -> dict[str, Any]:
    """Return the consumer of the events of all topics a queue subscribes to, from a time on."""
    return {
        "durable_name": queue,
        "name": queue,
        "filter_subjects": sorted(event_subject(namespace, topic) for topic in topics),
        "ack_policy": "explicit",
        "ack_wait": int(LEASE_SECONDS * 1_000_000_000),
        "max_deliver": -1,
        # One at a time keeps their order, whichever worker has it and whatever becomes of it.
        "max_ack_pending": 1 if ordered else _EVENTS_IN_FLIGHT,
        "deliver_policy": "by_start_time",
        "opt_start_time": since,
        "replay_policy": "instant",
    }
