"""What of an archive's content has to change when it is restored. Pure.

A restored message has another sequence than before, and a Task object another uid. So what refers to either
is taken out: workers then ask the record before they begin, as they do whenever a message may have come
before, and Tasks find their work by name and digest (docs/adr/0015-one-identity.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from galley.backup.archive import StreamEntry
from galley.broker import topology
from galley.broker.refill import ADDED_BYTES, ORIGIN, RESTORED, Outgoing
from galley.broker.snapshot import StoredMessage
from galley.broker.stream_kind import OF_NAMESPACE, StreamKind, name_of
from galley.envelope import Flags
from galley.errors import EnvelopeInvalid
from galley.record import State
from galley.schedule import decode as decode_schedule
from galley.schedule import encode as encode_schedule
from galley.unreadable import UNREADABLE

_CONSUMER_KEYS: Final = (
    "durable_name", "name", "filter_subject", "filter_subjects", "ack_policy", "ack_wait", "max_deliver",
    "max_waiting", "max_ack_pending", "deliver_policy", "opt_start_time", "replay_policy",
)  # fmt: skip
_SERVERS_OWN: Final = "_nats."
_DROPPED: Final = re.compile(
    rf"nats-(expected-.*|scheduler|schedule-next|msg-id)|{ORIGIN}", re.IGNORECASE
)  # of an earlier restore, too
_STORED_BYTES: Final = 40
"""What a message takes of a stream beside its content."""
_TTL_DIGITS: Final = 10

_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode


@dataclass(frozen=True)
class Rewrite:
    """How an archive is changed on its way into a broker."""

    now: datetime
    namespaces: Mapping[str, str] = field(default_factory=dict)
    """Old name to new name; others keep theirs."""
    replicas: int | None = None
    """Of each stream; None keeps the number it had."""

    def namespace(self, name: str) -> str:
        """Return the new name of a namespace."""
        return self.namespaces.get(name, name)

    def subject(self, subject: str) -> str:
        """Return the new spelling of a subject of Galley's: `galley.<verb>.<namespace>...`."""
        words = subject.split(".")
        if len(words) > 2 and words[0] == "galley":
            words[2] = self.namespace(words[2])
        return ".".join(words)

    def stream(self, entry: StreamEntry) -> str:
        """Return the new name of a stream."""
        return name_of(entry.kind, self.namespace(entry.namespace), entry.queue)

    def config(self, entry: StreamEntry) -> dict[str, Any]:
        """Return the configuration a stream is made with."""
        config = {**entry.config, "name": self.stream(entry)}
        config["subjects"] = [self.subject(each) for each in config["subjects"]]
        if republish := config.get("republish"):
            config["republish"] = {
                **republish,
                "src": self.subject(republish["src"]),
                "dest": self.subject(republish["dest"]),
            }
        if config["max_bytes"] > 0:
            config["max_bytes"] = max(config["max_bytes"], self.room(entry))
        if self.replicas is not None:
            config["num_replicas"] = self.replicas
        gone = (topology.UID_KEY, topology.ORPHANED_KEY, topology.MARK_KEY, RESTORED)
        metadata = {
            key: text
            for key, text in config["metadata"].items()
            if key not in gone and not key.startswith(_SERVERS_OWN)
        }
        config["metadata"] = metadata | {topology.NAMESPACE_KEY: self.namespace(entry.namespace)}
        return config

    @staticmethod
    def room(entry: StreamEntry) -> int:
        """Return the bytes its messages take: it may have been full, and each of them is longer now."""
        return entry.size + (_STORED_BYTES + ADDED_BYTES) * entry.messages

    def consumer(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration a consumer is made with."""
        kept: dict[str, Any] = {key: config[key] for key in _CONSUMER_KEYS if key in config}
        if several := kept.get("filter_subjects"):
            return kept | {"filter_subjects": [self.subject(each) for each in several]}
        return kept | {"filter_subject": self.subject(kept["filter_subject"])}

    def message(self, entry: StreamEntry, message: StoredMessage) -> Outgoing | None:
        """Return what is written for a message, or None if its time was over by now."""
        body, unfinished, fence = message.body, False, 0
        several = entry.kind in OF_NAMESPACE and topology.repeats(message.subject)
        if entry.kind is StreamKind.RECORDS:
            body, unfinished = _record(body, self.now)
        elif entry.kind is StreamKind.LATER and topology.is_schedule(message.subject):
            body = _schedule(body, self.now)
        elif entry.kind is not StreamKind.OBJECTS and not several and b'"uid"' in body:
            body = _without_uid(body)
        headers = []
        for name, text in message.headers:
            value: str | None = text
            if name.lower() == topology.TTL.lower() and entry.config.get("allow_msg_ttl"):
                value = _time_left(text, message.stored_at, self.now)
                if value is None:
                    return None
            elif _DROPPED.fullmatch(name) and not (several and name == topology.MESSAGE_ID):
                continue
            elif name == topology.SCHEDULE_TARGET:
                value = self.subject(text)
            elif name == topology.FLAGS_HEADER:
                value, fence = _asking(text)
            headers.append((name, value or text))
        return Outgoing(
            self.stream(entry),
            self.subject(message.subject),
            headers,
            body,
            message.sequence,
            unfinished,
            fence,
            several,
        )


def _asking(text: str) -> tuple[str, int]:
    """Return flags with which a worker asks the record first, and the fence they had.

    A record has another sequence by now. The fence is set again where that is known, since a redriven task
    needs it: the record of its failure may be replaced by nothing else.
    """
    try:
        flags = Flags.decode(text)
    except EnvelopeInvalid:
        return text, 0  # the worker that takes it reports it
    return Flags(flags.attempt, 0, republished=True).encode(), flags.fence


def _record(body: bytes, now: datetime) -> tuple[bytes, bool]:
    """Return a record as it is restored, and whether its task has not ended.

    An attempt that ran when the backup was taken is due again. It does not count as a crash.
    """
    try:
        record = _fields(body)
        state = msgspec.json.decode(record["state"], type=State)
    except (*UNREADABLE, KeyError):
        return body, False  # readers pass it over
    record.pop("uid", None)
    if state is State.RUN:
        record["state"] = Raw(msgspec.json.encode(State.RETRY))
        record["dueAt"] = Raw(msgspec.json.encode(now))
        for name in ("claim", "handedBack"):
            record.pop(name, None)
    return msgspec.json.encode(record), state is not State.DONE


def _schedule(body: bytes, now: datetime) -> bytes:
    """Return a schedule that fires from now on: its earlier ticks may have run after the backup was taken."""
    try:
        schedule = decode_schedule(body)
    except EnvelopeInvalid:
        return body  # the worker that takes it reports it
    decided = schedule.progress.decided
    progress = replace(schedule.progress, decided=now if decided is None else max(decided, now))
    return encode_schedule(replace(schedule, uid="", generation=0, progress=progress))


def _without_uid(body: bytes) -> bytes:
    """Return an envelope, or a dead letter with one in it, that names no Task object."""
    try:
        parts = _fields(body)
        parts.pop("uid", None)
        if (inner := parts.get("envelope")) is not None and bytes(inner) != b"null":
            parts["envelope"] = Raw(_without_uid(bytes(inner)))
    except UNREADABLE:
        return body  # the worker that takes it reports it
    return msgspec.json.encode(parts)


def _time_left(ttl: str, stored_at: str, now: datetime) -> str | None:
    """Return the seconds a message has left, or None if it has none."""
    if not (ttl.isascii() and ttl.isdecimal()) or len(ttl) > _TTL_DIGITS:
        return ttl
    begun = datetime.fromisoformat(f"{stored_at[:19]}+00:00").astimezone(UTC)
    left = int(ttl) - int((now - begun).total_seconds())
    return str(left) if left >= 1 else None
