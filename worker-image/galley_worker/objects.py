"""The objects of tasks in a worker: fetched before an attempt, stored after it."""

import asyncio
import functools
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker.connection import Broker
from galley.broker.object_sweep import SWEEP_SECONDS, Sweep
from galley.broker.objects import Place
from galley.envelope import Envelope
from galley.errors import GalleyError
from galley.file import with_references
from galley.history import MESSAGE_LIMIT
from galley.objects.content import Bytes, FileContent
from galley.objects.errors import ObjectMissing
from galley.objects.node_cache import NodeCache
from galley.objects.store import RESULT, Objects
from galley.record import NULL, Failure
from galley.reference import Reference
from galley_worker.ending import Raised, Returned, ReturnedLarge, Spool

log = logging.getLogger(__name__)


class Here(NamedTuple):
    """Where the objects of a task are on this machine."""

    large: str = ""
    files: dict[str, str] | None = None


NOTHING = Here()


class TaskObjects:
    """Fetches and stores the objects of the tasks of one worker."""

    def __init__(self, objects: Objects, cache: NodeCache) -> None:
        self._objects = objects
        self._cache = cache

    @asynccontextmanager
    async def of(self, address: TaskAddress, envelope: Envelope) -> AsyncIterator[Here]:
        """Have the objects of a task on this machine; they stay until the block ends.

        Raises:
            ObjectStoreUnavailable, CacheUnusable: trying again may help.
            ObjectMissing, ObjectDamaged, ObjectStoreUnknown: it will not.
        """
        # An input is no file, whatever name its task gives it.
        large = None if envelope.large is None else replace(envelope.large, name="")
        wanted = [*envelope.files, *((large,) if large else ())]
        place = Place.of(address)
        unique = {f"{each.digest}/{each.name}": each for each in wanted}.values()
        pairs = [(each, functools.partial(self._objects.get, place, each)) for each in unique]
        async with self._cache.holding(pairs) as places:
            yield Here("" if large is None else places.pop(f"{large.digest}/"), places)

    async def store(self, address: TaskAddress, returned: ReturnedLarge) -> Returned | Raised:
        """Store what a handler returned; a failure to do so is one of the attempt, and is tried again."""
        try:
            references = {each.mark: await self._stored(address, each) for each in returned.files}
            result = returned.result
            large = None
            if returned.large is None:
                result = Raw(with_references(result, references))
            elif any(references):
                data = with_references(
                    await asyncio.to_thread(Path(returned.large.path).read_bytes), references
                )
                large, result = await self._objects.put(address, Bytes(data), RESULT), NULL
            else:
                large, result = await self._stored(address, returned.large), NULL
        except (GalleyError, OSError) as error:
            log.warning("result not stored", extra={"task": address.id, "error": str(error)})
            hint = f"; {error.hint}" if isinstance(error, GalleyError) and error.hint else ""
            problem = f"the handler returned, and its result could not be stored: {error}{hint}"
            return Raised(Failure("ResultNotStored", problem[:MESSAGE_LIMIT]), retryable=True)
        finally:
            returned.discard()
        return Returned(result, large)

    async def _stored(self, address: TaskAddress, spool: Spool) -> Reference:
        if spool.reference is not None:
            if not await self._objects.refer(address, spool.reference, RESULT):
                raise ObjectMissing(f"file {spool.name!r}", f"of queue {address.queue!r}")
            return spool.reference
        path = Path(spool.path)
        reference = await self._objects.put(address, FileContent(path), RESULT, spool.name)
        self._cache.adopt(path, reference.digest)
        return reference


class Sweeper:
    """Deletes, now and then, the objects of the queue that no task refers to."""

    def __init__(self, broker: Broker, place: Place, pause: Callable[[], float]) -> None:
        """Args: pause: returns the seconds until the next look."""
        self._broker, self._place, self._pause = broker, place, pause

    async def run(self) -> None:
        """Look again and again; a failure is logged, and the next look goes on."""
        remove = functools.partial(self._broker.objects.remove, self._place)
        while True:
            await asyncio.sleep(self._pause())
            try:
                sweep = Sweep(self._broker, self._place, remove)
                if await sweep.taken():
                    swept = await sweep.run()
                    if swept.deleted:
                        log.info("objects deleted", extra={"deleted": swept.deleted, "bytes": swept.bytes})
            except GalleyError as error:
                log.warning("objects not looked through", extra={"error": str(error)})
            except Exception:  # whatever it is costs this look, not the worker
                log.exception("unexpected error", extra={"where": "objects"})


def pause() -> float:
    """Return the seconds between two looks of one worker: not the same for all that started together."""
    return SWEEP_SECONDS * (0.5 + random.random())  # noqa: S311 - no secret
