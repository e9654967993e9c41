"""Life events: what happens to the tasks of a queue, as events of a topic, where the queue asks for that.

The end of a task is published before its message is acknowledged, so a worker that dies in between has the
next one publish it again, under the same id: at least once, and one copy for each subscription. A start and a
retry are published once, and missed if the worker dies just then. A topic that cannot be had, or takes no
more, holds up no task: its events are missed, and counted.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

from msgspec import UNSET

from galley.address import TaskAddress
from galley.broker.pull import Delivery
from galley.broker.topics import TopicPublisher
from galley.envelope import decode
from galley.errors import EnvelopeInvalid, GalleyError
from galley.inside import LIFE_WORD
from galley.life import Happened, happened_to, life_event
from galley.record import Failure, Record
from galley_worker.claim import Held
from galley_worker.measures import Measures

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 5.0
"""How long an event is tried before it is given up."""


class Life:
    """Publishes the life events of one queue."""

    def __init__(
        self, publisher: TopicPublisher, topic: str, measures: Measures, now: Callable[[], datetime], *,
        messages: bool = True,
    ) -> None:  # fmt: skip
        """Args: messages: whether what exceptions say is told; not where payloads are encrypted."""
        self._publisher, self._topic, self._measures, self._now = publisher, topic, measures, now
        self._messages = messages

    async def started(self, held: Held, worker: str) -> None:
        """Publish that a handler began."""
        if LIFE_WORD in held.envelope.ancestors:
            return
        address, envelope, attempt = held.delivery.address, held.envelope, held.flags.attempt
        await self._publish(
            "started", address, happened_to(address, envelope, attempt, worker), envelope.trace
        )

    async def retried(self, held: Held, record: Record) -> None:
        """Publish that a task waits for another attempt."""
        if LIFE_WORD in held.envelope.ancestors:
            return
        happened = happened_to(held.delivery.address, held.envelope, record.attempt, record.worker)
        happened.due_at = record.due_at or UNSET
        self._fail(happened, record.failure)
        await self._publish("retried", held.delivery.address, happened, held.envelope.trace)

    async def ended(self, delivery: Delivery, final: Record) -> None:
        """Publish how a task ended."""
        trace = ""
        with suppress(EnvelopeInvalid):
            task = decode(delivery.body)
            if LIFE_WORD in task.ancestors:
                return
            trace = task.trace
        address, kind = delivery.address, str(final.outcome)
        happened = Happened(
            address.namespace, address.queue, address.id, final.handler, final.attempt, final.worker,
            final.submitted_at or UNSET, labels=final.labels or {},
        )  # fmt: skip
        self._fail(happened, final.failure)
        await self._publish(kind, address, happened, trace)

    def _fail(self, happened: Happened, failure: Failure | None) -> None:
        if failure is not None:
            happened.reason = failure.reason
            happened.message = failure.message if self._messages else ""

    async def _publish(self, kind: str, address: TaskAddress, happened: Happened, trace: str) -> None:
        try:
            event = life_event(kind, address, happened, self._now(), trace)
            await self._publisher.publish(self._topic, event)
        except GalleyError as error:
            self._measures.life_missed()
            about = {"task": address.id, "topic": self._topic, "happened": kind, "error": str(error)}
            log.warning("life event missed", extra=about)
