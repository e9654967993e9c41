"""Dead letters of a queue: find, edit, drop, and have them run again.

A redrive is a message for the attempt after the last one, under the task's own id. Its fence is the record of
the failure: of all redrives of one failure, the worker that is first replaces that record by compare-and-set,
and the others find that the attempt is taken. Nothing is written before the broker has the message, and the
dead letter goes last: a program that dies in between leaves a letter that can be redriven again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from msgspec import Raw
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.audit import Action
from galley.broker import dead_letters, queue_view, topology
from galley.broker.audit import note
from galley.broker.connection import Broker
from galley.broker.dead_letters import Kept
from galley.broker.errors import BrokerRefused, BrokerUnreachable, NotAllowed
from galley.broker.pipeline import DENIED, NO_RESPONDERS, WRONG_SEQUENCE, Ack
from galley.broker.publish import Publisher
from galley.broker.records import Records
from galley.calls import check_handler_name, check_queue_name
from galley.dead_letter import NO_TASK
from galley.dead_task import ALL, DeadTask, Selection
from galley.encryption import PlaintextRefused
from galley.envelope import VERSION, Envelope, Flags, digest_of, encode_input, shown_input
from galley.errors import (
    DeadLetterNotFound,
    EnvelopeInvalid,
    GalleyError,
    NotRedrivable,
    RedriveIncomplete,
    SubmissionInvalid,
)
from galley.failpoint import failpoint
from galley.history import History
from galley.record import Outcome, Record, State, Stored

_LETTER_SECONDS: Final = 5.0
"""How soon after the end of a task its dead letter is there, even on a busy machine."""
_LOOK_SECONDS: Final = 0.05

_UNCHANGED: Any = object()
"""Stands for "as it is"."""


class Redriven(StrEnum):
    """What a redrive came to."""

    QUEUED = "queued again"
    ALREADY = "was redriven already"
    HEEDED = "failed again since that was asked for"


class AsyncDeadLetters:
    """The dead letters of the queues of a namespace; for credentials of a manager."""

    def __init__(
        self, broker: Broker, namespace: str, publisher: Publisher, address: Callable[[str, str], TaskAddress]
    ) -> None:
        """Args: address: returns where a task is, from the name of its queue and its id."""
        self._broker, self._namespace, self._publisher = broker, namespace, publisher
        self._address = address

    async def find(self, queue: str, which: Selection = ALL) -> list[DeadTask]:
        """Return the dead letters of a queue, oldest first.

        Raises:
            NotAllowed: the credentials are not those of a manager of this queue.
            QueueNotFound, QueueNameInvalid: there is no such queue, or there can be none.
            BrokerUnreachable: the broker does not answer.
        """
        return [dead async for _, dead in self._selected(queue, which)]

    async def get(self, queue: str, task_id: str) -> DeadTask:
        """Return one dead letter.

        Raises:
            DeadLetterNotFound: the queue keeps none of that id.
            NotAllowed, QueueNotFound, BrokerUnreachable: as `find`.
        """
        return await self._read(await self._find(queue, task_id))

    async def redrive(self, queue: str, task_id: str) -> Redriven:
        """Have a dead task run again, under its own id, with a fresh budget of retries.

        A deadline that has passed is removed. Redriving twice runs it once.

        Raises:
            DeadLetterNotFound: the queue keeps none of that id.
            NotRedrivable: it cannot run again as it is; it stays.
            QueueFull, LaneNotEnabled, BrokerFull: the queue does not accept it now; it stays.
            DecryptionKeyMissing: it is encrypted, and this client has not its key; it stays.
            NotAllowed, QueueNotFound, BrokerUnreachable, BrokerSilent: as `find`; redriving again is safe.
        """
        redriven = await self._redrive(await self._find(queue, task_id))
        await self._note(queue, Action.REDRIVE, task_id)
        return redriven

    async def redrive_declared(self, queue: str, task_id: str, uid: str, mark: str) -> Redriven:
        """Have the dead task of a Task object run again, once for each mark.

        The process that keeps the status of the object calls this, and then says in it that the task waits.

        Args:
            queue: its name.
            task_id: name of the object.
            uid: of the object.
            mark: stands for the wish; the task keeps it.

        Raises:
            NotRedrivable: it was declared by another object, or as `redrive`.
            As `redrive` besides.
        """
        kept = await self._find(queue, task_id)
        envelope = await self._envelope(kept)
        if envelope.redriven == mark:
            return Redriven.HEEDED
        return await self._redrive(kept, uid, mark)

    async def redrive_all(
        self, queue: str, which: Selection = ALL, *, rate: float | None = None, dry_run: bool = False
    ) -> list[DeadTask]:
        """Redrive all dead letters that are meant, oldest first; returns them.

        Args:
            queue: its name.
            which: those that are meant; by default all.
            rate: how many a second at most; None is as fast as the broker takes them.
            dry_run: redrive none, and return those that are meant.

        Raises:
            RedriveIncomplete: not all of them; it holds the ids of those that were redriven, and `__cause__`
                says why the next one was not. Those that cannot run again are passed over, and the first
                of them is the cause once all others are redriven; so are those that were submitted to an
                encrypted queue without encryption, unless `which` names the reason `PlaintextRefused`.
            SubmissionInvalid: the rate is not more than 0.
            NotAllowed, QueueNotFound, BrokerUnreachable: as `find`.
        """
        check_rate(rate)
        meant = [each async for each in self._selected(queue, which)]
        if dry_run:
            return [dead for _, dead in meant]
        done: list[DeadTask] = []
        passed_over: NotRedrivable | None = None
        for place, (kept, dead) in enumerate(meant):
            try:
                await self._redrive(kept, plaintext=which.reason == PlaintextRefused.reason)
                done.append(dead)
            except NotRedrivable as error:
                passed_over = passed_over or error
            except GalleyError as error:
                await self._note(queue, Action.REDRIVE, count=len(done))
                raise _incomplete(queue, done, len(meant), error) from error
            if rate is not None and place + 1 < len(meant):
                await asyncio.sleep(1 / rate)
        await self._note(queue, Action.REDRIVE, count=len(done))
        if passed_over is not None:
            raise _incomplete(queue, done, len(meant), passed_over) from passed_over
        return done

    async def drop(self, queue: str, task_id: str) -> None:
        """Delete a dead letter for good. The record of its task says for a while that it failed.

        Raises:
            DeadLetterNotFound: the queue keeps none of that id.
            NotAllowed, QueueNotFound, BrokerUnreachable: as `find`.
        """
        await dead_letters.drop(self._broker, await self._find(queue, task_id))
        await self._note(queue, Action.DROP, task_id)

    async def drop_all(self, queue: str, which: Selection = ALL, *, dry_run: bool = False) -> list[DeadTask]:
        """Delete all dead letters that are meant; returns them.

        With `dry_run` none is deleted, and those that would be are returned.

        Raises:
            NotAllowed, QueueNotFound, BrokerUnreachable: as `find`.
        """
        if dry_run:
            return await self.find(queue, which)
        dropped = []
        async for kept, dead in self._selected(queue, which):
            if await dead_letters.drop(self._broker, kept):
                dropped.append(dead)
        await self._note(queue, Action.DROP, count=len(dropped))
        return dropped

    async def edit(
        self,
        queue: str,
        task_id: str,
        *,
        input: Any = _UNCHANGED,  # noqa: A002 - as manifests and the command name it
        handler: str | None = None,
    ) -> DeadTask:
        """Change what a dead task runs, or with what, before it is redriven; returns it.

        Raises:
            DeadLetterNotFound: the queue keeps none of that id.
            NotRedrivable: the task itself is not kept, or another program changed it at the same time.
            InputInvalid, HandlerNameInvalid: it could not run like that; nothing was changed.
            DecryptionKeyMissing: it is encrypted, and this client has not its key.
            NotAllowed, QueueNotFound, BrokerUnreachable: as `find`.
        """
        kept = await self._find(queue, task_id)
        envelope = await self._envelope(kept)
        if handler is not None:
            check_handler_name(handler)
            envelope = replace(envelope, handler=handler)
        if input is not _UNCHANGED:
            envelope = replace(
                envelope, v=VERSION, input=encode_input(envelope.handler, input), large=None, files=()
            )
        if envelope.digest:
            envelope = replace(envelope, digest=digest_of(envelope.handler, envelope.input))
        body = await self._broker.payloads.task_bytes(kept.address, envelope)
        ack = await dead_letters.exchange(self._broker, kept, replace(kept.letter, envelope=Raw(body)))
        if ack.code == WRONG_SEQUENCE:
            raise _not(kept, "it was changed at the same time", "look at it, and edit it again")
        _check(self._broker, kept, ack)
        await self._note(queue, Action.EDIT, task_id, detail=f"handler {envelope.handler}")
        return await self.get(queue, task_id)

    # How.

    async def _note(
        self, queue: str, action: Action, task: str = "", *, count: int | None = None, detail: str = ""
    ) -> None:
        if count != 0:
            await note(self._broker, self._namespace, queue, action, task, count=count, detail=detail)

    async def _find(self, queue: str, task_id: str) -> Kept:
        self._broker.check_usable()
        address = self._address(queue, task_id)
        try:
            found = await dead_letters.read(self._broker, address)
        except BrokerRefused as refusal:
            if refusal.code == NO_RESPONDERS:  # no leader just now, or no such queue
                await queue_view.queue(self._broker, self._namespace, queue)
            raise
        if found is None and await self._just_failed(address):
            # The record comes first, so a program that waited for the end of the task may be too early.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LETTER_SECONDS):
                    while found is None:
                        await asyncio.sleep(_LOOK_SECONDS)
                        found = await dead_letters.read(self._broker, address)
        if found is None:
            raise DeadLetterNotFound(queue, task_id)
        return found

    async def _just_failed(self, address: TaskAddress) -> bool:
        stored = await Records(self._broker).read(address)
        if stored is None or stored.record.outcome is not Outcome.FAILED or stored.record.ended_at is None:
            return False
        return datetime.now(UTC) - stored.record.ended_at < timedelta(seconds=_LETTER_SECONDS)

    async def _selected(self, queue: str, which: Selection) -> AsyncIterator[tuple[Kept, DeadTask]]:
        self._broker.check_usable()
        if not isinstance(which, Selection):
            hint = "pass galley.Selection(handler=..., reason=...)"
            raise SubmissionInvalid("which", f"it is of type {type(which).__name__}", hint)
        now = datetime.now(UTC)
        await queue_view.queue(self._broker, self._namespace, check_queue_name(queue))
        async for kept in dead_letters.all_of(self._broker, self._namespace, queue):
            dead = await self._read(kept)
            if which.admits(dead, now):
                yield kept, dead

    async def _read(self, kept: Kept) -> DeadTask:
        letter = kept.letter
        dead = DeadTask(
            kept.address.queue, kept.address.id, "", letter.failure.reason, letter.failure.message,
            letter.failure.traceback, letter.died_at, letter.worker, letter.attempt, letter.lane,
            letter.history.attempts, body=letter.body,
        )  # fmt: skip
        if letter.envelope == NO_TASK:
            return dead
        try:
            envelope = await self._broker.payloads.look_at_task(kept.address, bytes(letter.envelope))
        except EnvelopeInvalid:
            return replace(dead, body=bytes(letter.envelope))
        return replace(
            dead, handler=envelope.handler, input=None if envelope.sealed else shown_input(envelope),
            submitted_at=envelope.submitted_at, uid=envelope.uid, labels=envelope.labels or {},
        )  # fmt: skip

    async def _envelope(self, kept: Kept, *, plaintext: bool = True) -> Envelope:
        """Return the task that a letter keeps.

        Args:
            kept: the letter.
            plaintext: whether it may be of one that needed no key to submit, though its queue is encrypted:
                redriven, it is encrypted, and trusted as if it had.
        """
        if kept.letter.body is not None:
            raise _not(kept, "it was no task that Galley can read", "drop it, and submit the task again")
        if kept.letter.envelope == NO_TASK:
            raise _not(kept, "it was too large to keep the task itself", "drop it, and submit the task again")
        if not plaintext and kept.letter.failure.reason == PlaintextRefused.reason:
            raise _unencrypted(kept)
        body = bytes(kept.letter.envelope)
        try:
            envelope = await self._broker.payloads.read_task(kept.address, body, plaintext=plaintext)
        except PlaintextRefused:
            raise _unencrypted(kept) from None
        except EnvelopeInvalid as error:
            raise _not(kept, str(error), "drop it, and submit the task again") from None
        if envelope.sealed:
            raise self._broker.payloads.missing(kept.address, envelope.sealed)
        return envelope

    async def _redrive(
        self, kept: Kept, uid: str = "", mark: str = "", *, plaintext: bool = True
    ) -> Redriven:
        records, address = Records(self._broker), kept.address
        envelope = await self._envelope(kept, plaintext=plaintext)
        stored = await records.read(address)
        if _moved_on(kept, stored):
            await dead_letters.drop(self._broker, kept)
            return Redriven.ALREADY
        if envelope.uid != uid:
            raise _not(
                kept, "it was declared by a Task object, which shows that it failed",
                f"label the object: `kubectl label task {kept.address.id} galley.dev/redrive=1`; "
                "each new value runs it again",
            )  # fmt: skip
        now = datetime.now(UTC)
        attempt, fence = kept.letter.attempt + 1, stored.sequence if stored is not None else 0
        again = replace(
            envelope, history=History(attempts=kept.letter.history.attempts), not_before=None,
            redriven=mark,
            deadline=envelope.deadline if envelope.deadline and envelope.deadline > now else None,
        )  # fmt: skip
        flags = Flags(attempt, fence, republished=True)
        failpoint("redrive.before_send")
        await self._publisher.publish_again(address, again, flags)
        if stored is not None:
            # For those who look at it; the message alone would do, and a worker may have been quicker.
            waiting = Record(
                State.RETRY, attempt, handler=again.handler, lane=address.lane,
                submitted_at=again.submitted_at, due_at=now, digest=again.digest, uid=again.uid,
                labels=again.labels,
            )  # fmt: skip
            failpoint("redrive.before_record")
            await records.write(address, waiting, fence)
        failpoint("redrive.before_drop")
        await dead_letters.drop(self._broker, kept)
        return Redriven.QUEUED


def _moved_on(kept: Kept, stored: Stored | None) -> bool:
    """Return whether the task has done more than to fail as its dead letter says."""
    if stored is None:
        return False
    record = stored.record
    return record.outcome is not Outcome.FAILED or record.attempt > kept.letter.attempt


def _not(kept: Kept, problem: str, advice: str) -> NotRedrivable:
    return NotRedrivable(kept.address.queue, kept.address.id, problem, advice)


def _unencrypted(kept: Kept) -> NotRedrivable:
    problem = "it was submitted without encryption, maybe by someone without the keys"
    place = f"{kept.address.queue}/{kept.address.id}"
    return _not(kept, problem, f"look at it: `galley dead redrive {place}` runs it")


def check_rate(rate: float | None) -> None:
    """Check how many a second are to be redriven.

    Raises:
        SubmissionInvalid: if it is not more than 0.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise SubmissionInvalid("rate", f"{rate!r} a second", "use a number that is more than 0")


def _incomplete(queue: str, done: Iterable[DeadTask], many: int, error: GalleyError) -> RedriveIncomplete:
    ids = [each.id for each in done]
    return RedriveIncomplete(queue, ids, many - len(ids), str(error))


def _check(broker: Broker, kept: Kept, ack: Ack) -> None:
    action = f"edit the dead letter {kept.address.queue}/{kept.address.id}"
    if ack.stored:
        return
    if ack.unanswered:
        raise BrokerUnreachable(broker.server, f"{action}: {ack.problem}")
    if ack.code == DENIED:
        raise NotAllowed(topology.dead_subject(kept.address))
    raise BrokerRefused(action, ack.code, ack.problem)
