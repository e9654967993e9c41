"""Which tasks wait under their keys, and for what: a turn, a permit, or their rate."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.key_permits import KeyPermits
from galley.errors import EnvelopeInvalid
from galley.key import Permits, digest_of_key

_SAMPLE: Final = 256
"""Tasks that are read, the oldest ones; of the others it is known how many there are."""

_SAMPLE_BYTES: Final = 1024**2
_KEYS: Final = 5
"""Keys that are shown, those with the most waiting tasks first."""


@dataclass(frozen=True)
class WaitingKey:
    """A key with waiting tasks."""

    key: str
    waiting: int
    """Of the tasks that were read."""
    running: tuple[str, ...] = ()
    """The tasks that have its permits."""
    next_start: datetime | None = None
    """When its bucket of starts is full again, if that is not yet."""

    @property
    def reason(self) -> str:
        """What its next task waits for."""
        if self.running:
            return "permit"
        return "rate" if self.next_start is not None else "turn"


@dataclass(frozen=True)
class WaitingKeys:
    """The keys of a queue with waiting tasks."""

    tasks: int = 0
    """All tasks that wait under keys."""
    read: int = 0
    """Of these, how many `keys` are made of: the oldest ones."""
    keys: tuple[WaitingKey, ...] = ()

    @property
    def sentence(self) -> str:
        """What a user is told; empty if no task waits."""
        if not self.tasks:
            return ""
        these = "1 task waits" if self.tasks == 1 else f"{self.tasks} tasks wait"
        most = f"; of the first {self.read}" if self.read < self.tasks else ""
        return f"{these} under their keys{most}: {'; '.join(map(_shown, self.keys))}"


def _shown(each: WaitingKey) -> str:
    said = f"{each.waiting} of {each.key[:60]!r}"
    if each.running:
        tasks = ", ".join(each.running[:_KEYS]) + (", ..." if len(each.running) > _KEYS else "")
        return f"{said} for a permit that {tasks} {'has' if len(each.running) == 1 else 'have'}"
    if each.next_start is not None:
        return f"{said} for a start that the rate allows"
    return f"{said} for their turn"


async def waiting_keys(broker: Broker, namespace: str, queue: str) -> WaitingKeys:
    """Return the keys of a queue with waiting tasks. It reads up to 256 tasks.

    Raises:
        BrokerUnreachable, BrokerRefused: if the broker does not answer.
    """
    tasks, found = await _first(broker, namespace, queue, _SAMPLE)
    permits = KeyPermits(broker, namespace, queue)
    now = datetime.now(UTC)
    keys = []
    for key, waiting in found.most_common(_KEYS):
        held = (await permits.read(digest_of_key(key))).permits
        keys.append(WaitingKey(key, waiting, held.held, _next_start(held, now)))
    return WaitingKeys(tasks, found.total(), tuple(keys))


async def count_waiting(broker: Broker, namespace: str, queue: str) -> int:
    """Return how many tasks of a queue wait under keys.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    return (await _first(broker, namespace, queue, 1))[0]


def _next_start(permits: Permits, now: datetime) -> datetime | None:
    full_at = datetime.fromtimestamp(permits.full_at, UTC)
    return full_at if full_at > now else None


async def _first(broker: Broker, namespace: str, queue: str, most: int) -> tuple[int, Counter[str]]:
    """Return how many tasks wait, and the keys of the first ones."""
    request = msgspec.json.encode(
        {
            "seq": 1,
            "next_by_subj": topology.waiting_of_queue(namespace, queue),
            "batch": most,
            "max_bytes": _SAMPLE_BYTES,
        }
    )
    subject = f"$JS.API.DIRECT.GET.{topology.work_stream(namespace, queue)}"
    keys: Counter[str] = Counter()
    unread = 0
    async for answer in broker.request_many(subject, request):
        headers = answer.headers or {}
        if "Nats-Subject" not in headers:
            return keys.total() + unread + int(headers.get("Nats-Num-Pending", 0)), keys
        address = topology.parse_task_subject(headers["Nats-Subject"])
        try:
            keys[(await broker.payloads.look_at_task(address, answer.data)).key] += 1
        except EnvelopeInvalid:
            unread += 1  # its worker reports it
    return keys.total() + unread, keys
