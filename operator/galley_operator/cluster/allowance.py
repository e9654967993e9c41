"""How many bytes of specs are read in a namespace: reading one takes up to 0.3 s of the only event loop.

Who may create objects may create hundreds of 1 MiB that cannot be submitted now, and each is looked at again
every few seconds. Without a limit the operator does nothing else, for any namespace.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, TypeVar

from galley_operator.cluster.kept_object import KeptObject

BYTES_A_SECOND: Final = 256 * 1024
"""Bytes of specs that are read in a namespace: a tenth of a processor with the worst specs that were found,
and a hundred small objects."""

_SAVED_SECONDS: Final = 5.0
"""For how long what was not used is saved."""

T = TypeVar("T", bound=KeptObject)


class Allowance:
    """What each namespace may still have read. A single spec may be larger than what is left."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}
        """By namespace: bytes that are left, at a time."""
        self._read: dict[str, float] = {}
        """By uid: when it was read."""

    def in_turn(self, things: Iterable[T]) -> list[T]:
        """Return objects in the order in which they are to be looked at: what was not read for longest first.

        What is not among them is forgotten.
        """
        found = list(things)
        self._read = {thing.uid: self._read[thing.uid] for thing in found if thing.uid in self._read}
        return sorted(found, key=lambda thing: self._read.get(thing.uid, float("-inf")))

    async def take(self, thing: KeptObject) -> bool:
        """Return whether the spec of an object may be read now; others get a turn before it is."""
        now, most = asyncio.get_running_loop().time(), BYTES_A_SECOND * _SAVED_SECONDS
        left, at = self._left.get(thing.metadata.namespace, (most, now))
        left = min(most, left + (now - at) * BYTES_A_SECOND)
        may = left > 0
        if may:
            left -= thing.spec_bytes
            self._read[thing.uid] = now
        self._left[thing.metadata.namespace] = left, now
        if may:
            await asyncio.sleep(0)
        return may
