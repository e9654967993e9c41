"""One consumer in memory: pulls on one side, leases on the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.support.memory_nats.stream import Message, Stream, matches

if TYPE_CHECKING:
    from tests.support.memory_nats.client import MemoryClient


@dataclass
class Pull:
    """A request for messages that is not filled yet."""

    client: MemoryClient
    connection: int
    inbox: str
    left: int
    no_wait: bool
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.client.epoch == self.connection and self.client.is_connected

    def end(self) -> None:
        for timer in self.timers:
            timer.cancel()


@dataclass
class Consumer:
    """A consumer by its definition."""

    stream: Stream
    definition: dict[str, Any]
    delivered: Callable[[Consumer, Message, int], None]
    """Called with each delivery: the consumer, the message, and how often that was."""
    pending: dict[int, float] = field(default_factory=dict)
    """When the lease of each delivered message ends."""
    counts: dict[int, int] = field(default_factory=dict)
    given_back: deque[int] = field(default_factory=deque)
    next_sequence: int = 1
    pulls: deque[Pull] = field(default_factory=deque)
    paused: bool = False
    _deliveries: int = 0
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        if self.definition.get("deliver_policy") == "by_start_sequence":
            self.next_sequence = self.definition["opt_start_seq"]
        if self.definition.get("deliver_policy") == "by_start_time":
            since = datetime.fromisoformat(self.definition["opt_start_time"])
            later = (each.sequence for each in self.stream.messages.values() if each.at >= since)
            self.next_sequence = min(later, default=self.stream.last_sequence + 1)

    @property
    def name(self) -> str:
        return str(self.definition.get("name") or self.definition["durable_name"])

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of the subjects it delivers."""
        several = self.definition.get("filter_subjects")
        return tuple(several) if several else (self.definition["filter_subject"],)

    @property
    def lease_seconds(self) -> float:
        return float(self.definition.get("ack_wait", 30e9)) / 1e9

    @property
    def waiting(self) -> int:
        """Messages that were never handed out."""
        return sum(
            sequence >= self.next_sequence and any(matches(each, message.subject) for each in self.patterns)
            for sequence, message in self.stream.messages.items()
        )

    @property
    def in_flight(self) -> int:
        return len(self.pending) + len(self.given_back)

    @property
    def acknowledged_to(self) -> int:
        """Up to there nothing that was handed out is in flight."""
        return min([*self.pending, *self.given_back], default=self.next_sequence) - 1

    def pull(self, client: MemoryClient, inbox: str, request: dict[str, Any]) -> None:
        pull = Pull(client, client.epoch, inbox, request.get("batch", 1), bool(request.get("no_wait")))
        self.pulls.append(pull)
        loop = asyncio.get_running_loop()
        if beat := request.get("idle_heartbeat"):
            self._beat(pull, beat / 1e9)
        if expires := request.get("expires"):
            pull.timers.append(loop.call_later(expires / 1e9, self._expire, pull))
        self.serve()

    def serve(self) -> None:
        """Hand out what there is to those who wait for it."""
        while self.pulls and not self.paused:
            pull = self.pulls[0]
            if not pull.alive:
                self._end(pull)
                continue
            now = asyncio.get_running_loop().time()
            leased = sum(ends > now for ends in self.pending.values())
            # What comes again does not count: it is pending already.
            if leased >= self.definition.get("max_ack_pending", 1000):
                break
            message = self._next()
            if message is None:
                sweeps = [each for each in self.pulls if each.no_wait]
                for sweep in sweeps:
                    sweep.client.deliver_status(sweep.inbox, "404", "No Messages")
                    self._end(sweep)
                break
            self._hand_out(pull, message)
        self._look_again()

    def acknowledge(self, sequence: int) -> None:
        self.pending.pop(sequence, None)
        if sequence in self.given_back:
            self.given_back.remove(sequence)
        self.counts.pop(sequence, None)
        self.serve()

    def renew(self, sequence: int, seconds: float | None = None) -> None:
        if sequence in self.pending:
            until = self.lease_seconds if seconds is None else seconds
            self.pending[sequence] = asyncio.get_running_loop().time() + until

    def give_back(self, sequence: int) -> None:
        if sequence in self.pending:
            del self.pending[sequence]
            self.given_back.append(sequence)
            self.serve()

    def purged(self, sequence: int) -> None:
        self.acknowledge(sequence)

    def forget(self, sequence: int) -> None:
        """Forget a delivery, as a server does that was killed before it wrote it down."""
        self.pending.pop(sequence, None)
        self.counts.pop(sequence, None)
        self.next_sequence = min(self.next_sequence, sequence)

    def restarted(self) -> None:
        for pull in list(self.pulls):
            self._end(pull)

    def refuse_pulls(self, status: str, description: str) -> None:
        for pull in list(self.pulls):
            pull.client.deliver_status(pull.inbox, status, description)
            self._end(pull)

    def _next(self) -> Message | None:
        while self.given_back:
            message = self.stream.messages.get(self.given_back.popleft())
            if message is not None:
                return message
        now = asyncio.get_running_loop().time()
        for sequence in sorted(each for each, ends in self.pending.items() if ends <= now):
            if (message := self.stream.messages.get(sequence)) is not None:
                return message
            del self.pending[sequence]
        while (message := self.stream.next_of(self.patterns, self.next_sequence)) is not None:
            self.next_sequence = message.sequence + 1
            if message.sequence not in self.pending:
                return message
        return None

    def _hand_out(self, pull: Pull, message: Message) -> None:
        count = self.counts[message.sequence] = self.counts.get(message.sequence, 0) + 1
        now = asyncio.get_running_loop().time()
        if self.definition["ack_policy"] != "none":
            self.pending[message.sequence] = now + self.lease_seconds
        self._deliveries += 1
        reply = (
            f"$JS.ACK.{self.stream.name}.{self.name}.{count}.{message.sequence}.{self._deliveries}"
            f".{int(message.at.timestamp() * 1e9)}.{self.waiting}"
        )
        pull.left -= 1
        pull.client.deliver_to_inbox(pull.inbox, message.subject, reply, message.body, message.headers)
        if pull.left == 0:
            self._end(pull)
        self.delivered(self, message, count)

    def _end(self, pull: Pull) -> None:
        pull.end()
        if pull in self.pulls:
            self.pulls.remove(pull)

    def _expire(self, pull: Pull) -> None:
        if pull in self.pulls:
            self._end(pull)
            pull.client.deliver_status(
                pull.inbox, "408", "Request Timeout", {"Nats-Pending-Messages": str(pull.left)}
            )

    def _beat(self, pull: Pull, seconds: float) -> None:
        def beat() -> None:
            if pull in self.pulls:
                pull.client.deliver_status(pull.inbox, "100", "Idle Heartbeat")
                self._beat(pull, seconds)

        pull.timers.append(asyncio.get_running_loop().call_later(seconds, beat))

    def _look_again(self) -> None:
        """Look when the first lease ends, if a pull waits then."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.pulls and self.pending:
            at = max(min(self.pending.values()), asyncio.get_running_loop().time() + 1e-6)
            self._timer = asyncio.get_running_loop().call_at(at, self.serve)
