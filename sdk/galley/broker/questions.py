"""What was asked of the broker and is not answered yet."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from galley.broker.errors import NotAllowed


class Questions:
    """Requests under way: ended at once where we may not ask, held back where an answer could not come."""

    def __init__(self) -> None:
        self._asked: dict[str, set[asyncio.Timeout]] = {}
        self._denied: set[asyncio.Timeout] = set()
        self._free = asyncio.Event()
        self._free.set()

    @property
    def busy(self) -> bool:
        """Whether some question has not been answered yet."""
        return bool(self._asked)

    def hold(self) -> None:
        """Let further questions wait until `release`: a reconnect is about to begin."""
        self._free.clear()

    def release(self) -> None:
        """Let questions go on."""
        self._free.set()

    async def turn(self) -> None:
        """Return when a question may be asked."""
        await self._free.wait()

    @contextmanager
    def asking(self, subject: str) -> Iterator[asyncio.Timeout]:
        """Lend a limit for the time a question takes; it ends when the server says that we may not ask.

        Raises:
            NotAllowed: if the server said so.
        """
        limit = asyncio.timeout(None)
        # The server answers a denied publish by naming its subject, and the library makes that lower case.
        asked = self._asked.setdefault(subject.lower(), set())
        asked.add(limit)
        try:
            yield limit
        except TimeoutError as error:
            if limit not in self._denied:
                raise
            raise NotAllowed(subject) from error
        finally:
            self._denied.discard(limit)
            asked.discard(limit)
            if not asked:
                self._asked.pop(subject.lower(), None)

    def deny(self, subject: str) -> None:
        """End the questions on a subject, given in lower case, that we may not publish to."""
        for limit in self._asked.get(subject, set()) - self._denied:
            self._denied.add(limit)
            limit.reschedule(0)
