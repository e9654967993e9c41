"""Writing messages into streams again: each at most once, however often it is tried."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerFull, BrokerRefused, BrokerUnreachable
from galley.broker.pipeline import NO_RESPONDERS, NO_ROOM, TOO_LARGE, WRONG_SEQUENCE, WRONG_SUBJECT, Ack
from galley.broker.snapshot import every_message, headers_in
from galley.envelope import Flags

log = logging.getLogger(__name__)

ORIGIN: Final = "Galley-Restored"
"""Header of a restored message: its sequence in the stream it was read from."""

RESTORED: Final = "galley.dev/restored"
"""In the metadata of a stream: the archive it was restored from."""

ADDED_BYTES: Final = 160
"""By which a restored message is longer at most: headers, and the time at which an attempt is due again."""

_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5
_TASK_WORDS: Final = 7
_RECORD_WORDS: Final = 6
"""Words of the subjects of a task and of its record."""
_DIGITS: Final = 20
"""Of a sequence at most. Clients may write such a header, too, and Python reads no number of thousands."""
_NEVER: Final = (TOO_LARGE, WRONG_SUBJECT)
_NO_STORE: Final = 10049
"""A server of a cluster that has just formed cannot create a store yet."""


class Outgoing(Struct, frozen=True):
    """A message to be written."""

    stream: str
    subject: str
    headers: list[tuple[str, str]]
    body: bytes
    origin: int
    """Its sequence in the stream it was read from."""
    unfinished: bool = False
    """Whether it is the record of a task that has not ended."""
    fence: int = 0
    """Sequence, where it was read, of the record that its attempt may replace; 0 if there is none."""
    several: bool = False
    """Whether its subject may have several messages, which are told apart by their ids."""

    @property
    def message_id(self) -> str:
        """What tells it from others of its subject; empty if there are none."""
        return dict(self.headers).get(topology.MESSAGE_ID, "") if self.several else ""


class Refilled(Struct):
    """What became of some messages."""

    written: int = 0
    kept: int = 0
    """There was one already, which was kept."""
    left_out: int = 0
    """Of a length or a subject that cannot be sent. Clients of a queue may have stored them; of those of
    Galley there are some only if the broker takes less than the one before."""
    unfinished: dict[tuple[str, str], tuple[int, int]] = {}
    """Stream and subject of records of tasks that had not ended: the sequence of what is there, and the one
    where it was read."""


async def refill(broker: Broker, messages: Sequence[Outgoing], *, newest: bool, into: Refilled) -> None:
    """Write messages whose subjects are free.

    Args:
        broker: an open connection with all rights.
        messages: in their order.
        newest: whether a message takes the place of an older one from the same archive.
        into: is added to.

    Raises:
        BrokerUnreachable: if no answer came for a minute.
        BrokerFull, BrokerRefused: if the broker does not take one.
    """
    fenced = [await _fenced(broker, each) if each.fence and _is_of_task(each) else each for each in messages]
    sent = [(each, await _send(broker, each)) for each in fenced]
    for message, future in sent:
        ack = await _answer(broker, message, await future)
        if ack.code in _NEVER:
            into.left_out += 1
            told = {"subject": message.subject[:200], "error": ack.problem[:400]}
            log.warning("message cannot be restored", extra=told)
            continue
        if not (ack.stored or message.several) and newest and await _older_removed(broker, message):
            ack = await _answer(broker, message, await (await _send(broker, message)))
        if ack.stored:
            into.written += 1
        else:
            into.kept += 1
        # Workers may write to any subject of their records.
        if message.unfinished and len(message.subject.split(".")) == _RECORD_WORDS:
            sequence = ack.sequence or ack.last_sequence
            into.unfinished[message.stream, message.subject] = sequence, message.origin


def _is_of_task(message: Outgoing) -> bool:
    return len(message.subject.split(".")) == _TASK_WORDS


async def _fenced(broker: Broker, message: Outgoing) -> Outgoing:
    """Return a message whose fence is the record as it was restored, if that is still there."""
    _, _, namespace, queue, _, kind, task_id = message.subject.split(".")
    subject = f"galley.result.{namespace}.{queue}.{kind}.{task_id}"
    for stream in (topology.records_stream(namespace, queue), topology.shared_records_stream(namespace)):
        present = await _last(broker, stream, subject)
        if present is not None and present[1] == message.fence:
            headers = [
                (name, _with_fence(text, present[0]) if name == topology.FLAGS_HEADER else text)
                for name, text in message.headers
            ]
            return structs.replace(message, headers=headers)
    return message


def _with_fence(text: str, fence: int) -> str:
    return structs.replace(Flags.decode(text), fence=fence).encode()


async def _send(broker: Broker, message: Outgoing) -> "asyncio.Future[Ack]":
    lines = "".join(f"{name}: {text}\r\n" for name, text in message.headers)
    alone = "" if message.several else f"{topology.EXPECTED_SEQUENCE}: 0\r\n"
    own = f"{alone}{ORIGIN}: {message.origin}\r\n"
    block = f"NATS/1.0\r\n{lines}{own}\r\n".encode()
    return await broker.pipeline.send(message.subject, message.body, block)


async def _answer(broker: Broker, message: Outgoing, ack: Ack) -> Ack:
    """Return the answer to a message, which is sent again while there is none."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _PATIENCE_SECONDS
    while ack.unanswered or ack.code == NO_RESPONDERS:
        if loop.time() >= give_up:
            raise BrokerUnreachable(broker.server, f"{message.subject}: {ack.problem}")
        await asyncio.sleep(_PAUSE_SECONDS)
        ack = await (await _send(broker, message))
    if ack.stored or ack.code == WRONG_SEQUENCE or ack.code in _NEVER:
        return ack
    kind = BrokerFull if ack.code in NO_ROOM else BrokerRefused
    raise kind(f"restore {message.subject} into {message.stream}", ack.code, ack.problem)


async def _older_removed(broker: Broker, message: Outgoing) -> bool:
    """Remove the message in the way if it is from the same archive and older; return whether it was."""
    present = await _last(broker, message.stream, message.subject)
    if present is None:
        return True
    sequence, origin = present
    if origin is None or origin >= message.origin:
        return False
    request = {"seq": sequence, "no_erase": True}
    removed = await _ask(broker, f"replace {message.subject}", f"STREAM.MSG.DELETE.{message.stream}", request)
    return removed is not None  # a worker may have been faster


async def _last(broker: Broker, stream: str, subject: str) -> tuple[int, int | None] | None:
    """Return sequence and origin of the last message on a subject, None if there is none, or no stream."""
    asked = {"last_by_subj": subject}
    answer = await _ask(broker, f"look at {subject}", f"STREAM.MSG.GET.{stream}", asked)
    if answer is None:
        return None
    block = msgspec.convert(answer["message"].get("hdrs", ""), bytes, strict=False)
    found = next((text for name, text in reversed(headers_in(block)) if name == ORIGIN), "")
    return int(answer["message"]["seq"]), _origin(found)


def _origin(text: str) -> int | None:
    """Return the sequence in a header that says where a message is from; None if there is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None


async def remove_stranded(broker: Broker, unfinished: dict[tuple[str, str], tuple[int, int]]) -> int:
    """Remove restored records of unfinished tasks that have no message: nothing would ever run them.

    Such a task was submitted and begun while the backup was under way, so its message is not in the archive.
    A record that was there before, or was written since, stays: by it the task may have ended.

    Returns:
        How many were removed.

    Raises:
        BrokerError: if that could not be done.
    """
    removed = 0
    for (stream, subject), restored in unfinished.items():
        _, _, namespace, queue, kind, task_id = subject.split(".")
        tail = f"{namespace}.{queue}.*.{kind}.{task_id}"
        # It may also be planned, or wait under its key.
        if await _has(broker, topology.work_stream(namespace, queue), f"galley.*.{tail}"):
            continue
        if await _has(broker, topology.later_stream(namespace, queue), f"galley.*.{tail}"):
            continue
        if await _last(broker, stream, subject) == restored:
            request = {"filter": subject, "seq": restored[0] + 1}
            await broker.api(f"remove the record {subject}", f"STREAM.PURGE.{stream}", request)
            removed += 1
    return removed


async def _has(broker: Broker, stream: str, pattern: str) -> bool:
    asked = {"seq": 1, "next_by_subj": pattern}
    return await _ask(broker, f"look into {stream}", f"STREAM.MSG.GET.{stream}", asked) is not None


async def make_stream(broker: Broker, config: dict[str, Any]) -> None:
    """Create a stream, trying again for a minute while the servers are not ready.

    Raises:
        BrokerRefused: if the broker does not take the configuration.
        BrokerUnreachable: if it does not answer.
    """
    name = config["name"]
    await _ask(broker, f"create stream {name}", f"STREAM.CREATE.{name}", config)


async def _ask(broker: Broker, action: str, verb: str, body: object) -> dict[str, Any] | None:
    """Return an answer of the API, None if what is asked for is not there.

    For a minute it is asked again, since a stream has no leader right after it was made.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            return await broker.api(action, verb, body)
        except BrokerUnreachable:
            if loop.time() >= give_up:
                raise
        except BrokerRefused as refusal:
            if refusal.missing:
                return None
            if refusal.code != _NO_STORE or loop.time() >= give_up:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def message_ids(broker: Broker, stream: str) -> frozenset[str]:
    """Return the ids of all messages in a stream that have one.

    Raises:
        BrokerError: if it cannot be read.
    """
    found = set[str]()
    async for message in every_message(broker, stream):
        found |= {text for name, text in message.headers if name == topology.MESSAGE_ID}
    return frozenset(found - {""})


async def start_after(broker: Broker, stream: str, floor: int) -> dict[str, Any]:
    """Return where a consumer begins in a restored stream.

    Args:
        broker: an open connection.
        stream: that was restored.
        floor: sequence, in the stream that was archived, up to which the consumer was done.

    Raises:
        BrokerError: if the stream cannot be read.
    """
    last = 0
    async for message in every_message(broker, stream):
        origin = _origin(dict(message.headers).get(ORIGIN, ""))
        if origin is not None and origin > floor:
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": message.sequence}
        last = message.sequence
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": last + 1}


async def make_consumer(broker: Broker, stream: str, config: dict[str, Any]) -> None:
    """Create a durable consumer, or leave it as it is.

    Raises:
        BrokerRefused: if the broker does not take the configuration.
    """
    name = config["durable_name"]
    listed = await broker.api(f"list consumers of {stream}", f"CONSUMER.NAMES.{stream}")
    one = (config["filter_subject"],) if "filter_subject" in config else ()
    if name not in (listed.get("consumers") or ()):
        await broker.api(
            f"create consumer {name} of {stream}",
            ".".join(("CONSUMER.CREATE", stream, name, *one)),
            {"stream_name": stream, "config": config, "action": "create"},
        )


async def mark(broker: Broker, stream: str, changes: dict[str, str | None], room: int = 0) -> None:
    """Change entries of a stream's metadata; None removes one.

    Args:
        broker: an open connection with all rights.
        stream: its name.
        changes: the entries.
        room: bytes that are to fit beside what it holds; the operator sets its limit again.

    Raises:
        BrokerRefused: if there is no such stream.
    """
    info = await stream_info(broker, stream)
    if info is None:
        raise BrokerRefused(f"mark stream {stream}", 404, "it was deleted")
    metadata = {**(info["config"].get("metadata") or {}), **changes}
    kept = {key: text for key, text in metadata.items() if text is not None}
    config = {**info["config"], "metadata": kept}
    if room and config["max_bytes"] > 0:
        config["max_bytes"] = max(config["max_bytes"], info["state"]["bytes"] + room)
    if config != info["config"]:
        await broker.api(f"mark stream {stream}", f"STREAM.UPDATE.{stream}", config)
