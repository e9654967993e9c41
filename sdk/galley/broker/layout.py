"""What a TaskQueue means for the broker."""

from typing import Final

from galley.broker.topology import QueueLayout
from galley.resources import TaskQueue

_PREFETCH_ALLOWANCE: Final = 18
"""Workers hold up to seventeen tasks a slot of quick handlers, and one more for those under way."""

_LEAST_IN_FLIGHT: Final = 1000


def layout_of(queue: TaskQueue, install: str, uid: str = "") -> QueueLayout:
    """Return the streams and consumers a queue needs.

    Args:
        queue: as people wrote it.
        install: the installation of Galley that owns its streams.
        uid: of the TaskQueue as a cluster's object.
    """
    spec = queue.spec
    slots = spec.scaling.max_workers * spec.worker.concurrency
    return QueueLayout(
        namespace=queue.metadata.namespace,
        queue=queue.metadata.name,
        lanes=spec.lanes,
        backlog=spec.limits.backlog,
        backlog_bytes=spec.limits.backlog_bytes,
        later_bytes=spec.limits.later_bytes,
        record_bytes=spec.limits.record_bytes,
        dead_letter_bytes=spec.limits.dead_letter_bytes,
        dead_letter_seconds=spec.retention.dead_letters_seconds or 0,
        object_bytes=spec.limits.object_bytes,
        output_bytes=spec.limits.output_bytes,
        workflow_bytes=spec.limits.workflow_bytes,
        in_flight=max(_LEAST_IN_FLIGHT, slots * _PREFETCH_ALLOWANCE),
        install=install,
        uid=uid,
        encrypted=spec.encryption is not None,
        life=spec.life_events.topic if spec.life_events is not None else "",
        limited="" if spec.limits.per_key is None else spec.limits.per_key.waits_for,
    )
