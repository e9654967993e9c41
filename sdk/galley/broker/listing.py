"""Lists that the server gives in pages."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from nats.aio.msg import Msg

from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerUnreachable

T = TypeVar("T")

_MESSAGES_AT_ONCE: Final = 256

BYTES_AT_ONCE: Final = 4 * 1024**2
"""What the server may send in answer to one request. It cuts off a connection for which more than 64 MB wait,
and messages are a tenant's, of any size."""

_SUBJECTS_AT_ONCE: Final = 100_000
"""What the server puts into one page of subjects; a shorter one is the last."""


async def paged(page: Callable[[int], Awaitable[tuple[Sequence[T], int]]]) -> AsyncIterator[T]:
    """Yield the entries of a list. `page` returns those from an offset on, and how many there are in all."""
    offset = 0
    while True:
        entries, total = await page(offset)
        for entry in entries:
            yield entry
        offset += len(entries)
        if not entries or offset >= total:
            return


async def all_streams(
    broker: Broker, subjects: str = "", *, complete: bool = False
) -> AsyncIterator[dict[str, Any]]:
    """Yield the server's description of each stream: its `config` and its `state`.

    Args:
        broker: an open connection.
        subjects: only streams with subjects of this pattern; all if left out.
        complete: whether to fail if some have no leader just now, so that no server can describe them. They
            are left out otherwise.

    Raises:
        BrokerUnreachable: if the broker does not answer, or not for all streams that are asked for.
    """
    asked = {"subject": subjects} if subjects else {}

    async def page(offset: int) -> tuple[Sequence[dict[str, Any]], int]:
        listed = await broker.api("list streams", "STREAM.LIST", asked | {"offset": offset})
        if complete and (missing := {*(listed.get("missing") or ()), *(listed.get("offline") or ())}):
            raise BrokerUnreachable(broker.server, f"no leader for stream {', '.join(sorted(missing))}")
        return listed.get("streams") or [], int(listed["total"])

    async for stream in paged(page):
        yield stream


async def subjects_of(broker: Broker, stream: str, pattern: str = ">") -> AsyncIterator[list[str]]:
    """Yield the subjects of the messages in a stream, page by page; nothing at all if there is no stream.

    Raises:
        BrokerUnreachable: if the broker does not answer.
    """
    offset = 0
    while True:
        info = await stream_info(broker, stream, {"subjects_filter": pattern, "offset": offset})
        if info is None:
            return
        subjects = list(info["state"].get("subjects") or ())
        yield subjects
        offset += len(subjects)
        if len(subjects) < _SUBJECTS_AT_ONCE:
            return


class StoredMessage(NamedTuple):
    """A message as it lies in a stream."""

    subject: str
    sequence: int
    body: bytes
    stored_at: datetime
    header: str = ""
    """That of a task: what its worker needs to know of the attempt."""
    scheduled: bool = False
    """Whether the server is to publish it at a time of its own."""


async def messages_of(
    broker: Broker, stream: str, pattern: str, sequence: int = 1, since: datetime | None = None
) -> AsyncIterator[StoredMessage]:
    """Yield the messages of a stream whose subjects fit a pattern, oldest first; none if there is no stream.

    Args:
        broker: an open connection.
        stream: its name.
        pattern: of the subjects.
        sequence: where to begin.
        since: only messages that were stored then, or later.

    Raises:
        NotAllowed: if our credentials may not read the stream as a whole.
        BrokerUnreachable: if the broker does not answer.
    """
    request: dict[str, Any] = {
        "next_by_subj": pattern, "batch": _MESSAGES_AT_ONCE, "max_bytes": BYTES_AT_ONCE, "seq": sequence,
    }  # fmt: skip
    if since is not None:
        del request["seq"]
        request["start_time"] = since.isoformat()
    left: int | None = None
    while True:
        found = said = 0
        async for answer in broker.request_many(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request)):
            message = _stored(answer)
            if message is None:
                said = _left(answer)
                break
            found += 1
            sequence = message.sequence
            yield message
        # What is stored meanwhile is not read: a stream that is written all the time would have no end.
        left = said if left is None else min(said, left - found)
        if not found or left <= 0:
            return
        request.pop("start_time", None)
        request["seq"] = sequence + 1


async def first_of(
    broker: Broker, stream: str, pattern: str, since: datetime | None = None
) -> StoredMessage | None:
    """Return the first message of a stream whose subject fits a pattern; as `messages_of`."""
    request: dict[str, Any] = {"next_by_subj": pattern}
    request |= {"seq": 1} if since is None else {"start_time": since.isoformat()}
    answer = await broker.request(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request))
    return None if answer is None else _stored(answer)


async def count_of(broker: Broker, stream: str, pattern: str, sequence: int) -> int:
    """Return how many messages of a stream fit a pattern, from a sequence on; as `messages_of`.

    The server counts them: it takes one request, however many there are.
    """
    request = {"next_by_subj": pattern, "batch": 1, "seq": sequence}
    found = 0
    async for answer in broker.request_many(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request)):
        if _stored(answer) is None:
            found += _left(answer)
            break
        found += 1
    return found


def _left(answer: Msg) -> int:
    """Return how many messages follow, as the end of an answer says."""
    return int((answer.headers or {}).get("Nats-Num-Pending", 0))


def _stored(answer: Msg) -> StoredMessage | None:
    """Return the message in an answer; None if the server says that there is none."""
    headers = answer.headers or {}
    if "Status" in headers or "Nats-Subject" not in headers:
        return None
    return StoredMessage(
        headers["Nats-Subject"],
        int(headers["Nats-Sequence"]),
        answer.data,
        msgspec.convert(headers["Nats-Time-Stamp"], datetime, strict=False),
        headers.get(topology.FLAGS_HEADER, ""),
        topology.SCHEDULE in headers,
    )
