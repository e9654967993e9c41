"""Workflows, on the worker's side: the worker that settles a step stores what follows, then acknowledges.

    its record > what follows: arrivals at joins, tasks > its mark > the end of the workflow > acknowledge

All of it may be done twice, by this worker or another one that is delivered the step again: a join keeps
which sources arrived, ids of tasks follow from the workflow, and the outcome is written by compare-and-set.
So each wait ends by a delivery: of a step, or of one that has ended and was not acknowledged.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.control import Request, Verb
from galley.broker.errors import BrokerError, NotAllowed
from galley.broker.flow_values import FlowGone, FlowsFull, Place
from galley.broker.flows import Flows
from galley.broker.publish import Publisher
from galley.encryption import EncryptionError, KeyServiceUnavailable
from galley.envelope import Envelope
from galley.errors import EnvelopeInvalid, GalleyError, QueueFull, Refused
from galley.failpoint import failpoint
from galley.objects.errors import ObjectError, ObjectStoreUnavailable
from galley.record import Failure, Outcome, Record, State
from galley.workflow.continuation import read_onward
from galley.workflow.plan import START, WIDTH, Node, chunked
from galley.workflow.state import (
    Failed,
    Mark,
    OnFailure,
    Root,
    Slot,
    ended,
    outcome_address,
    parse_step,
    with_mark,
    with_slot,
)
from galley_worker.claim import Onward
from galley_worker.ledger import Beaten, Ledger, NoRoom, TooLarge
from galley_worker.measures import Measures
from galley_worker.values import SMALL_RESULT, Unfit, Values, each
from galley_worker.wake import parent_name, parent_of, wake

log = logging.getLogger(__name__)

T = TypeVar("T")

DAY: Final = 24 * 3600
STEP_KEPT_SECONDS: Final = DAY
"""How long the record of a step is kept at least, so that a repeated message of it does not run."""

ENDED: Final = "WorkflowEnded"
"""Reason of a step that does not run since its workflow has ended."""

STEP_INVALID: Final = "StepInvalid"
"""Reason of a step whose task cannot be made of the results before it."""

_PAUSE_SECONDS: Final = 0.25


class Came(NamedTuple):
    """What a node hands to the nodes after it."""

    number: int
    slot: Slot


class Workflows:
    """Runs the workflows that the tasks of one worker belong to."""

    def __init__(  # noqa: PLR0917 - what it works with
        self, broker: Broker, namespace: str, queue: str, ledger: Ledger, keep_seconds: int,
        now: Callable[[], datetime], *, plaintext: bool = True,
    ) -> None:  # fmt: skip
        """Describe it.

        Args:
            broker: an open connection.
            namespace: of the queue.
            queue: whose worker this is.
            ledger: writes records.
            keep_seconds: how long the outcome of a workflow is kept.
            now: the time of day.
            plaintext: whether plans that are not encrypted count, though the queue has keys.
        """
        self._broker, self._namespace, self._queue = broker, namespace, queue
        self._ledger, self._now = ledger, now
        self._keep_seconds = keep_seconds
        self._flows = Flows(broker, plaintext=plaintext)
        self._publisher = Publisher(broker)
        self._values = Values(broker, self._flows, plaintext=plaintext)
        self.here: Callable[[TaskAddress, Envelope], bool] = lambda _address, _task: False
        """Tells whether a task could run here at once as well as anywhere."""
        self.measures: Measures | None = None
        """Counts workflows and joins, if set."""

    async def may_begin(self, address: TaskAddress, envelope: Envelope) -> Failure | None:
        """Return why a step is not to run, if its workflow has ended or is gone."""
        place, _ = self._place(address, envelope)
        root = await self.root(place)
        if root is None:
            return Failure(ENDED, f"workflow {place.flow} is not there any more, or cannot be read")
        if root.ended is not None:
            return Failure(ENDED, f"workflow {place.flow} has ended: {root.ended}")
        return None

    async def start(self, address: TaskAddress, envelope: Envelope) -> None:
        """Publish the first steps of a workflow.

        Raises:
            NoRoom: the queue has no room for them now.
        """
        place, number = self._place(address, envelope)
        root = await self.root(place)
        if root is None or root.ended is not None:
            return
        try:
            await self._carry_on(place, root, [Came(number, Slot())], {})
        except FlowsFull as error:
            raise NoRoom(f"workflows (spec.limits.workflowBytes): {error}") from None
        except FlowGone:
            log.info("workflow gone", extra={"workflow": place.flow})
        except EnvelopeInvalid as error:
            _not_readable(place, error)

    async def store(self, address: TaskAddress, attempt: int, envelope: Envelope, plan: bytes) -> str:
        """Store the workflow that takes the place of a task, and return its id; it does not begin yet.

        The id follows from the task, its attempt and the plan: a repeated attempt stores the same one.

        Raises:
            NoRoom: the queue has no room for it now.
        """
        work, now = read_onward(plan), self._now()
        name = b"/".join((parent_name(address).encode(), str(attempt).encode(), plan))
        place = Place(address.namespace, self._queue, f"then-{sha256(name).hexdigest()[:24]}")
        chunks, first = chunked(work.nodes)
        deadline = now + timedelta(seconds=work.seconds)
        root = Root(
            place.flow, work.tasks, len(work.nodes), first, work.start, work.out, now,
            min(deadline, envelope.deadline or deadline), on_failure=work.on_failure,
            queues=tuple(sorted({node.queue for node in work.nodes} - {"", self._queue})),
            marks="." * (work.tasks if work.tasks <= WIDTH else -(-work.tasks // WIDTH)),
            labels=envelope.labels, parent=parent_name(address),
        )  # fmt: skip
        keep = self._kept(root)
        try:
            await self.insist(lambda: self._flows.create(place, root, keep), f"store workflow {place.flow}")
            for index, body in enumerate(chunks):
                failpoint("then.before_plan")
                write = partial(self._flows.write_chunk, place, index, body, root, keep)
                await self.insist(write, f"store workflow {place.flow}")
        except FlowsFull as error:
            raise NoRoom(f"workflows (spec.limits.workflowBytes): {error}") from None
        return place.flow

    async def root(self, place: Place) -> Root | None:
        """Return a workflow as it is now; None if there is none that can be read."""
        try:
            return await self.insist(lambda: self._flows.root(place), f"look at workflow {place.flow}")
        except EnvelopeInvalid as error:
            _not_readable(place, error)
            return None

    async def record(self, address: TaskAddress) -> Record | None:
        """Return the record of a step, or that of the end of a workflow.

        Raises:
            EncryptionError: it cannot be decrypted.
        """
        return await self.insist(lambda: self._values.record(address), f"read the record of {address}")

    async def begin(self, place: Place, root: Root) -> None:
        """Publish the message that begins a stored workflow; may be repeated.

        Raises:
            NoRoom: the queue has no room for it now.
        """
        node = await self._node(place, root, root.start)
        if not node.queue:
            lane = parent_of(place, root).lane
            address, task = place.address(root.start, place.queue, lane), Envelope(START, self._now())
            await self._submit(place, root, address, task)
            return
        marks: dict[int, Mark] = {}
        await self._begin(place, root, root.start, node, Slot(), marks)
        await self._mark(place, root, marks)

    async def end(self, place: Place, root: Root, failure: Failure) -> None:
        """End a workflow as failed, unless it has ended."""
        await self._end(place, root, Outcome.FAILED, failure=failure)

    async def settled(
        self, address: TaskAddress, envelope: Envelope | None, final: Record, *, goes_on: bool = False
    ) -> Onward | None:
        """Do all that follows from the end of a step; may be repeated.

        Args:
            address: the step.
            envelope: its task; None if it cannot be read.
            final: its record, which is stored.
            goes_on: whether the next step may run in its place: no other worker can have published it.

        Returns:
            The next step, if it is to run in the place of this one. All that remains to be done follows from
            its end, or from this one's if it is delivered again.

        Raises:
            NoRoom: a stream has no room for what follows; try again later.
        """
        try:
            place, number = self._place(address, envelope)
        except ValueError:
            return None
        # It was looked at when the step began; should it have ended since, what follows finds that.
        root = self._flows.known_root(place) or await self.root(place)
        if root is None or number >= root.tasks:
            return None
        try:
            return await self._follow(place, root, address, number, final, goes_on=goes_on)
        except FlowsFull as error:
            raise NoRoom(f"workflows (spec.limits.workflowBytes): {error}") from None
        except FlowGone:
            log.info("workflow gone", extra={"workflow": place.flow, "task": address.id})
        except EnvelopeInvalid as error:
            _not_readable(place, error)
        return None

    async def _follow(
        self, place: Place, root: Root, address: TaskAddress, number: int, final: Record, *, goes_on: bool
    ) -> Onward | None:
        """Do what follows from the end of a step, as `settled`."""
        node = await self._node(place, root, number)
        slot, mark = slot_of(address, node, final)
        if root.ended is not None:
            # Too late for what follows; but the mark tells which steps need not run again.
            await self._mark(place, root, {number: mark})
            return None
        if mark in {Mark.FAILED, Mark.CANCELLED} and root.on_failure is OnFailure.STOP:
            await self._mark(place, root, {number: mark})
            await self._end(place, root, Outcome.FAILED, failed=node.name, failure=_failure(node, final))
            return None
        came = Came(number, slot)
        if mark is not Mark.SUCCEEDED or not (tasks := await self._following_tasks(place, root, node)):
            await self._carry_on(place, root, [came], {number: mark})
            return None
        if goes_on and (onward := await self._onward(place, root, address, came, tasks)) is not None:
            return onward if await self._still_open(place, root, number, mark) else None
        # Beside each other: this mark is not the last one while a task follows.
        await each((self._mark(place, root, {number: mark}), self._carry_on(place, root, [came], {})))
        return None

    async def _following_tasks(self, place: Place, root: Root, node: Node) -> list[tuple[int, Node]]:
        """Return the steps after one if these are all that follow: no join, and nothing that ran before."""
        following = [(number, await self._node(place, root, number)) for number, _ in node.next]
        return [] if any(one.join or one.given for _, one in following) else following

    async def _onward(
        self, place: Place, root: Root, address: TaskAddress, came: Came, following: list[tuple[int, Node]]
    ) -> Onward | None:
        """Return the step after one if it is the only one, and may run in its place."""
        number, node = following[0]
        there = place.address(number, node.queue, node.lane)
        if len(following) > 1 or replace(there, id="") != replace(address, id=""):
            return None
        try:
            envelope = await self._values.task(place, root, there, node, came.slot)
        except (GalleyError, Unfit):
            return None  # publishing it meets the same, and says what becomes of it
        task = self._task(place, root, there, envelope)
        return Onward(there, task) if self.here(there, task) else None

    async def _still_open(self, place: Place, root: Root, number: int, mark: Mark) -> bool:
        """Mark a step that ended, and return whether its workflow has not ended by then."""
        known = self._flows.known_root(place)
        new = root.small and known is not None and known.marks[number] == Mark.WAITING
        now = await self._mark(place, root, {number: mark})
        if now is None or not new:  # nothing of the root was written, or read
            now = await self.root(place)
        return now is not None and now.ended is None

    def _place(self, address: TaskAddress, envelope: Envelope | None) -> tuple[Place, int]:
        flow, number = parse_step(address.id)
        home = envelope.flow if envelope is not None and envelope.flow else address.queue
        return Place(address.namespace, home, flow), number

    async def _node(self, place: Place, root: Root, number: int) -> Node:
        return await self.insist(
            lambda: self._flows.node(place, root, number), f"read the plan of {place.flow}"
        )

    async def _carry_on(self, place: Place, root: Root, came: list[Came], marks: dict[int, Mark]) -> None:
        """Hand on what came, as far as it leads, then mark the steps that ended."""
        slots = {one.number: one.slot for one in came}
        # A plan that leads back to itself would have no end.
        for _ in range(root.nodes + 1):
            if not came:
                break
            further: dict[int, list[tuple[int, Slot]]] = {}
            for one in came:
                for number, slot in (await self._node(place, root, one.number)).next:
                    further.setdefault(number, []).append((slot, one.slot))
            # One level at a time, and all of it at once: writes to the same join become one.
            found = await each(
                self._arrived(place, root, number, arrivals, marks) for number, arrivals in further.items()
            )
            came = [one for one in found if one is not None]
        await self._mark(place, root, marks, slots)

    async def _arrived(
        self, place: Place, root: Root, number: int, arrivals: list[tuple[int, Slot]], marks: dict[int, Mark]
    ) -> Came | None:
        """Take in what arrived at a node; return what it hands on at once, if it does."""
        node = await self._node(place, root, number)
        if any(at >= max(node.join, 1) for at, _ in arrivals):
            raise EnvelopeInvalid(f"a plan whose node {number} has fewer sources than lead to it")
        if not node.join:
            return await self._begin(place, root, number, node, arrivals[0][1], marks)

        fired = False

        def arrive(slots: tuple[Slot | None, ...]) -> tuple[Slot | None, ...]:
            nonlocal fired
            fired = None in slots
            for at, slot in arrivals:
                slots = with_slot(slots, at, slot)
            return slots

        keep = self._kept(root)
        failpoint("flow.before_join")
        slots = await self._flows.change_join(place, number, node.join, keep, arrive)
        if None in slots:
            return None
        if fired and self.measures is not None:
            self.measures.joined()
        if not node.collect:
            failed = next((slot.failed for slot in slots if slot is not None and slot.failed), None)
            if failed is not None:
                return Came(number, Slot(failed=failed))
        return Came(number, Slot(join=number))

    async def _begin(  # noqa: PLR0917 - a node and what came to it
        self, place: Place, root: Root, number: int, node: Node, source: Slot, marks: dict[int, Mark]
    ) -> Came | None:
        """Publish the task of a step, or skip it; return what that hands on at once, if it does."""
        if node.given:
            marks[number] = Mark.SUCCEEDED
            return Came(number, Slot(task=node.given, queue=node.queue))
        if source.failed is not None:
            marks[number] = Mark.SKIPPED
            return Came(number, Slot(failed=source.failed))
        address = place.address(number, node.queue, node.lane)
        try:
            await self._publish(place, root, address, node, source)
        except (Refused, ObjectError, EncryptionError, NotAllowed, TooLarge, Unfit) as error:
            # It cannot run, now or later: that is its outcome.
            hint = f"; {error.hint}" if isinstance(error, GalleyError) and error.hint else ""
            reason = error.reason if isinstance(error, GalleyError) else STEP_INVALID
            failure = Failure(reason, f"the step could not be submitted: {error}{hint}"[:2000])
            return await self._never_ran(place, root, address, number, node, failure, marks)
        return None

    async def _never_ran(  # noqa: PLR0917
        self, place: Place, root: Root, address: TaskAddress, number: int, node: Node, failure: Failure,
        marks: dict[int, Mark],
    ) -> Came | None:  # fmt: skip
        log.warning("step not submitted", extra={"task": address.id, "error": failure.message})
        now = self._now()
        final = Record(
            State.DONE, 0, handler=node.name, lane=address.lane, submitted_at=now, ended_at=now,
            outcome=Outcome.FAILED, failure=failure,
        )  # fmt: skip
        if node.queue in ("", self._queue):
            await self._ledger.write(address, final, 0, self.kept(root))
        slot, mark = slot_of(address, node, final)
        marks[number] = mark
        if mark is Mark.FAILED and root.on_failure is OnFailure.STOP:
            await self._mark(place, root, marks)
            await self._end(place, root, Outcome.FAILED, failed=node.name, failure=_failure(node, final))
            return None
        return Came(number, slot)

    async def _publish(
        self, place: Place, root: Root, address: TaskAddress, node: Node, source: Slot
    ) -> None:
        envelope = await self.insist(
            lambda: self._values.task(place, root, address, node, source), f"make task {address}"
        )
        await self._submit(place, root, address, envelope)

    async def _submit(self, place: Place, root: Root, address: TaskAddress, envelope: Envelope) -> None:
        failpoint("flow.before_task")
        task = self._task(place, root, address, envelope)
        try:
            await self.insist(
                lambda: self._publisher.publish(address, task, chosen_id=True), f"publish {address}"
            )
        except QueueFull:
            # What is full may be full of steps that wait for this: so by the other stream.
            if address.queue != self._queue:
                raise NoRoom(f"queue {address.queue} is full") from None
            body = await self._broker.payloads.task_bytes(address, task)
            await self._ledger.plan(address, body, task.not_before or self._now())

    def _task(self, place: Place, root: Root, address: TaskAddress, envelope: Envelope) -> Envelope:
        """Return the task of a step as it is submitted now."""
        deadline = root.deadline if envelope.deadline is None else min(envelope.deadline, root.deadline)
        home = place.queue if address.queue != place.queue else ""
        return replace(envelope, submitted_at=self._now(), deadline=deadline, flow=home)

    async def _mark(
        self, place: Place, root: Root, marks: dict[int, Mark], slots: dict[int, Slot] | None = None
    ) -> Root | None:
        """Mark steps as ended; if all have, end the workflow. Return the root, if it was written.

        Args:
            place: the workflow.
            root: what it is.
            marks: of the steps that have ended.
            slots: what is known of what they hand on.
        """
        if not marks:
            return None
        failpoint("flow.before_mark")
        if root.small:
            known = self._flows.known_root(place)
            if known is not None and (whole := _marked(known, marks)).complete and known.ended is None:
                # Marks are not taken back: so these are the last ones, and are written with the end.
                await self._complete(place, whole, slots or {}, marks)
                return None
            whole = await self._change_root(place, root, lambda now: _marked(now, marks))
        else:
            parts: dict[int, dict[int, Mark]] = {}
            for number, mark in marks.items():
                parts.setdefault(number // WIDTH, {})[number % WIDTH] = mark
            full = [
                part
                for part in await each(
                    self._mark_part(place, root, part, some) for part, some in parts.items()
                )
                if part is not None
            ]
            if not full:
                return None
            done = dict.fromkeys(full, Mark.SUCCEEDED)
            whole = await self._change_root(place, root, lambda now: _marked(now, done))
        if whole.complete and whole.ended is None:
            await self._complete(place, whole, slots or {}, {})
        return whole

    async def _mark_part(self, place: Place, root: Root, part: int, marks: dict[int, Mark]) -> int | None:
        def change(now: str) -> str:
            for number, mark in marks.items():
                now = with_mark(now, number, mark)
            return now

        now = await self._flows.change_marks(place, root, part, self._kept(root), change)
        return part if Mark.WAITING not in now else None

    async def _complete(
        self, place: Place, root: Root, slots: dict[int, Slot], unwritten: dict[int, Mark]
    ) -> None:
        """End a workflow all of whose steps have ended."""
        marks = await self.insist(lambda: self._flows.marks(place, root), f"read marks of {place.flow}")
        bad = next((at for at, mark in enumerate(marks) if mark in {Mark.FAILED, Mark.CANCELLED}), None)
        if bad is not None:
            node = await self._node(place, root, bad)
            address = place.address(bad, node.queue)
            final = await self._values.record(address)
            failure = Failure("StepFailed", f"step {node.name}")
            failure = failure if final is None else _failure(node, final)
            await self._end(
                place, root, Outcome.FAILED, failed=node.name, failure=failure, unwritten=unwritten
            )
            return
        address = outcome_address(place.namespace, place.queue, place.flow)
        try:
            result = await self.insist(
                lambda: self._values.result(place, root, address, slots.get(root.out)),
                f"result of {place.flow}",
            )
        except (ObjectError, EncryptionError, Unfit) as error:
            failure = Failure("ResultNotStored", f"the result of the workflow could not be made: {error}")
            await self._end(place, root, Outcome.FAILED, failure=failure, unwritten=unwritten)
            return
        await self._end(place, root, Outcome.SUCCEEDED, result=result, unwritten=unwritten)

    async def _end(
        self, place: Place, root: Root, outcome: Outcome, *, failed: str = "", failure: Failure | None = None,
        result: Record | None = None, unwritten: dict[int, Mark] | None = None,
    ) -> None:  # fmt: skip
        """Write how a workflow ended, unless that is decided; then tell those who work for it."""
        address = outcome_address(place.namespace, place.queue, place.flow)
        now = self._now()
        final = replace(
            result or Record(State.DONE, 1), handler=place.flow, submitted_at=root.created_at,
            started_at=root.created_at, ended_at=now, outcome=outcome, failure=failure, uid=root.uid,
            labels=root.labels, digest=root.digest,
        )  # fmt: skip
        failpoint("flow.before_end")
        written = await self._ledger.write(address, final, 0, self._keep_seconds)
        if isinstance(written, Beaten):
            stored = await self._ledger.read(address, written.by)
            if stored is not None and stored.record.outcome is not None:
                outcome = stored.record.outcome
        elif self.measures is not None:
            self.measures.workflow_ended(outcome, (now - root.created_at).total_seconds())
        keep = self._keep_seconds if outcome is Outcome.SUCCEEDED else self._kept(root)
        await self._change_root(
            place, root, lambda it: ended(_marked(it, unwritten or {}), outcome, now, failed), keep
        )
        if outcome is Outcome.SUCCEEDED:
            await self._forget(place)
        else:
            self._stop(place, root)
        if root.parent:
            await self._wake(place, root)
        log.info("workflow ended", extra={"workflow": place.flow, "outcome": str(outcome), "step": failed})

    async def _wake(self, place: Place, root: Root) -> None:
        try:
            await wake(self._broker, place, root, self._now())
        except BrokerError as error:
            log.info("task not woken", extra={"workflow": place.flow, "error": str(error)})

    async def _forget(self, place: Place) -> None:
        try:
            await self._flows.forget_parts(place)
        except BrokerError as error:
            log.info("workflow not cleared", extra={"workflow": place.flow, "error": str(error)})

    def _stop(self, place: Place, root: Root) -> None:
        """Have workers stop what runs of a workflow; each step looks at it before it begins."""
        request = msgspec.json.encode(Request(flow=place.flow, home=place.queue))
        for queue in {self._queue, place.queue, *root.queues}:
            self._broker.publish(topology.control_subject(place.namespace, queue, Verb.CANCEL), request)

    async def _change_root(
        self, place: Place, root: Root, change: Callable[[Root], Root], keep: int | None = None
    ) -> Root:
        return await self._flows.change_root(place, keep or self._kept(root), change)

    def _kept(self, root: Root) -> int:
        """Return how long the parts of a workflow are kept: until its deadline, and a day to run it again."""
        return max(1, int((root.deadline - self._now() + timedelta(days=1)).total_seconds()))

    def kept(self, root: Root) -> int:
        """Return how long the record of a step is kept."""
        return max(self._keep_seconds, STEP_KEPT_SECONDS, self._kept(root))

    async def insist(self, ask: Callable[[], Awaitable[T]], action: str) -> T:
        """Return an answer, asking again while the broker, the key service or the object store has none."""
        tries = 0
        while True:
            try:
                return await ask()
            except NotAllowed:
                raise
            except (BrokerError, KeyServiceUnavailable, ObjectStoreUnavailable) as error:
                if tries % 40 == 0:
                    log.warning("workflow waits", extra={"action": action, "error": str(error)})
                tries += 1
                await asyncio.sleep(_PAUSE_SECONDS)


def slot_of(address: TaskAddress, node: Node, final: Record) -> tuple[Slot, Mark]:
    """Return what the end of a step hands on, and its mark."""
    if final.outcome is Outcome.SUCCEEDED:
        if final.large is None and not final.sealed and len(final.result) <= SMALL_RESULT:
            return Slot(value=(final.result,)), Mark.SUCCEEDED
        return Slot(task=address.id, queue=address.queue), Mark.SUCCEEDED
    failure = final.failure or Failure("Cancelled", "it was cancelled")
    slot = Slot(failed=Failed(node.name, failure.reason, failure.message[:500]))
    if node.tolerated:
        return slot, Mark.COLLECTED
    return slot, Mark.CANCELLED if final.outcome is Outcome.CANCELLED else Mark.FAILED


def _not_readable(place: Place, error: EnvelopeInvalid) -> None:
    """Its steps end as other tasks do, and what is stored of it expires."""
    log.warning("workflow not readable", extra={"workflow": place.flow, "error": str(error)})


def _failure(node: Node, final: Record) -> Failure:
    failure = final.failure or Failure("Cancelled", "it was cancelled")
    return Failure("StepFailed", f"step {node.name}: {failure.reason}: {failure.message}"[:4000])


def _marked(root: Root, marks: dict[int, Mark]) -> Root:
    now = root.marks
    for number, mark in marks.items():
        now = with_mark(now, number, mark)
    return root if now == root.marks else replace(root, marks=now)
