"""Which tasks of a key run: one record a key in the stream of workflows, written by compare-and-set."""

from typing import Final, NamedTuple

from galley import key as wire
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerFull, BrokerRefused, BrokerUnreachable
from galley.broker.lean_client import header_block
from galley.broker.pipeline import FULL, NO_RESPONDERS, WRONG_SEQUENCE
from galley.errors import EnvelopeInvalid
from galley.key import NO_PERMITS, Permits

_KEPT_SECONDS: Final = 3600
"""How long a record without a permit is kept at least."""

_LONGEST_SECONDS: Final = 366 * 86_400


class StoredPermits(NamedTuple):
    """The permits of a key, and the sequence of their record; 0 if there is none."""

    permits: Permits = NO_PERMITS
    sequence: int = 0


NOTHING: Final = StoredPermits()


class KeyPermits:
    """The permits of the keys of one queue."""

    def __init__(self, broker: Broker, namespace: str, queue: str) -> None:
        self._broker, self._namespace, self._queue = broker, namespace, queue
        self._stream = topology.flow_stream(namespace, queue)

    async def read(self, digest: str) -> StoredPermits:
        """Return the permits of a key.

        Raises:
            BrokerUnreachable, BrokerRefused: no answer came.
        """
        subject = topology.permits_subject(self._namespace, self._queue, digest)
        answer = await self._broker.request(f"$JS.API.DIRECT.GET.{self._stream}.{subject}", b"")
        if answer is None:
            raise BrokerRefused(f"read from {self._stream}", NO_RESPONDERS, "no server answers for it")
        headers = answer.headers or {}
        if headers.get("Status") == "404":
            return NOTHING
        if "Status" in headers:
            raise BrokerRefused(f"read from {self._stream}", int(headers["Status"]), headers["Description"])
        sequence = int(headers["Nats-Sequence"])
        try:
            return StoredPermits(wire.decode(answer.data), sequence)
        except EnvelopeInvalid:
            # Not written by Galley: whose permits they are is not known, and the next write replaces them.
            return StoredPermits(NO_PERMITS, sequence)

    async def write(
        self, digest: str, permits: Permits, sequence: int, *, kept_seconds: int = _KEPT_SECONDS
    ) -> bool:
        """Store permits in place of those with a sequence; returns False if others were written first.

        Args:
            digest: of the key.
            permits: what to store.
            sequence: of what they replace; 0 if there is none.
            kept_seconds: how long they are kept if no task has one.

        Raises:
            BrokerFull: the queue's stream of workflows is full (`spec.limits.workflowBytes`).
            BrokerUnreachable, BrokerRefused: no answer came, and they may have been stored.
        """
        headers = {topology.EXPECTED_SEQUENCE: str(sequence)}
        if not permits.held:
            headers[topology.TTL] = str(min(max(_KEPT_SECONDS, kept_seconds), _LONGEST_SECONDS))
        subject = topology.permits_subject(self._namespace, self._queue, digest)
        ack = await (await self._broker.pipeline.send(subject, wire.encode(permits), header_block(headers)))
        if ack.stored:
            return True
        if ack.code == WRONG_SEQUENCE:
            return False
        action = "store the permits of a key"
        if ack.code == FULL:
            raise BrokerFull(action, ack.code, ack.problem)
        if ack.unanswered:
            raise BrokerUnreachable(self._broker.server, f"{action}: {ack.problem}")
        raise BrokerRefused(action, ack.code, ack.problem)
