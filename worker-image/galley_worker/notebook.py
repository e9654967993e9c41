"""Notebook: what handlers say while they run, gathered and written to the broker once a second.

Nothing waits for it but the end of an attempt that said something, and nothing depends on it: what cannot be
stored is dropped, with a line in the worker's own log.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from galley import note as wire
from galley.address import Kind, TaskAddress
from galley.broker import notes
from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.pipeline import NO_RESPONDERS, Ack
from galley.encryption import EncryptionError, KeyServiceUnavailable
from galley.failpoint import failpoint
from galley.faults import Faults
from galley.lanes import Lane
from galley.logs import log_often
from galley.note import CHECKPOINT, OUTPUT, PROGRESS, LogLine, Output, Progress
from galley_worker.claim import Who
from galley_worker.runners.frames import Progressed, Saved
from galley_worker.runners.settings import Line
from galley_worker.work import Work

log = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 1.0
"""Time between two writes of a kind for one attempt."""
PART_LENGTH: Final = 64 * 1024
"""Characters of one part of an output, about: as JSON, and encrypted, it has to fit into a message."""
KEPT_BYTES: Final = 256 * 1024
"""Bytes stored of the output of one attempt; its text is limited before, and short lines take more room."""
LINE_BYTES: Final = 60
"""What a line takes beside its text."""
SILENT_SECONDS: Final = 60.0
"""After which a page with nothing on it is forgotten."""
_ANSWER_SECONDS: Final = 2.0
"""How long the end of an attempt waits for its last notes to be stored."""
_READ_TIMES: Final = 4
_READ_PAUSE_SECONDS: Final = 0.5


class _Key(NamedTuple):
    kind: str
    task: str
    attempt: int


@dataclass
class _Page:
    """What one attempt said and is not written yet."""

    address: TaskAddress
    lines: list[LogLine] = field(default_factory=list)
    kept: int = 0
    """Bytes of its output that were taken in."""
    silent_since: float = math.inf
    """Since when it has had nothing to be written."""
    progress: Progress | None = None
    checkpoint: bytes | None = None

    @property
    def empty(self) -> bool:
        return not self.lines and self.progress is None and self.checkpoint is None


class Notebook:
    """The notes of one worker."""

    def __init__(
        self, namespace: str, who: Who, now: Callable[[], datetime], broker: Broker | None = None
    ) -> None:
        """Args: broker: if it is open already; else `writing` names it."""
        self._namespace, self._who, self._now, self._broker = namespace, who, now, broker
        self._pages: dict[_Key, _Page] = {}
        self._something = asyncio.Event()
        self._numbers = itertools.count()
        self.dropped: Callable[[], None] = lambda: None
        """Called for each note that was not stored."""

    @property
    def empty(self) -> bool:
        """Whether no attempt under way has said anything."""
        return not self._pages

    # What is said.

    def line(self, line: Line) -> None:
        """Take in a line of an attempt's output."""
        if line.work is None:
            return
        page, size = self._page(line.work), _size(line)
        if page.kept > KEPT_BYTES:
            return
        if page.kept + size > KEPT_BYTES:
            line = line._replace(stream="galley", text="output limit reached: what follows is not kept here")
        page.kept += size
        page.lines.append(
            LogLine(self._now(), line.stream, line.text, line.level, line.logger, line.fields or {})
        )
        self._something.set()

    def report(self, work: Work, report: Progressed | Saved) -> None:
        """Take in how far an attempt is, or its checkpoint."""
        page = self._page(work)
        if isinstance(report, Saved):
            page.checkpoint = report.body
        else:
            page.progress = Progress(self._now(), work.attempt, report.fraction, report.text)
        self._something.set()

    def _page(self, work: Work) -> _Page:
        key = _key(work)
        page = self._pages.get(key)
        if page is None:
            address = TaskAddress(self._namespace, work.queue, Lane(work.lane), Kind(work.kind), work.task_id)
            page = self._pages[key] = _Page(address)
        page.silent_since = math.inf
        return page

    # What is written.

    @asynccontextmanager
    async def writing(self, broker: Broker, faults: Faults) -> AsyncIterator[None]:
        """Write to a broker for the duration of the block."""
        self._broker = broker
        async with faults.beside("notes", self._write, PAUSE_SECONDS):
            yield

    async def _write(self) -> None:
        while True:
            await self._something.wait()
            await asyncio.sleep(PAUSE_SECONDS)
            self._something.clear()
            for key, page in list(self._pages.items()):
                try:
                    for answer in await self._send(key, page):
                        answer.add_done_callback(self._look_at)
                except Exception:  # whatever it is costs what this attempt said, not the others' words
                    self._pages.pop(key, None)
                    self.dropped()
                    log.exception("notes not written", extra={"task": key.task})
                    continue
                self._forget_silent(key, page)

    def _forget_silent(self, key: _Key, page: _Page) -> None:
        """Forget a page of what came after the end of its attempt, from a thread that goes on."""
        now = asyncio.get_running_loop().time()
        page.silent_since = min(page.silent_since, now) if page.empty else math.inf
        if now - page.silent_since > SILENT_SECONDS:
            self._pages.pop(key, None)

    async def finish(self, work: Work) -> None:
        """Write what an attempt said last, before it is settled, and wait until that is stored."""
        key = _key(work)
        page = self._pages.pop(key, None)
        if page is None or page.empty:
            return
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                for answer in await self._send(key, page):
                    answer.add_done_callback(self._look_at)
                    await asyncio.wait({answer})
        except TimeoutError:
            log_often(log, logging.WARNING, "notes not stored in time", {"task": work.task_id})

    async def _send(self, key: _Key, page: _Page) -> list[asyncio.Future[Ack]]:
        """Send what a page has; what cannot be encrypted now stays on it."""
        answers: list[asyncio.Future[Ack]] = []
        if not page.empty:
            failpoint("note.before_write")
        try:
            while page.lines:
                part = _first(page.lines)
                body = wire.encode(Output(key.attempt, self._who.name, part))
                # The holder tells apart two workers that run one attempt, one after the other.
                what = f"{OUTPUT}.{key.attempt}.{self._who.holder}-{next(self._numbers)}"
                answers.append(await self._put(page.address, what, body))
                del page.lines[: len(part)]
            if (checkpoint := page.checkpoint) is not None:
                answers.append(await self._put(page.address, CHECKPOINT, checkpoint))
                page.checkpoint = None if page.checkpoint is checkpoint else page.checkpoint
            if (progress := page.progress) is not None:
                answers.append(await self._put(page.address, PROGRESS, wire.encode(progress)))
                page.progress = None if page.progress is progress else page.progress
        except KeyServiceUnavailable as error:
            log_often(log, logging.WARNING, "notes not encrypted", {"task": key.task, "error": str(error)})
        return answers

    async def _put(self, address: TaskAddress, what: str, body: bytes) -> asyncio.Future[Ack]:
        assert self._broker is not None
        return await notes.put(self._broker, address, what, body)

    def _look_at(self, answer: asyncio.Future[Ack]) -> None:
        if answer.cancelled():
            return
        ack = answer.result()
        if not ack.stored:
            why = "the queue has no stream of notes" if ack.code == NO_RESPONDERS else ack.problem
            self.dropped()
            log_often(log, logging.WARNING, "note not stored", {"error": why})

    # What is read.

    async def checkpoint(self, address: TaskAddress) -> bytes:
        """Return the last checkpoint of a task; empty if it has none, or it cannot be read here."""
        assert self._broker is not None
        problem: Exception | None = None
        for _ in range(_READ_TIMES):
            try:
                return await notes.checkpoint_of(self._broker, address) or b""
            except (BrokerError, EncryptionError) as error:
                problem = error
                if isinstance(error, EncryptionError) and not isinstance(error, KeyServiceUnavailable):
                    break
                await asyncio.sleep(_READ_PAUSE_SECONDS)
        log.warning("checkpoint not read", extra={"task": address.id, "error": str(problem)})
        return b""


def _key(work: Work) -> _Key:
    return _Key(work.kind, work.task_id, work.attempt)


def _first(lines: list[LogLine]) -> tuple[LogLine, ...]:
    """Return as many of the first lines as fit into one part."""
    size = count = 0
    for line in lines:
        size += _size(line)
        if count and size > PART_LENGTH:
            break
        count += 1
    return tuple(lines[:count])


def _size(line: Line | LogLine) -> int:
    fields = len(msgspec.json.encode(line.fields)) if line.fields else 0
    return len(line.text) + fields + LINE_BYTES
