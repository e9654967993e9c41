"""What is submitted in a storm: quick tasks, some that fail, some that die and are redriven, some large."""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from galley import (
    AsyncClient,
    AsyncHandle,
    Call,
    DeadLetterNotFound,
    GalleyError,
    Lane,
    RedriveIncomplete,
    TaskFailed,
    When,
    call,
)
from galley.reference import INLINE_LIMIT

LARGE_EVERY: Final = 100
"""One task of so many has an input and a result that are stored as objects; two of them share each input."""

DIES_EVERY: Final = 40
"""One task of so many fails for good until it is redriven; one of five of those has a large input."""

REDRIVE_SECONDS: Final = 1.0


@dataclass
class Mix:
    """The tasks of one storm, by number."""

    client: AsyncClient
    folder: Path
    handles: dict[str, AsyncHandle[object]] = field(default_factory=dict)
    large: dict[str, int] = field(default_factory=dict)
    """Number of the text that a task with a large result has turned around, by id."""
    redrives: Counter[str] = field(default_factory=Counter)
    """How often each task was asked to run again."""

    async def submit(self, numbers: range) -> None:
        """Submit the tasks of these numbers: each fifth has an id chosen here."""
        for lane in (Lane.HIGH, Lane.NORMAL, Lane.LOW):
            mine = [n for n in numbers if n % 3 == lane_of(lane)]
            plain = [n for n in mine if n % 5]
            sent = await self.client.submit_many([self._call(n) for n in plain], When(lane=lane))
            self._note(zip(plain, sent, strict=True))
            for n in mine:
                if n % 5 == 0:
                    own = await self.client.submit(self._call(n), When(lane=lane), task_id=f"storm-{n}")
                    self._note([(n, own)])

    def _note(self, sent: Iterable[tuple[int, AsyncHandle[object]]]) -> None:
        for number, handle in sent:
            self.handles[handle.id] = handle
            if (text := text_of(number)) is not None:
                self.large[handle.id] = text

    def _call(self, number: int) -> Call[object]:
        text = text_of(number)
        if number % DIES_EVERY == 7:
            turned = a_text(text) if text is not None else str(number)
            return call("drills", "die_once", path=str(self.folder / f"died-{number}"), text=turned)
        if text is not None:
            return call("drills", "turn", text=a_text(text))
        if number % 3 == 0:
            return call("drills", "fail_once", path=str(self.folder / f"failed-{number}"))
        return call("drills", "work" if number % 2 else "awork", milliseconds=5)

    async def redrive_all(self, client: AsyncClient) -> None:
        """Redrive what is dead, again and again until cancelled; two clients that do so harm nothing."""
        while True:
            try:
                done = await client.dead_letters.redrive_all("drills")
            except RedriveIncomplete as error:
                self.redrives.update(error.redriven)
            except GalleyError:  # the broker is away
                pass
            else:
                self.redrives.update(each.id for each in done)
            await asyncio.sleep(REDRIVE_SECONDS)

    async def results(self) -> Counter[str]:
        """Wait for the end of each task and check what it returned; says how many there were of each sort."""
        found: Counter[str] = Counter()
        for handle in self.handles.values():
            result = await self._result(handle)
            text = self.large.get(handle.id)
            if text is not None:
                assert isinstance(result, str)
                assert digest(result) == digest(a_text(text)[::-1]), handle.id
            found["large" if text is not None else "small"] += 1
        return found

    async def _result(self, handle: AsyncHandle[object]) -> object:
        """Return the result of a task, having it run again if it is dead when it is looked at."""
        while True:
            try:
                return await handle.result()
            except TaskFailed as failed:
                if "not mended yet" not in str(failed):
                    raise
            with suppress(DeadLetterNotFound):  # another redrove it meanwhile
                await self.client.dead_letters.redrive("drills", handle.id)
                self.redrives[handle.id] += 1


def lane_of(lane: Lane) -> int:
    return {Lane.HIGH: 0, Lane.NORMAL: 1, Lane.LOW: 2}[lane]


def text_of(number: int) -> int | None:
    """Return which large text a task gets, or None."""
    if number % LARGE_EVERY == 1 or number % (5 * DIES_EVERY) == 7:
        return number // (2 * LARGE_EVERY)
    return None


@lru_cache(maxsize=4)
def a_text(number: int) -> str:
    """Return a text that is too large to travel with its task; the same for the same number."""
    return random.Random(number).randbytes(INLINE_LIMIT * 5 // 8).hex()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
