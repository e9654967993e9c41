"""Workflows as a whole: submit, look at, wait for, cancel, and run again from where they failed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.audit import Action
from galley.broker import topology
from galley.broker.audit import note
from galley.broker.cancel import Cancelled, cancel_flow
from galley.broker.connection import Broker
from galley.broker.encryption_rules import EncryptionRules
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused, NotAllowed
from galley.broker.flow_values import FlowGone, FlowsFull, Place
from galley.broker.flows import Flows
from galley.broker.in_place import running_in_place
from galley.broker.publish import Publisher
from galley.broker.records import Records
from galley.calls import Call, check_queue_name
from galley.envelope import Envelope, encode
from galley.error_group import first_of, ungrouped
from galley.errors import LaneNotEnabled, QueueNotFound, TaskCancelled, TaskFailed
from galley.handle import AsyncHandle
from galley.lanes import Lane
from galley.record import Outcome, State
from galley.task_id import new_task_id
from galley.typed import Typed
from galley.when import When
from galley.workflow.continuation import DAY_SECONDS, EPOCH, check_seconds, rule_of
from galley.workflow.errors import (
    WorkflowCancelled,
    WorkflowConflict,
    WorkflowFailed,
    WorkflowInvalid,
    WorkflowNotFailed,
    WorkflowNotFound,
    WorkflowsFull,
)
from galley.workflow.plan import START, WIDTH, Compiled, Draft, Node, chunked, compiled, numbered
from galley.workflow.shape import Item
from galley.workflow.state import Mark, OnFailure, Root, ended, is_workflow_id, outcome_address

R = TypeVar("R")

_PATIENCE_SECONDS: Final = 30.0
_SMALL_BYTES: Final = 16 * 1024
"""Bytes of a plan up to which the room that was there a second ago is enough."""
_CHECKED_SECONDS: Final = 5.0
"""How long what was seen of a queue counts: a program that submits many workflows asks once."""
_ASKED: Final = 100
"""Steps that are asked whether they run; one that may still run has its record read."""
_LOOKS: Final = 20
_LOOK_SECONDS: Final = 0.05


class StepStatus(Struct, frozen=True):
    """A step of a workflow, as it stood when it was asked about."""

    name: str
    state: str
    """`Waiting`, `Running`, `Succeeded`, `Failed`, `Cancelled` or `Skipped`. Of those that have not ended,
    the first 100 are asked whether they run."""
    queue: str
    task_id: str
    """Its task, which exists once all before it has succeeded."""
    after: tuple[str, ...]
    """The steps it depends on; of a wide group the first and the last."""


class WorkflowStatus(Struct, frozen=True):
    """A workflow, as it stood when it was asked about."""

    queue: str
    id: str
    phase: str
    """`Running`, `Succeeded`, `Failed` or `Cancelled`."""
    steps: int
    succeeded: int
    failed: int
    skipped: int
    cancelled: int
    created_at: datetime
    deadline: datetime
    ended_at: datetime | None = None
    failed_step: str = ""
    """The step whose failure ended it."""
    message: str = ""
    """Why it failed."""
    continued_by: str = ""
    """The workflow that runs what is left of it."""
    continues: str = ""
    labels: dict[str, str] | None = None
    uid: str = ""

    @property
    def done(self) -> int:
        """How many steps have ended."""
        return self.succeeded + self.failed + self.skipped + self.cancelled

    @property
    def progress(self) -> str:
        """How far it is, such as `37 of 100`."""
        return f"{self.done} of {self.steps}"


_STATES: Final = {
    Mark.WAITING: "Waiting",
    Mark.SUCCEEDED: "Succeeded",
    Mark.FAILED: "Failed",
    Mark.COLLECTED: "Failed",
    Mark.CANCELLED: "Cancelled",
    Mark.SKIPPED: "Skipped",
}
_PHASES: Final = {
    None: "Running",
    Outcome.SUCCEEDED: "Succeeded",
    Outcome.FAILED: "Failed",
    Outcome.CANCELLED: "Cancelled",
}


class AsyncWorkflow(Generic[R]):
    """A submitted workflow: one handle for the whole."""

    __slots__ = ("_broker", "_flows", "_outcome", "_owner", "existed", "id", "queue")

    def __init__(
        self, owner: "AsyncWorkflows", broker: Broker, flows: Flows, place: Place,
        result: Typed | None = None, *, existed: bool = False,
    ) -> None:  # fmt: skip
        self._owner, self._broker, self._flows = owner, broker, flows
        self.queue, self.id = place.queue, place.flow
        self.existed = existed
        """Whether it was there before this submission, which then added nothing."""
        self._outcome = AsyncHandle[R](broker, outcome_address(*place), None, result)

    def __repr__(self) -> str:
        return f"<workflow {self.queue}/{self.id}>"

    @property
    def result_type(self) -> Typed | None:
        """What is known of the type of its result."""
        return self._outcome.result_type

    @property
    def _place(self) -> Place:
        return Place(self._outcome.address.namespace, self.queue, self.id)

    async def result(self, within: float | None = None, *, hold_slot: bool = False) -> R:
        """Wait until the workflow has ended and return its result.

        Of a chain that is the result of its last step, of a group the list of results, of a graph an object
        with the results of its last steps.

        Args:
            within: seconds to wait at most; None waits without a limit.
            hold_slot: as in `AsyncHandle.result`. A handler had better return the workflow's id and end.

        Raises:
            WorkflowFailed: a step failed.
            WorkflowCancelled: it was cancelled.
            WorkflowNotFound: there is none of that id.
            ResultTimeout, ResultMismatch, WaitsForOwnQueue, WaitsInCircle: as `AsyncHandle.result`.
            DecryptionKeyMissing, PayloadAltered, PlaintextRefused, KeyServiceUnavailable: as there.
            ObjectMissing, ObjectDamaged, ObjectStoreUnavailable, BrokerUnreachable: as there.
        """
        await self._known()
        try:
            return await self._outcome.result(within, hold_slot=hold_slot)
        except TaskFailed as error:
            raise WorkflowFailed(self.queue, self.id, error.why, error.message) from None
        except TaskCancelled:
            raise WorkflowCancelled(self.queue, self.id) from None

    async def wait(self, within: float | None = None, *, hold_slot: bool = False) -> WorkflowStatus:
        """Wait until the workflow has ended, however it did, and return its status.

        Raises:
            WorkflowNotFound, ResultTimeout, WaitsForOwnQueue, WaitsInCircle, BrokerUnreachable: as `result`.
        """
        await self._known()
        await self._outcome.wait(within, hold_slot=hold_slot)
        return await self.status()

    async def _known(self) -> None:
        self._broker.check_usable()
        if await self._flows.root(self._place) is None:
            stored = await Records(self._broker).look_up(self._outcome.address)
            if stored is None:
                raise WorkflowNotFound(self.queue, self.id)

    async def status(self) -> WorkflowStatus:
        """Return how far the workflow is.

        Raises:
            WorkflowNotFound: there is none of that id, or it has expired.
            BrokerUnreachable: the broker does not answer.
        """
        self._broker.check_usable()
        root = await self._owner.settled_root(self._place)
        return await self._owner.status_of(self._place, root)

    async def steps(self) -> list[StepStatus]:
        """Return all steps, in the order in which they were written.

        Raises:
            WorkflowNotFound: there is none of that id; of one that succeeded, the steps are not kept.
            DecryptionKeyMissing, PayloadAltered, KeyServiceUnavailable: its plan is encrypted.
            BrokerUnreachable: the broker does not answer.
        """
        self._broker.check_usable()
        return await self._owner.steps_of(self._place)

    async def cancel(self) -> Cancelled:
        """Cancel the workflow: no further step begins, and what runs is stopped.

        Raises:
            WorkflowNotFound: there is none of that id.
            NotAllowed: the credentials are not those of a manager of the queue.
            BrokerUnreachable: the broker does not answer; cancelling again is safe.
        """
        self._broker.check_usable()
        return await self._owner.cancel(self._place)

    async def redrive(self) -> "AsyncWorkflow[R]":
        """Run what did not succeed of a workflow that failed or was cancelled, as a new workflow.

        Steps that succeeded do not run again; their results count. Doing it twice returns the same.

        Raises:
            WorkflowNotFailed: it has not ended, or it succeeded.
            WorkflowNotFound: there is none of that id, or its plan has expired: a day after its deadline.
            WorkflowsFull, NotAllowed, BrokerUnreachable: as `AsyncClient.submit`.
        """
        self._broker.check_usable()
        return await self._owner.redrive(self._place, self._outcome.result_type)


class AsyncWorkflows:
    """The workflows of a namespace."""

    def __init__(
        self, broker: Broker, namespace: str, publisher: Publisher,
        task: Callable[[Call[Any], When], tuple[TaskAddress, Envelope]],
    ) -> None:  # fmt: skip
        """Args: task: returns a call as it travels."""
        self._broker, self._namespace, self._publisher, self._task = broker, namespace, publisher, task
        self._flows = Flows(broker)
        self._rules = EncryptionRules(broker)
        self._known_lanes: dict[str, tuple[float, tuple[Lane, ...]]] = {}
        self._room_seen: dict[str, float] = {}

    async def submit(
        self, item: Item, *, id: str | None = None, when: When | None = None,  # noqa: A002 - its name
        on_failure: OnFailure | str = OnFailure.STOP, timeout_seconds: float = DAY_SECONDS,
        labels: dict[str, str] | None = None, uid: str = "",
    ) -> AsyncWorkflow[Any]:  # fmt: skip
        """Submit a workflow, and return when the broker has all of it on disk.

        Args:
            item: a chain, group or graph.
            id: an id of your own, 1 to 48 characters of A-Z, a-z, 0-9 and `-`. The same workflow under the
                same id is the same one: nothing is stored again, and `existed` is true.
            when: lane, timeout and retries of its steps; those of their calls come before them.
            on_failure: `stop` ends it when a step has failed for good, `continue` goes on with what does not
                depend on that step, `collect` makes failures of members of groups a part of the results.
            timeout_seconds: how long all of it may take, at most 30 days; then steps fail.
            labels: words to find it by.
            uid: of the Workflow object it is submitted for.

        Raises:
            WorkflowInvalid: it has a cycle, needs what is not there, has too many steps, or a rule that a
                step cannot have; nothing was stored.
            WorkflowConflict: the id is in use for another workflow.
            WorkflowsFull: the queue has no room for it.
            QueueNotFound, LaneNotEnabled, QueueFull, SubmissionInvalid, LabelInvalid: not accepted.
            EncryptionRequired, QueueNotEncrypted, KeyServiceUnavailable: as `AsyncClient.submit`.
            BrokerUnreachable, BrokerSilent: no answer; submitting it again is safe with an id of your own.
            NotAllowed: the credentials are of another queue or role.
        """
        self._broker.check_usable()
        rule, timeout_seconds = rule_of(on_failure), check_seconds(timeout_seconds)
        flow = new_task_id() if id is None else check_workflow_id(id)
        work = compiled(item, collect=rule is OnFailure.COLLECT)
        place = Place(self._namespace, check_queue_name(work.queue), flow)
        tasks = {draft.number: self._task_of(draft, when) for draft in work.drafts if draft.call is not None}
        used = {(address.queue, address.lane) for address, _ in tasks.values()}
        await self._check_queues(used, work.queue)
        encoded = {number: (address.lane, Raw(encode(task))) for number, (address, task) in tasks.items()}
        nodes, start = numbered(work, lambda draft, _: encoded[draft.number])
        now = datetime.now(UTC)
        root = _root(place, work, nodes, start, now, now + timedelta(seconds=timeout_seconds))
        root = replace(
            root, on_failure=rule, labels=labels or None, uid=uid, digest=_digest(nodes, rule) if id else ""
        )
        existed = await self._store(place, root, nodes)
        return AsyncWorkflow(self, self._broker, self._flows, place, _result(work.out), existed=existed)

    def _task_of(self, draft: Draft, when: When | None) -> tuple[TaskAddress, Envelope]:
        call = draft.call
        assert call is not None
        if call.large or call.files:
            raise WorkflowInvalid(
                f"step {draft.name!r}", "has files, or an input above 256 KiB",
                "have a step before it return the data: results may have 64 MiB, and files",
            )  # fmt: skip
        address, envelope = self._task(replace(call, partial=None, cache=None), when or When())
        return address, replace(envelope, submitted_at=EPOCH)

    async def _check_queues(self, used: set[tuple[str, Lane]], first: str) -> None:
        """Check that queues and lanes are there, and how tasks of theirs are encrypted.

        Args:
            used: what the steps use.
            first: the queue of the first step, which keeps the workflow.
        """
        for queue, lane in used:
            try:
                enabled = await self._lanes(queue)
            except NotAllowed:
                if queue == first:
                    raise
                raise WorkflowInvalid(
                    f"a step of queue {queue!r}", f"these credentials are of queue {first!r} alone",
                    f"keep the workflow in one queue, or have a handler of {first!r} submit to {queue!r} "
                    "with credentials of that queue, and wait for the result",
                ) from None  # fmt: skip
            if lane not in enabled:
                raise LaneNotEnabled(queue, lane, enabled)
            address = TaskAddress(self._namespace, queue, lane, Kind.DIRECT, "")
            if not self._rules.settled(address):
                await self._rules.check(address, _PATIENCE_SECONDS)

    async def _lanes(self, queue: str) -> tuple[Lane, ...]:
        """Return the lanes of a queue, as they were some seconds ago at most."""
        now = asyncio.get_running_loop().time()
        known = self._known_lanes.get(queue)
        if known is not None and now - known[0] < _CHECKED_SECONDS:
            return known[1]
        info = await stream_info(self._broker, topology.work_stream(self._namespace, queue))
        if info is None:
            raise QueueNotFound(self._namespace, queue)
        lanes = tuple(Lane(word) for word in info["config"]["metadata"][topology.LANES_KEY].split(","))
        self._known_lanes[queue] = now, lanes
        return lanes

    async def _store(self, place: Place, root: Root, nodes: list[Node]) -> bool:
        """Store a workflow: its root, its plan, and then the one message that begins it."""
        chunks, first = chunked(nodes)
        root = replace(root, chunks=first)
        await self._check_room(place, sum(map(len, chunks)))
        keep = int((root.deadline - root.created_at).total_seconds() + DAY_SECONDS)
        existed = False
        try:
            if not root.digest:
                # Its id was made for this call alone, so no other plan can be there.
                await self._store_new(place, root, chunks, keep)
                chunks = []
            elif not await self._flows.create(place, root, keep):
                present = await self._flows.root(place)
                if present is None or present.digest != root.digest:
                    raise WorkflowConflict(place.queue, place.flow)
                existed, root = True, present
                if root.ended is not None:
                    return True
            for index, body in enumerate(chunks):
                await self._flows.write_chunk(place, index, body, root, keep)
        except FlowsFull:
            raise await self._full(place) from None
        await self._begin(place, root, nodes[root.start])
        return existed

    async def _store_new(self, place: Place, root: Root, chunks: list[bytes], keep: int) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                made = group.create_task(self._flows.create(place, root, keep))
                for index, body in enumerate(chunks):
                    group.create_task(self._flows.write_chunk(place, index, body, root, keep))
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None
        if not made.result():
            raise WorkflowConflict(place.queue, place.flow)

    async def _begin(self, place: Place, root: Root, node: Node) -> None:
        now = datetime.now(UTC)
        if node.queue:
            envelope = msgspec.json.decode(node.task, type=Envelope)
            home = place.queue if node.queue != place.queue else ""
            deadline = root.deadline if envelope.deadline is None else min(root.deadline, envelope.deadline)
            task = replace(envelope, submitted_at=now, deadline=deadline, flow=home)
            address = place.address(root.start, node.queue, node.lane)
        else:
            lanes = await self._lanes(place.queue)
            lane = Lane.NORMAL if Lane.NORMAL in lanes else lanes[0]
            task, address = Envelope(START, now), place.address(root.start, place.queue, lane)
        await self._publisher.publish(address, task, chosen_id=True)

    async def _check_room(self, place: Place, size: int) -> None:
        now = asyncio.get_running_loop().time()
        if size < _SMALL_BYTES and now - self._room_seen.get(place.queue, float("-inf")) < 1.0:
            return
        info = await stream_info(self._broker, place.stream)
        if info is None:
            raise WorkflowInvalid(
                f"queue {place.queue!r}", "has no room for workflows yet",
                "let the operator, or galley dev, of this release set it up",
            )  # fmt: skip
        limit = int(info["config"].get("max_bytes") or -1)
        if limit > 0 and info["state"]["bytes"] + size > topology.FLOW_SHARE * limit:
            raise WorkflowsFull(place.queue, int(info["state"]["bytes"]), limit)
        self._room_seen[place.queue] = now

    async def _full(self, place: Place) -> WorkflowsFull:
        info = await stream_info(self._broker, place.stream)
        used, limit = (0, 0) if info is None else (info["state"]["bytes"], info["config"]["max_bytes"])
        return WorkflowsFull(place.queue, used, limit)

    def get(
        self, queue: str, id: str, result: Typed | None = None,  # noqa: A002 - its name
    ) -> AsyncWorkflow[Any]:  # fmt: skip
        """Return a handle on a workflow submitted earlier, by this or another program.

        Args:
            queue: the queue of its first step.
            id: its own.
            result: what is known of the type of its result.

        Raises:
            WorkflowInvalid, QueueNameInvalid: there can be no such workflow or queue.
        """
        place = Place(self._namespace, check_queue_name(queue), check_workflow_id(id))
        return AsyncWorkflow(self, self._broker, self._flows, place, result)

    async def root_of(self, place: Place) -> Root:
        """Return the root of a workflow.

        Raises:
            WorkflowNotFound: there is none.
        """
        try:
            root = await self._flows.root(place)
        except BrokerRefused:
            if await stream_info(self._broker, topology.work_stream(place.namespace, place.queue)) is None:
                raise QueueNotFound(place.namespace, place.queue) from None
            raise
        if root is None:
            raise WorkflowNotFound(place.queue, place.flow)
        return root

    async def settled_root(self, place: Place) -> Root:
        """Return the root of a workflow, with its end if there is one.

        Its outcome is recorded first, and written into the root a moment later, unless that process died.

        Raises:
            WorkflowNotFound: there is none.
        """
        root, stored = await self.root_of(place), None
        for _ in range(_LOOKS):
            if root.ended is not None:
                return root
            stored = await Records(self._broker).look_up(outcome_address(*place))
            if stored is None or stored.record.outcome is None:
                return root
            await asyncio.sleep(_LOOK_SECONDS)
            root = await self.root_of(place)
        if root.ended is not None or stored is None or stored.record.outcome is None:
            return root
        return ended(root, stored.record.outcome, stored.record.ended_at)

    async def status_of(self, place: Place, root: Root, *, why: bool = True) -> WorkflowStatus:
        """Return how far a workflow is."""
        if root.ended is Outcome.SUCCEEDED:
            marks = ""
        else:
            marks = await self._flows.marks(place, root)
        # As in the list of steps: what had not run when the whole ended does not run any more.
        never = marks.count(Mark.WAITING) if root.ended is not None else 0
        message = ""
        if why and root.ended is Outcome.FAILED:
            address = outcome_address(*place)
            stored = await Records(self._broker).look_up(address)
            if stored is not None:
                record = await self._broker.payloads.look_at_record(address, stored.record)
                message = record.failure.message if record.failure is not None else ""
        return WorkflowStatus(
            place.queue, root.id, _PHASES[root.ended], root.tasks,
            marks.count(Mark.SUCCEEDED) if marks else root.tasks,
            marks.count(Mark.FAILED) + marks.count(Mark.COLLECTED),
            marks.count(Mark.SKIPPED) + never, marks.count(Mark.CANCELLED),
            root.created_at, root.deadline, root.ended_at, root.failed, message, root.continued,
            root.continues, root.labels, root.uid,
        )  # fmt: skip

    async def nodes_of(self, place: Place, root: Root) -> list[Node]:
        """Return the plan of a workflow.

        Raises:
            WorkflowNotFound: it is not there any more.
        """
        try:
            return [await self._flows.node(place, root, number) for number in range(root.nodes)]
        except FlowGone:
            raise WorkflowNotFound(place.queue, place.flow) from None

    async def steps_of(self, place: Place) -> list[StepStatus]:
        """Return the steps of a workflow."""
        root = await self.root_of(place)
        nodes = await self.nodes_of(place, root)
        marks = await self._flows.marks(place, root)
        after = _after(nodes)
        runs = await self._running(place, nodes, marks) if root.ended is None else frozenset()
        return [
            StepStatus(
                node.name, "Running" if number in runs else _state(root, Mark(marks[number])), node.queue,
                node.given or place.address(number).id, after[number],
            )
            for number, node in enumerate(nodes[: root.tasks])
        ]  # fmt: skip

    async def _running(self, place: Place, nodes: list[Node], marks: str) -> frozenset[int]:
        """Return which steps run, of the first ones that have not ended.

        Each has a record once it began, but one that runs in the place of the step before it.
        """
        records = Records(self._broker)
        sources: dict[int, list[int]] = {}
        for number, node in enumerate(nodes):
            for following, _ in node.next:
                sources.setdefault(following, []).append(number)

        def may_run_in_place(number: int) -> bool:
            before = sources.get(number, [])
            return len(before) == 1 and before[0] < len(marks) and marks[before[0]] == Mark.SUCCEEDED

        open_steps = [number for number, mark in enumerate(marks) if mark == Mark.WAITING][:_ASKED]

        async def runs(number: int) -> bool:
            address = replace(place.address(number), queue=nodes[number].queue)
            stored = await records.read(address)
            if stored is None and may_run_in_place(number):
                return await running_in_place(self._broker, address) is not None
            return stored is not None and stored.record.state is State.RUN and not stored.record.handed_back

        with ungrouped():
            async with asyncio.TaskGroup() as group:
                asked = {number: group.create_task(runs(number)) for number in open_steps}
        return frozenset(number for number, answer in asked.items() if answer.result())

    async def cancel(self, place: Place) -> Cancelled:
        """Cancel a workflow."""
        root = await self.root_of(place)
        try:
            outcome = await cancel_flow(self._broker, self._flows, place, root)
        except FlowGone:
            return Cancelled.TOO_LATE
        if outcome is not Cancelled.TOO_LATE:
            where = place.namespace, place.queue
            await note(self._broker, *where, Action.CANCEL, place.flow, detail="workflow")
        return outcome

    async def redrive(
        self, place: Place, result: Typed | None = None,
        check: Callable[[set[str]], Awaitable[None]] | None = None,
    ) -> AsyncWorkflow[Any]:  # fmt: skip
        """Run again what did not succeed of a workflow.

        Args:
            place: the workflow.
            result: what is known of the type of its result.
            check: called with the queues of all that its plan has, before anything changes. Producers write
                plans, and who redrives may have more rights than they.
        """
        root = await self.settled_root(place)
        if root.ended not in (Outcome.FAILED, Outcome.CANCELLED):
            state = "has not ended" if root.ended is None else "succeeded"
            raise WorkflowNotFailed(place.queue, place.flow, state)
        outcome = root.ended
        nodes, marks = await self.nodes_of(place, root), await self._flows.marks(place, root)
        if check is not None:
            await check({node.queue for node in nodes if node.queue})
        again = root.continued or new_task_id()
        now = datetime.now(UTC)
        keep = max(1, int((root.deadline - now).total_seconds() + DAY_SECONDS))
        taken = await self._flows.change_root(
            place, keep, lambda it: it if it.continued else replace(ended(it, outcome, now), continued=again)
        )
        fresh = place._replace(flow=taken.continued)
        given = [
            replace(node, given=node.given or place.address(number).id)
            if number < root.tasks and marks[number] == Mark.SUCCEEDED
            else node
            for number, node in enumerate(nodes)
        ]
        start = root.start
        if start < root.tasks and given[start].given:
            # Its only first step succeeded: a message begins with what follows from that.
            given.append(Node("", ((start, 0),)))
            start = len(given) - 1
        new = replace(
            root, id=fresh.flow, nodes=len(given), start=start, created_at=now,
            deadline=now + (root.deadline - root.created_at), marks="." * len(root.marks), ended=None,
            ended_at=None, failed="", continued="", continues=place.flow, uid="",
            digest=sha256(f"{place.flow}/{root.digest}".encode()).hexdigest()[:16],
        )  # fmt: skip
        existed = await self._store(fresh, new, given)
        detail = f"workflow, as {fresh.flow}"
        await note(self._broker, place.namespace, place.queue, Action.REDRIVE, place.flow, detail=detail)
        return AsyncWorkflow(self, self._broker, self._flows, fresh, result, existed=existed)

    async def list(self, queue: str) -> list[WorkflowStatus]:
        """Return the workflows of a queue, oldest first; ended ones until they expire.

        Raises:
            QueueNotFound, QueueNameInvalid: there is no such queue, or there can be none.
            NotAllowed, BrokerUnreachable: as `submit`.
        """
        self._broker.check_usable()
        check_queue_name(queue)
        found = [
            await self.status_of(Place(self._namespace, queue, root.id), root, why=False)
            async for root in self._flows.all_of(self._namespace, queue)
        ]
        if (
            not found
            and await stream_info(self._broker, topology.work_stream(self._namespace, queue)) is None
        ):
            raise QueueNotFound(self._namespace, queue)
        return sorted(found, key=lambda status: (status.created_at, status.id))


def check_workflow_id(id: str) -> str:  # noqa: A002 - its name
    """Return an id if a workflow can have it.

    Raises:
        WorkflowInvalid: if not.
    """
    if not is_workflow_id(id):
        raise WorkflowInvalid(
            "id", f"{id[:80]!r} is none", "use 1 to 48 characters of A-Z, a-z, 0-9 and -, not - at an end"
        )
    return id


def _state(root: Root, mark: Mark) -> str:
    return "Skipped" if mark is Mark.WAITING and root.ended is not None else _STATES[mark]


def _root(  # noqa: PLR0917 - what a root is made of
    place: Place, work: Compiled, nodes: list[Node], start: int, now: datetime, deadline: datetime
) -> Root:
    marks = "." * (work.tasks if work.tasks <= WIDTH else -(-work.tasks // WIDTH))
    queues = {node.queue for node in nodes} - {"", place.queue}
    return Root(
        place.flow, work.tasks, len(nodes), (), start, work.out.number, now, deadline, marks=marks,
        queues=tuple(sorted(queues)),
    )  # fmt: skip


def _digest(nodes: list[Node], rule: OnFailure) -> str:
    return sha256(msgspec.json.encode((nodes, rule), order="deterministic")).hexdigest()[:16]


def _result(out: Draft) -> Typed | None:
    return out.call.result if out.call is not None else None


def _after(nodes: list[Node]) -> list[tuple[str, ...]]:
    """Return for each node the names of the steps it depends on, through joins."""
    before: list[list[int]] = [[] for _ in nodes]
    for number, node in enumerate(nodes):
        for following, _ in node.next:
            before[following].append(number)
    names: list[tuple[str, ...] | None] = [None] * len(nodes)

    def of(number: int) -> tuple[str, ...]:
        found: list[str] = []
        for one in before[number]:
            found.extend((nodes[one].name,) if nodes[one].name else joined(one))
        return tuple(found) if len(found) <= 8 else (*found[:3], f"... {len(found) - 4} more", found[-1])

    def joined(number: int) -> tuple[str, ...]:
        known = names[number]
        if known is None:
            known = names[number] = of(number)
        return known

    return [of(number) for number in range(len(nodes))]
