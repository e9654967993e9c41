"""Unique keys, on the worker's side: a replaced task does not begin, and an end frees the key.

A producer has no right to remove a task from the stream, so a replaced one is still delivered. See
`galley.unique_key` for who has a key.
"""

import asyncio
import logging
from itertools import count
from typing import Final

from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.errors import BrokerError, BrokerRefused, NotAllowed
from galley.broker.pipeline import DENIED, WRONG_SEQUENCE
from galley.broker.unique_keys import Keys
from galley.errors import EnvelopeInvalid
from galley.failpoint import failpoint
from galley.unique_key import KeyState, Right, UniqueKey, Until, begins, may_begin

log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 0.25
_COMPLAIN_EVERY: Final = 40
"""Tries between two log lines: about ten seconds."""


class Uniqueness:
    """What one worker does about the unique keys of its tasks."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def begin(self, address: TaskAddress, wanted: UniqueKey, *, delivered_before: bool) -> str:
        """Write into the key that its task begins; return the id of the task that took its place, if one did.

        Tries again while the broker does not answer: it is not known before whether the task may begin.

        Raises:
            NotAllowed: our credentials are not good for keys, now or later.
        """
        for tries in count():
            problem = "another one wrote into it first"
            try:
                by = await self._begin(address, wanted, delivered_before=delivered_before)
                if by is not None:
                    return by
            except NotAllowed:
                raise
            except EnvelopeInvalid as error:
                # Written by a newer version, or not by Galley: it does not tell that the task is replaced.
                log.warning("unique key not understood", extra={"task": address.id, "error": str(error)})
                return ""
            except BrokerError as error:
                problem = str(error)
            if tries % _COMPLAIN_EVERY == 0:
                extra = {"task": address.id, "error": problem, "tries": tries}
                log.warning("task waits for its unique key", extra=extra)
            await asyncio.sleep(_PAUSE_SECONDS)
        raise AssertionError("it is counted without end")

    async def _begin(self, address: TaskAddress, wanted: UniqueKey, *, delivered_before: bool) -> str | None:
        """As `begin`, once; returns None if another one wrote into the key in between.

        Raises:
            NotAllowed: our credentials are not good for keys.
            BrokerUnreachable, BrokerRefused: it is not known.
            EnvelopeInvalid: the key cannot be read.
        """
        namespace, queue = address.namespace, address.queue
        found = await self._keys.read(namespace, queue, wanted.digest)
        key, fence = (None, 0) if found is None else found
        right = may_begin(key, address.id, wanted, delivered_before=delivered_before)
        if right is Right.REPLACED:
            assert key is not None
            return key.task
        if right is Right.YES:
            return ""
        record = begins(key, address.id, wanted)
        failpoint("key.before_begin")
        ack = await self._keys.write(namespace, queue, wanted.digest, record, fence)
        if ack.code == DENIED:
            raise NotAllowed(topology.key_subject(namespace, queue, wanted.digest))
        if not ack.stored and ack.code != WRONG_SEQUENCE:
            raise BrokerRefused(f"write the unique key of {address}", ack.code, ack.problem)
        return "" if ack.stored else None

    async def release(self, address: TaskAddress, wanted: UniqueKey) -> None:
        """Remove the key of a task that has ended. It is free anyway: this takes its record away soon."""
        if wanted.until is not Until.FINISHED:
            return
        namespace, queue = address.namespace, address.queue
        failpoint("key.before_release")
        try:
            found = await self._keys.read(namespace, queue, wanted.digest)
            if found is not None and found.record.task == address.id:
                ended = replace(found.record, state=KeyState.ENDED)
                await self._keys.write(namespace, queue, wanted.digest, ended, found.sequence)
        except (BrokerError, EnvelopeInvalid) as error:
            log.info("unique key not released", extra={"task": address.id, "error": str(error)})
