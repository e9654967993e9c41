"""The last message of a subject, which for values that are replaced is the present one."""

from collections.abc import Mapping
from typing import NamedTuple

from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused
from galley.broker.pipeline import NO_RESPONDERS


class LastMessage(NamedTuple):
    """A message, and its sequence in its stream."""

    body: bytes
    sequence: int
    headers: Mapping[str, str]


async def last_message(broker: Broker, stream: str, subject: str, fallback: str = "") -> LastMessage | None:
    """Return the last message of a subject, or None if the stream has none.

    Args:
        broker: an open connection.
        stream: where it is.
        subject: its whole subject.
        fallback: a stream to look in if no server answers for `stream`; none if left out.

    Raises:
        NotAllowed: if our credentials are not good for that.
        BrokerRefused: if no server answers for either stream (`NO_RESPONDERS`: it does not exist, or has no
            leader just now), or it answers with an error.
        BrokerUnreachable: if no answer came in time.
    """
    answer = await broker.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
    if answer is None and fallback:
        answer = await broker.request(f"$JS.API.DIRECT.GET.{fallback}.{subject}", b"")
    if answer is None:
        raise BrokerRefused(f"read from {stream}", NO_RESPONDERS, "no server answers for it")
    headers = answer.headers or {}
    status = headers.get("Status")
    if status == "404":
        return None
    if status is not None:
        raise BrokerRefused(f"read from {stream}", int(status), headers.get("Description", status))
    return LastMessage(answer.data, int(headers["Nats-Sequence"]), headers)
