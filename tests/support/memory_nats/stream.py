"""One stream in memory: what it accepts, what it keeps, and for how long."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from galley.broker import topology

Headers = Mapping[str, str]

WRONG_SEQUENCE = 10071
FULL = 10077
TTL_INVALID = 10165
SCHEDULE_TARGET_INVALID = 10190
ROLLUP_DENIED = 10111


def _size(message: "Message") -> int:
    return len(message.subject) + len(message.body)


@lru_cache(maxsize=2**17)
def matches(pattern: str, subject: str) -> bool:
    """Return whether a subject is one of a pattern's. Remembered: storms ask a million times."""
    if pattern == subject:
        return True
    expected, words = pattern.split("."), subject.split(".")
    for place, word in enumerate(expected):
        if word == ">":
            return len(words) > place
        if place >= len(words) or word not in ("*", words[place]):
            return False
    return len(words) == len(expected)


@dataclass(frozen=True)
class Message:
    """One stored message."""

    sequence: int
    subject: str
    headers: Headers
    body: bytes
    at: datetime


@dataclass(frozen=True)
class Refusal(Exception):
    """Why a message is not stored."""

    code: int
    description: str


@dataclass
class Stream:
    """A stream by its definition."""

    definition: dict[str, Any]
    messages: dict[int, Message] = field(default_factory=dict)
    last_sequence: int = 0
    _by_subject: dict[str, dict[int, None]] = field(default_factory=dict)
    """Sequences of the messages of each subject, the last one last."""
    _size: int = 0
    _ids: dict[str, Message] = field(default_factory=dict)
    """The last message of each message id."""

    @property
    def name(self) -> str:
        return str(self.definition["name"])

    def takes(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self.definition["subjects"])

    def last(self, subject: str) -> Message | None:
        """Return the last message of a subject or of a pattern's subjects."""
        if "*" not in subject and ">" not in subject:
            there = self._by_subject.get(subject)
            return None if there is None else self.messages[next(reversed(there))]
        found = (next(reversed(each)) for name, each in self._by_subject.items() if matches(subject, name))
        sequence = max(found, default=None)
        return None if sequence is None else self.messages[sequence]

    def next_of(self, patterns: str | tuple[str, ...], at_least: int) -> Message | None:
        """Return the first message of some patterns from a sequence on."""
        several = (patterns,) if isinstance(patterns, str) else patterns
        if isinstance(patterns, str) and "*" not in patterns and ">" not in patterns:
            there = (each for each in self._by_subject.get(patterns, ()) if each >= at_least)
            sequence = next(there, None)
            return None if sequence is None else self.messages[sequence]
        for sequence, message in self.messages.items():
            if sequence >= at_least and any(matches(each, message.subject) for each in several):
                return message
        return None

    def known(self, headers: Headers, now: datetime) -> Message | None:
        """Return the message that was stored under the same message id a short time ago."""
        name = headers.get(topology.MESSAGE_ID)
        before = self._ids.get(name) if name else None
        seconds = self.definition.get("duplicate_window", 0) / 1e9
        return before if before is not None and (now - before.at).total_seconds() < seconds else None

    def store(self, subject: str, headers: Headers, body: bytes, at: datetime) -> Message:
        """Keep a message.

        Raises:
            Refusal: if an expectation does not hold, or there is no room.
        """
        if (again := self.known(headers, at)) is not None:
            return again
        self._check(subject, headers, len(body))
        if self.definition.get("allow_msg_counter"):
            body = self._sum(subject, headers)
        self.last_sequence += 1
        message = Message(self.last_sequence, subject, headers, body, at)
        if topology.MESSAGE_ID in headers:
            self._ids[headers[topology.MESSAGE_ID]] = message
        single = self.definition.get("max_msgs_per_subject") == 1 or topology.SCHEDULE in headers
        if single and (before := self.last(subject)) is not None:
            self.remove(before.sequence)
        self.messages[message.sequence] = message
        self._by_subject.setdefault(subject, {})[message.sequence] = None
        self._size += _size(message)
        return message

    def _sum(self, subject: str, headers: Headers) -> bytes:
        """Return the body of a counter that a message adds to."""
        last = self.last(subject)
        before = int(json.loads(last.body)["val"]) if last is not None else 0
        return json.dumps({"val": str(before + int(headers[topology.INCREMENT]))}).encode()

    def remove(self, sequence: int) -> None:
        message = self.messages.pop(sequence, None)
        if message is None:
            return
        self._size -= _size(message)
        there = self._by_subject[message.subject]
        del there[sequence]
        if not there:
            del self._by_subject[message.subject]

    def of(self, subject: str) -> list[Message]:
        """Return the messages of one subject, oldest first."""
        return [self.messages[sequence] for sequence in self._by_subject.get(subject, ())]

    def subjects(self, pattern: str) -> dict[str, int]:
        """Return the number of messages of each subject of a pattern."""
        if pattern in self._by_subject:
            return {pattern: len(self._by_subject[pattern])}
        return {name: len(there) for name, there in self._by_subject.items() if matches(pattern, name)}

    @property
    def bytes(self) -> int:
        """What its messages take, about."""
        return self._size

    def _check(self, subject: str, headers: Headers, size: int) -> None:
        if "Nats-Rollup" in headers:
            raise Refusal(ROLLUP_DENIED, "rollup not permitted")
        if headers.get(topology.TTL, "never") != "never" and float(headers[topology.TTL]) < 1:
            raise Refusal(TTL_INVALID, "invalid per-message TTL")
        target = headers.get(topology.SCHEDULE_TARGET)
        if target is not None and not self.takes(target):
            raise Refusal(SCHEDULE_TARGET_INVALID, "message schedule target is invalid")
        expected = headers.get(topology.EXPECTED_SEQUENCE)
        if expected is not None:
            last = self.last(headers.get(topology.EXPECTED_SUBJECT, subject))
            present = 0 if last is None else last.sequence
            if present != int(expected):
                raise Refusal(WRONG_SEQUENCE, f"wrong last sequence: {present}")
        if self.definition.get("discard_new_per_subject") and self.last(subject) is not None:
            raise Refusal(FULL, "maximum messages per subject exceeded")
        most = self.definition.get("max_msgs", -1)
        if self.definition.get("discard") == "new" and 0 < most <= len(self.messages):
            raise Refusal(FULL, "maximum messages exceeded")
        room = self.definition.get("max_bytes") or -1
        if self.definition.get("discard") == "new" and 0 < room < self.bytes + size:
            raise Refusal(FULL, "maximum bytes exceeded")
