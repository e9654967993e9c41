"""When the tasks for later of a queue fall due, read from its stream as it grows, some at each look."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from galley.broker import topology
from galley.broker.connection import Broker

_MESSAGES_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 1024**2
"""What one look reads at most; a stream that holds more is read over several looks."""

_MOST_TIMES: Final = 10_000
"""Different seconds that are kept; the latest are dropped, and read again after a start of the process."""

LISTED_SECONDS: Final = 900.0
"""How far ahead times are listed one by one; of those after it only the first is."""

_VERBS: Final = ("schedule", "again")


class Upcoming:
    """The times at which tasks and schedules of one queue fall due, to the second.

    A task that was cancelled or replaced meanwhile is still counted until its time; the number of messages in
    the stream bounds that.
    """

    def __init__(self, namespace: str, queue: str, at_once: int = _MESSAGES_AT_ONCE) -> None:
        """Args: namespace, queue: of the tasks; at_once: messages of one kind that a look reads."""
        self._at_once = at_once
        self._stream = topology.later_stream(namespace, queue)
        self._patterns = [f"galley.{verb}.{namespace}.{queue}.>" for verb in _VERBS]
        self._read = dict.fromkeys(self._patterns, 0)
        self._seen = 0
        self._due: Counter[int] = Counter()

    async def refresh(self, broker: Broker, messages: int, last: int) -> None:
        """Read what was added.

        Args:
            broker: an open connection.
            messages: how many there are in the stream.
            last: sequence of the last one.

        Raises:
            BrokerError: if the broker does not answer.
        """
        if messages == 0 or last < self._seen:
            # All of them are gone, or this is another stream than before.
            self._due.clear()
            self._read = dict.fromkeys(self._patterns, last if messages == 0 else 0)
            self._seen = last
        if last == self._seen and min(self._read.values()) >= last:
            return
        for pattern in self._patterns:
            await self._batch(broker, pattern, last)
        self._seen = last

    def listed(self, now: datetime, most: int) -> tuple[tuple[datetime, int], ...]:
        """Return when tasks fall due from now on, and how many, the first ones first.

        Args:
            now: what is before it is forgotten.
            most: tasks there can be.
        """
        second = int(now.timestamp())
        for past in [each for each in self._due if each < second]:
            del self._due[past]
        found: list[tuple[datetime, int]] = []
        for at in sorted(self._due):
            if most <= 0 or (found and at > second + LISTED_SECONDS):
                break
            found.append((datetime.fromtimestamp(at, UTC), min(most, self._due[at])))
            most -= self._due[at]
        return tuple(found)

    async def _batch(self, broker: Broker, pattern: str, last: int) -> None:
        request: dict[str, Any] = {
            "seq": self._read[pattern] + 1, "next_by_subj": pattern,
            "batch": self._at_once, "max_bytes": _BYTES_AT_ONCE,
        }  # fmt: skip
        async for answer in broker.request_many(
            f"$JS.API.DIRECT.GET.{self._stream}", msgspec.json.encode(request)
        ):
            headers = answer.headers or {}
            if "Nats-Subject" not in headers:
                # The end of the batch; nothing is left of this pattern if that is what it says.
                if headers.get("Nats-Num-Pending", "0") == "0":
                    self._read[pattern] = max(self._read[pattern], last)
                return
            self._read[pattern] = int(headers["Nats-Sequence"])
            if (at := _time_in(headers.get(topology.SCHEDULE, ""))) is not None:
                self._note(at)

    def _note(self, at: datetime) -> None:
        self._due[int(at.timestamp())] += 1
        if len(self._due) > _MOST_TIMES:
            del self._due[max(self._due)]


def _time_in(schedule: str) -> datetime | None:
    """Return the time a schedule is for; None if it is none of ours."""
    try:
        at = datetime.fromisoformat(schedule.removeprefix("@at "))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
