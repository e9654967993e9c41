"""Builders: real models with defaults, then the few words that matter to a test."""

import json
from datetime import UTC, datetime
from typing import Any

from msgspec import Raw

from galley.address import Kind, TaskAddress
from galley.broker.topology import QueueLayout
from galley.envelope import Envelope
from galley.lanes import DEFAULT_LANES, Lane
from galley.task_id import new_task_id


def a_queue(queue: str = "images", **changes: Any) -> QueueLayout:
    """Return the layout of a queue."""
    defaults: dict[str, Any] = {
        "namespace": "default",
        "lanes": DEFAULT_LANES,
        "backlog": 1000,
        "backlog_bytes": 64 * 1024 * 1024,
        "in_flight": 100,
        "install": "tests",
    }
    return QueueLayout(**{"queue": queue, **defaults, **changes})


def an_address(**changes: Any) -> TaskAddress:
    """Return the address of a new task; `of=a_queue(...)` takes namespace and queue from there."""
    layout: QueueLayout = changes.pop("of", None) or a_queue()
    defaults: dict[str, Any] = {
        "namespace": layout.namespace,
        "queue": layout.queue,
        "lane": Lane.NORMAL,
        "kind": Kind.DIRECT,
        "id": new_task_id(),
    }
    return TaskAddress(**{**defaults, **changes})


def an_envelope(handler: str = "resize", **changes: Any) -> Envelope:
    """Return an envelope; `input` may be any JSON value."""
    if "input" in changes and not isinstance(changes["input"], Raw):
        changes["input"] = Raw(json.dumps(changes["input"]).encode())
    return Envelope(**{"handler": handler, "submitted_at": datetime.now(UTC), **changes})
