"""Events of TaskQueues and Tasks, as `kubectl describe` shows them for an hour.

Bounded as Kubernetes' own components bound them: equal events become one with a count, and each object has a
budget of events, so that a queue that changes all the time cannot fill the API server.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from galley.resources import API_VERSION
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError, ObjectNotFound
from galley_operator.cluster.resource import EVENTS

log = logging.getLogger(__name__)

SERIES_SECONDS: Final = 600.0
"""An occurrence with the same text within this time raises the count of the event that is there."""

BURST: Final = 25
"""Events an object may cause at once."""

REFILL_SECONDS: Final = 60.0
"""Time after which it may cause one more."""

FAILURES_SECONDS: Final = 60.0
"""Least time between two events about failed tasks of a queue."""

_LONGEST: Final = 1000
"""Bytes of a note: the API server accepts 1024, and no event with more."""

_REMEMBERED: Final = 10_000
_CONTROLLER: Final = "galley.dev/operator"


class Regarded(Protocol):
    """An object that an event is about."""

    @property
    def namespace(self) -> str: ...  # noqa: D102 - as the API server says it

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def uid(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that becomes an event."""

    about: Regarded
    reason: str
    """In CamelCase, such as `Scaled`."""
    note: str
    """What happened, and why, as a sentence."""
    warning: bool = False
    kind: str = "TaskQueue"
    """Of what it is about."""


class Failures:
    """How many dead letters of a queue are new since the last event about them."""

    def __init__(self, total: int | None) -> None:
        """Args: total: dead letters there were when the queue was last looked at; None if not known."""
        self._total = total
        self._at = float("-inf")

    def take(self, total: int, now: float) -> int:
        """Return how many dead letters came since the last event; 0 while that event is too recent."""
        if self._total is None or total < self._total:
            self._total = total  # the first look, or old ones have expired
        new = total - self._total
        if not new or now - self._at < FAILURES_SECONDS:
            return 0
        self._total, self._at = total, now
        return new


@dataclass(slots=True)
class _Series:
    name: str
    count: int
    at: float


@dataclass(slots=True)
class _Budget:
    left: float
    at: float

    def spend(self, now: float) -> bool:
        self.left = min(BURST, self.left + (now - self.at) / REFILL_SECONDS)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Events:
    """Writes occurrences as events. What cannot be written is logged and not retried."""

    def __init__(self, cluster: Cluster, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._identity, self._clock = cluster, identity, clock
        self._series: dict[tuple[str, str, str], _Series] = {}
        self._budgets: dict[str, _Budget] = {}
        self._number = 0

    async def write(self, occurrence: Occurrence) -> None:
        """Create an event, or raise the count of the one with the same text."""
        now = self._clock()
        key = (occurrence.about.uid, occurrence.reason, occurrence.note)
        series = self._series.get(key)
        try:
            if (
                series is not None
                and now - series.at < SERIES_SECONDS
                and await self._count(occurrence, series)
            ):
                series.at = now
                return
            if not self._budgets.setdefault(occurrence.about.uid, _Budget(BURST, now)).spend(now):
                log.info("event not written, its object has many", extra={"about": occurrence.about.name})
                return
            self._forget(now)
            self._series[key] = _Series(await self._create(occurrence), 1, now)
        except ClusterError as error:
            log.warning("event not written", extra={"error": str(error), "hint": error.hint})

    async def _count(self, occurrence: Occurrence, series: _Series) -> bool:
        body = {"series": {"count": series.count + 1, "lastObservedTime": _now()}}
        try:
            await self._cluster.merge_patch(EVENTS, occurrence.about.namespace, series.name, body)
        except ObjectNotFound:
            return False
        series.count += 1
        return True

    async def _create(self, occurrence: Occurrence) -> str:
        about = occurrence.about
        self._number += 1
        name = f"{about.name}.{time.time_ns():x}.{self._number}"
        body: dict[str, Any] = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": about.namespace},
            "eventTime": _now(),
            "reportingController": _CONTROLLER,
            "reportingInstance": self._identity,
            "action": occurrence.reason,
            "reason": occurrence.reason,
            "type": "Warning" if occurrence.warning else "Normal",
            "note": occurrence.note.encode(errors="replace")[:_LONGEST].decode(errors="ignore"),
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": occurrence.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
            },
        }
        await self._cluster.create(EVENTS, body)
        return name

    def _forget(self, now: float) -> None:
        if len(self._series) >= _REMEMBERED:
            self._series = {key: each for key, each in self._series.items() if now - each.at < SERIES_SECONDS}
        if len(self._budgets) >= _REMEMBERED:
            full = BURST * REFILL_SECONDS
            self._budgets = {uid: each for uid, each in self._budgets.items() if now - each.at < full}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
