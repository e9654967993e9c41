"""Many tasks submitted one behind the other, without losing sight of any."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker.cached_tasks import publish_cached
from galley.broker.errors import BrokerSilent, BrokerUnreachable
from galley.broker.pipeline import Ack
from galley.broker.publish import Publisher, Receipt
from galley.broker.refusals import refusal
from galley.broker.unique_keys import UniquePublisher
from galley.cached import Entry
from galley.calls import Call
from galley.envelope import FIRST, Envelope
from galley.errors import ClientUnusable, GalleyError, Refused, SubmissionInvalid
from galley.handle import AsyncHandle
from galley.handler import check_call
from galley.typed import Typed
from galley.unique import Wanted

R = TypeVar("R")
V = TypeVar("V")


class SubmitIncomplete(GalleyError):
    """`submit_many` did not store every task. What is known of each stands here, by its place in the calls.

    `submitted` holds handles of the tasks that are stored; `unknown` those of tasks that were sent and may
    be stored (`handle.status()` tells); `refused` what `submit` would have raised for tasks that are not.
    The handles are those of the client: `Handle` or `AsyncHandle`.
    """

    reason = "SubmitIncomplete"

    def __init__(
        self, message: str, submitted: dict[int, Any], refused: dict[int, GalleyError],
        unknown: dict[int, Any], hint: str,
    ) -> None:  # fmt: skip
        self.submitted, self.refused, self.unknown = submitted, refused, unknown
        super().__init__(message, hint)

    @property
    def handles(self) -> dict[int, Any]:
        """The same as `submitted`."""
        return self.submitted


class SomeRefused(SubmitIncomplete, Refused):
    """Of the tasks submitted at once, some were not accepted; the others were stored."""

    reason = "SomeRefused"

    def __init__(self, submitted: dict[int, Any], refused: dict[int, GalleyError]) -> None:
        first = next(iter(refused.values()))
        super().__init__(
            f"{len(refused)} of {len(submitted) + len(refused)} tasks were refused; the first: {first}",
            submitted,
            refused,
            {},
            "`submitted` contains the handles of accepted tasks, `refused` the errors of the others, by "
            "position",
        )


class SubmitInterrupted(SubmitIncomplete):
    """`submit_many` ended early: a call could not be made, the broker went away, or it was cancelled."""

    reason = "SubmitInterrupted"

    def __init__(
        self, submitted: dict[int, Any], refused: dict[int, GalleyError],
        unknown: dict[int, Any], not_sent_from: int, problem: str,
    ) -> None:  # fmt: skip
        self.not_sent_from, self.problem = not_sent_from, problem
        super().__init__(
            f"submitting ended after {not_sent_from} tasks: {problem} "
            f"({len(submitted)} stored, {len(refused)} refused, {len(unknown)} unknown)",
            submitted,
            refused,
            unknown,
            "`submitted` and `unknown` contain handles by position; calls from position `not_sent_from` on "
            "were not sent. To be sure of an unknown one, submit it again with `task_id=handle.id`",
        )

    @classmethod
    def of(cls, error: BaseException | None) -> "SubmitInterrupted | None":
        """Return what is known after a cancel or a timeout: it is the cause of that error.

        Cancelling raises `CancelledError`, and `asyncio.timeout` makes a `TimeoutError` of it, so neither
        can be replaced by this one.
        """
        while error is not None and not isinstance(error, cls):
            error = error.__cause__ or error.__context__
        return error


_AT_ONCE: Final = 256
"""How many tasks with ids of their own are looked up and published at a time."""


class Submission(Struct, frozen=True, gc=False):
    """A call as a task that is to be stored."""

    address: TaskAddress
    envelope: Envelope
    unique: Wanted | None = None
    """Its unique key; None if it has none."""
    cached: Entry | None = None
    """Where its result may be, if its handler's results are used again."""


_STORES_AT_ONCE: Final = 4
"""How many tasks have their objects stored at a time: each has a few parts in memory."""


def in_turn(calls: Iterable[Call[R]]) -> Iterator[Call[R]]:
    """Return what yields the calls.

    Raises:
        SubmissionInvalid: it is nothing to iterate over.
    """
    try:
        return iter(calls)
    except TypeError:
        problem = f"{type(calls).__name__} is nothing to iterate over"
        raise SubmissionInvalid("calls", problem, "pass a list, or submit(call) for a single one") from None


class _Whole(NamedTuple):
    """A task that was published after its objects were stored."""

    receipt: Receipt
    envelope: Envelope


_Answer: TypeAlias = "asyncio.Future[Ack] | asyncio.Task[Receipt] | asyncio.Task[_Whole]"
"""What tells how a publish ended."""


def _told(ack: Ack) -> asyncio.Future[Ack]:
    """Return an answer that has come."""
    answer: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
    answer.set_result(ack)
    return answer


class Batch(Generic[R]):
    """One call of `submit_many`."""

    def __init__(
        self,
        publisher: Publisher,
        unique: UniquePublisher,
        describe: Callable[[Call[R]], Submission],
        handle: Callable[[TaskAddress, Envelope, Typed | None], AsyncHandle[R]],
        store: Callable[[Call[R], TaskAddress, Envelope], Awaitable[Envelope]],
    ) -> None:
        """Describe the call.

        Args:
            publisher: of the client.
            unique: of the client, for tasks with a unique key.
            describe: what a call is as a task.
            handle: makes the handle on a task.
            store: stores what is too large of a task, and returns the task with references.
        """
        self._publisher, self._unique = publisher, unique
        self._with_objects = store
        self._describe = describe
        self._make_handle = handle
        # Two lists: a pair for each would be one more object that the garbage collector looks at. So would a
        # future be: the tasks that are stored share one.
        self._handles: list[AsyncHandle[R]] = []
        self._answers: list[_Answer | None] = []
        """None until `_hear` is told the answer."""
        self._stored = _told(Ack(1))
        """The answer of each task that is stored."""
        self._unheard = 0
        self._all_heard = asyncio.Event()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._stores = asyncio.Semaphore(_STORES_AT_ONCE)
        self._silent: Exception | None = None
        """Why a task with an id of its own had no answer: the patience of one is that of all."""
        self._give_up = 0.0
        self._unanswered: GalleyError | None = None
        self._submitted: dict[int, AsyncHandle[R]] = {}
        self._refused: dict[int, GalleyError] = {}
        self._unknown: dict[int, AsyncHandle[R]] = {}

    async def submit(self, calls: Iterable[Call[R]]) -> list[AsyncHandle[R]]:
        """Submit all and return when the broker has them.

        Raises:
            SubmissionInvalid, SomeRefused, SubmitInterrupted: as `AsyncClient.submit_many`.
        """
        waiting = in_turn(calls)
        try:
            problem = await self._send(waiting)
            unanswered = await self._settle()
        except asyncio.CancelledError as cancelled:
            self._look()
            # It stays a cancel, since `asyncio.timeout` and task groups know no other.
            cancelled.__cause__ = self._interrupted("it was cancelled")
            raise
        if problem is not None:
            raise self._interrupted(f"{type(problem).__name__}: {problem}") from problem
        if unanswered is not None:
            raise self._interrupted(str(unanswered)) from unanswered
        if self._refused:
            raise SomeRefused(_by_place(self._submitted), _by_place(self._refused))
        return self._handles

    async def _send(self, calls: Iterable[Call[R]]) -> Exception | None:
        """Send all; returns what the caller's iterable raised, or the making of a task, if anything did."""
        publisher, handles, answers = self._publisher, self._handles, self._answers
        try:
            for call in calls:
                check_call(call)
                submission = self._describe(call)
                address, envelope = submission.address, submission.envelope
                if call.large or call.files or submission.unique is not None or envelope.digest:
                    await self._room.acquire()
                    if self._silent is not None:
                        return self._silent
                    answers.append(self._store_beside(call, submission))
                else:
                    hear = partial(self._hear, len(answers))
                    answers.append(None)
                    sent = publisher.send_at_once(address, envelope, hear)
                    if not sent:
                        await publisher.room()
                        sent = publisher.send_at_once(address, envelope, hear)
                    if sent:
                        self._unheard += 1
                    else:
                        answers[-1] = await publisher.send(address, envelope)
                handles.append(self._make_handle(address, envelope, call.result))
        except Exception as error:
            return error
        finally:
            del answers[len(handles) :]
        return None

    def _store_beside(self, call: Call[R], submission: Submission) -> _Answer:
        """Store a task whose id or objects have to be looked at first."""
        answer: asyncio.Task[Receipt] | asyncio.Task[_Whole]
        if call.large or call.files:
            answer = asyncio.create_task(self._store_whole(call, submission))
        else:
            answer = asyncio.create_task(self._store(submission))
        answer.add_done_callback(self._published)
        return answer

    async def _store(self, submission: Submission) -> Receipt:
        address, envelope, cached = submission.address, submission.envelope, submission.cached
        if submission.unique is not None:
            return await self._unique.publish(address, envelope, submission.unique)
        if not envelope.digest:
            return await self._publisher.publish(address, envelope)
        if cached is not None:
            return await publish_cached(self._publisher.broker, self._publisher, address, envelope, cached)
        return await self._publisher.publish_once(address, envelope)

    async def _store_whole(self, call: Call[R], submission: Submission) -> "_Whole":
        """Store what is too large of a task, and then the task."""
        async with self._stores:
            envelope = await self._with_objects(call, submission.address, submission.envelope)
        return _Whole(await self._store(replace(submission, envelope=envelope)), envelope)

    def _hear(self, place: int, ack: Ack) -> None:
        self._answers[place] = self._stored if ack.stored else _told(ack)
        self._unheard -= 1
        if not self._unheard:
            self._all_heard.set()

    def _published(self, publish: asyncio.Task[Any]) -> None:
        self._room.release()
        error = None if publish.cancelled() else publish.exception()
        if isinstance(error, BrokerUnreachable | BrokerSilent | ClientUnusable):
            self._silent = error

    async def _settle(self) -> GalleyError | None:
        """Wait for all answers; returns why some did not come, if so."""
        publisher = self._publisher
        self._wait_on()
        if self._unheard:
            self._all_heard.clear()
            await self._all_heard.wait()
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for place, (handle, answer) in enumerate(zip(self._handles, self._answers, strict=True)):
                assert answer is not None, "all answers were heard"
                awaited = not answer.done()
                try:
                    if isinstance(answer, asyncio.Task):
                        note(handle, await answer)
                    elif not (await answer).stored or publisher.tells(handle.address):
                        # One after the other, each would take a pause and an answer of its own.
                        await room.acquire()
                        group.create_task(self._settle_one(place, handle, answer, room))
                        continue
                    self._submitted[place] = handle
                    if awaited:
                        self._wait_on()
                except GalleyError as error:
                    self._failed(place, handle, error)
        return self._unanswered

    async def _settle_one(
        self, place: int, handle: AsyncHandle[R], answer: asyncio.Future[Ack], room: asyncio.Semaphore
    ) -> None:
        """Send a task again while no answer comes, and tell of it who asks to be told."""
        envelope = handle.envelope
        assert envelope is not None, "it was submitted here"
        self._unknown[place] = handle  # what is known if this is cancelled
        try:
            receipt = await self._publisher.settle(
                handle.address, envelope, FIRST, answer, give_up=self._give_up
            )
        except GalleyError as error:
            self._unknown.pop(place, None)
            self._failed(place, handle, error)
        else:
            self._unknown.pop(place, None)
            note(handle, receipt)
            self._submitted[place] = handle
            self._wait_on()
        finally:
            room.release()

    def _wait_on(self) -> None:
        # One patience for all, not for each, of a broker that takes none.
        self._give_up = asyncio.get_running_loop().time() + self._publisher.patience

    def _failed(self, place: int, handle: AsyncHandle[R], error: GalleyError) -> None:
        if isinstance(error, BrokerUnreachable | BrokerSilent | ClientUnusable):
            self._unknown[place] = handle
            self._unanswered = self._unanswered or error
        else:
            self._refused[place] = error

    def _look(self) -> None:
        """Sort what has not been looked at by the answers that are there."""
        for place, (handle, answer) in enumerate(zip(self._handles, self._answers, strict=True)):
            if place in self._submitted or place in self._refused or place in self._unknown:
                continue
            if isinstance(answer, asyncio.Task):
                self._sort(place, handle, answer)
                continue
            ack = None
            if answer is not None and answer.done() and not answer.cancelled():
                if isinstance(refused := answer.exception(), GalleyError):
                    self._refused[place] = refused
                    continue
                ack = answer.result()
            if ack is not None and ack.stored:
                self._submitted[place] = handle
            elif ack is None or ack.unanswered:
                self._unknown[place] = handle
            else:
                self._refused[place] = refusal(handle.address, ack)

    def _sort(self, place: int, handle: AsyncHandle[R], publish: asyncio.Task[Any]) -> None:
        publish.cancel()  # does nothing to one that has ended
        error = publish.exception() if publish.done() and not publish.cancelled() else None
        if isinstance(error, GalleyError) and not isinstance(error, BrokerUnreachable | BrokerSilent):
            self._refused[place] = error
        elif publish.done() and not publish.cancelled() and error is None:
            note(handle, publish.result())
            self._submitted[place] = handle
        else:
            self._unknown[place] = handle

    def _interrupted(self, problem: str) -> SubmitInterrupted:
        submitted, unknown = _by_place(self._submitted), _by_place(self._unknown)
        return SubmitInterrupted(submitted, _by_place(self._refused), unknown, len(self._handles), problem)


def _by_place(known: dict[int, V]) -> dict[int, V]:
    return dict(sorted(known.items()))


def note(handle: AsyncHandle[Any], published: Receipt | _Whole) -> None:
    """Note in a handle what its publish has told."""
    if isinstance(published, _Whole):
        receipt, handle.envelope = published
    else:
        receipt = published
    if receipt.duplicate and receipt.address.id != handle.id:  # another task of its unique key
        handle.envelope = None
    handle.address, handle.existed = receipt.address, receipt.duplicate
