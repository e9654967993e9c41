"""The mark of a work stream: above it, every delivery of the server's present life was counted.

A server that is killed may forget deliveries, and then counts the next one of such a task as the first. So a
first delivery proves something only of a task that was stored in the present life of the server. Its last
sequence at some moment of that life stands in the stream's metadata, with the id that the server took when it
started; who makes the queue's consumers writes it there. Workers have the metadata with the last sequence.

The order matters (rules of `tests/unit/protocol`): the life is noted before the last sequence is asked for,
and a consumer is made only after the mark was taken away, since a new consumer counts from one, too. In a
cluster there is no mark: streams and consumers move between servers.
"""

from typing import Any

from galley.broker.connection import Broker
from galley.broker.topology import MARK_KEY, RESTORING_KEY


def forgotten_until(info: dict[str, Any], life: str) -> int:
    """Return the sequence up to which deliveries of a stream may have been forgotten.

    Args:
        info: the stream, as the server said in that life.
        life: of the server; empty if there is no telling.
    """
    last = int(info["state"]["last_seq"])
    marked, _, sequence = _metadata(info).get(MARK_KEY, "").partition(" ")
    return min(last, int(sequence)) if life and marked == life and sequence.isdigit() else last


async def write_mark(broker: Broker, stream: str, life: str) -> None:
    """Mark a stream, all of whose consumers exist, unless it is marked or being restored.

    Args:
        broker: an open connection.
        stream: name of the work stream.
        life: of the server, as it was before the consumers were looked at.

    Raises:
        BrokerRefused, BrokerUnreachable: it could not be done; workers claim what was there before them.
    """
    info = await broker.api(f"look at stream {stream}", f"STREAM.INFO.{stream}")
    metadata = _metadata(info)
    if life and not metadata.get(MARK_KEY, "").startswith(f"{life} ") and RESTORING_KEY not in metadata:
        await _change(broker, info, {**metadata, MARK_KEY: f"{life} {info['state']['last_seq']}"})


async def remove_mark(broker: Broker, stream: str) -> None:
    """Take the mark of a stream away, if it has one.

    Raises:
        BrokerRefused, BrokerUnreachable: it could not be done.
    """
    info = await broker.api(f"look at stream {stream}", f"STREAM.INFO.{stream}")
    metadata = _metadata(info)
    if metadata.pop(MARK_KEY, None) is not None:
        await _change(broker, info, metadata)


def _metadata(info: dict[str, Any]) -> dict[str, str]:
    return dict(info["config"].get("metadata") or {})


async def _change(broker: Broker, info: dict[str, Any], metadata: dict[str, str]) -> None:
    name = info["config"]["name"]
    await broker.api(f"mark stream {name}", f"STREAM.UPDATE.{name}", {**info["config"], "metadata": metadata})
