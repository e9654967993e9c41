"""Which tasks of a key run: one record a key in the stream of workflows, written by compare-and-set."""

from typing import Final, NamedTuple

from galley import key as wire
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.last_message import last_message
from galley.broker.permit_records import write_permits
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
        found = await last_message(self._broker, self._stream, self._subject(digest))
        if found is None:
            return NOTHING
        try:
            return StoredPermits(wire.decode(found.body), found.sequence)
        except EnvelopeInvalid:
            # Not written by Galley: whose permits they are is not known, and the next write replaces them.
            return StoredPermits(NO_PERMITS, found.sequence)

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
        seconds = None if permits.held else min(max(_KEPT_SECONDS, kept_seconds), _LONGEST_SECONDS)
        body = wire.encode(permits)
        subject = self._subject(digest)
        return await write_permits(self._broker, subject, body, sequence, kept_seconds=seconds) > 0

    def _subject(self, digest: str) -> str:
        return topology.permits_subject(self._namespace, self._queue, digest)
