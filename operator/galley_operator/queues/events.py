"""Events for people: what `kubectl describe taskqueue` tells of the last hour."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from galley.resources import API_VERSION
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.resource import EVENTS
from galley_operator.errors import ClusterError, ObjectNotFound
from galley_operator.queues.queue_object import QueueObject

log = logging.getLogger(__name__)

SERIES_SECONDS: Final = 600.0
"""What happens again within this time is counted, and no event of its own."""

_LONGEST: Final = 1000
_REMEMBERED: Final = 10_000
_CONTROLLER: Final = "galley.dev/operator"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something people want to know of."""

    queue: QueueObject
    reason: str
    """In CamelCase, such as `Scaled`."""
    sort: str
    """Occurrences of one reason and one sort are one series."""
    note: str
    """What happened, and why, as a sentence."""
    warning: bool = False


@dataclass(slots=True)
class _Series:
    name: str
    count: int
    at: float


class Events:
    """Writes occurrences down. What cannot be written is logged, and holds nothing up."""

    def __init__(self, cluster: Cluster, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._identity, self._clock = cluster, identity, clock
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._number = 0

    async def write(self, occurrence: Occurrence) -> None:
        """Write an event, or count it in the one that is there."""
        now = self._clock()
        key = (occurrence.queue.uid, occurrence.reason, occurrence.sort)
        series = self._series.get(key)
        try:
            if (
                series is not None
                and now - series.at < SERIES_SECONDS
                and await self._count(occurrence, series)
            ):
                series.at = now
                return
            self._forget(now)
            self._series[key] = _Series(await self._create(occurrence), 1, now)
        except ClusterError as error:
            log.warning("event not written", extra={"error": str(error), "hint": error.hint})

    async def _count(self, occurrence: Occurrence, series: _Series) -> bool:
        body = {"series": {"count": series.count + 1, "lastObservedTime": _now()}}
        try:
            await self._cluster.merge_patch(EVENTS, occurrence.queue.namespace, series.name, body)
        except ObjectNotFound:
            return False
        series.count += 1
        return True

    async def _create(self, occurrence: Occurrence) -> str:
        queue = occurrence.queue
        self._number += 1
        name = f"{queue.name}.{time.time_ns():x}.{self._number}"
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": queue.namespace},
            "eventTime": _now(),
            "reportingController": _CONTROLLER,
            "reportingInstance": self._identity,
            "action": occurrence.reason,
            "reason": occurrence.reason,
            "type": "Warning" if occurrence.warning else "Normal",
            "note": occurrence.note[:_LONGEST],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": "TaskQueue",
                "namespace": queue.namespace,
                "name": queue.name,
                "uid": queue.uid,
            },
        }
        await self._cluster.create(EVENTS, body)
        return name

    def _forget(self, now: float) -> None:
        if len(self._series) >= _REMEMBERED:
            young = {key: each for key, each in self._series.items() if now - each.at < SERIES_SECONDS}
            self._series = young


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
