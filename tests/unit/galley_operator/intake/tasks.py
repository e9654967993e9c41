"""Builders of what the operator remembers."""

import json
from datetime import UTC, datetime
from typing import Any

from galley.declared import read_spec
from galley.lanes import DEFAULT_LANES, Lane
from galley_operator.intake.admission import Facts
from galley_operator.intake.broker_tasks import Trace
from galley_operator.tasks.active_tasks import ActiveTask
from galley_operator.tasks.known_queues import KnownQueue

CREATED = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


def an_active_task(**changes: Any) -> ActiveTask:
    """Return a Task that is not in the broker yet."""
    values: dict[str, Any] = {
        "namespace": "images", "name": "one", "uid": "u1", "version": "7", "generation": 1,
        "created": CREATED, "queue": "thumbs", "lane": Lane.NORMAL, "spec": b"{}", "shown": 0,
    }  # fmt: skip
    return ActiveTask(**{**values, **changes})


def a_known_queue(**changes: Any) -> KnownQueue:
    """Return a queue with the default lanes, whose handlers only its workers know."""
    values = {"name": "thumbs", "lanes": DEFAULT_LANES, "handlers": None}
    return KnownQueue(**{**values, **changes})


def some_facts(queue: KnownQueue | None = None, *, no_queue: bool = False, **spec: Any) -> Facts:
    """Return what is known of a task with this spec, which is admitted unless something is changed."""
    body = json.dumps({"queueName": "thumbs", "handler": "resize", **spec}).encode()
    present = None if no_queue else queue or a_known_queue()
    return Facts(an_active_task(), Trace(), read_spec("one", body), present, NOW)
