"""How far a workflow is: what is stored of that, and what follows from what. Pure.

The root says what the workflow is and whether it has ended. Each step has a mark, one letter, in the root
or, from 101 steps on, in a message for 100 steps each. Each join keeps which of its sources arrived, and with
what.
"""

import re
from enum import StrEnum
from hashlib import sha256
from itertools import pairwise
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.bounds import is_queue_name, is_token, strict
from galley.envelope import WireLabels, in_range
from galley.errors import EnvelopeInvalid
from galley.history import Moment
from galley.lanes import Lane
from galley.record import Outcome
from galley.unreadable import UNREADABLE
from galley.workflow.plan import NODES_MOST, WIDTH
from galley.workflow.shape import ALL_MOST

VERSION: Final = 1

PREFIX: Final = "flow_"
"""What the ids of the tasks of workflows begin with; no other task may have such an id."""

ID_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,46}[A-Za-z0-9])?$"
_ID: Final = re.compile(ID_PATTERN.strip("^$"))
_PARENT: Final = re.compile(rf"({'|'.join(Lane)})\.({'|'.join(Kind)})\.(.+)", re.DOTALL)


WORKFLOW: Final = "galley.dev/workflow"
"""Annotation of a restored Workflow object: the id of the workflow that was submitted for it before."""


class Mark(StrEnum):
    """How a step ended; `.` stands for one that has not."""

    WAITING = "."
    SUCCEEDED = "s"
    FAILED = "f"
    CANCELLED = "c"
    SKIPPED = "k"
    """It did not run, since a step it depends on did not succeed."""
    COLLECTED = "t"
    """It failed or was cancelled, and that is a part of a result."""


class OnFailure(StrEnum):
    """What becomes of a workflow when a step fails."""

    STOP = "stop"
    """It ends as failed: what waits does not begin, and what runs is stopped."""
    CONTINUE = "continue"
    """What does not depend on that step goes on; then the workflow ends as failed."""
    COLLECT = "collect"
    """Failures of members of groups are parts of results; other failures as `continue`."""


class Root(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One workflow."""

    id: Annotated[str, Meta(pattern=strict(ID_PATTERN))]
    tasks: int
    nodes: int
    chunks: tuple[int, ...]
    """Number of the first node in each message of the plan."""
    start: int
    """The node that the first message is for."""
    out: int
    """The node whose value is the result."""
    created_at: Moment
    deadline: Moment
    on_failure: OnFailure = OnFailure.STOP
    v: int = VERSION
    queues: tuple[str, ...] = ()
    """Further queues that run steps."""
    digest: str = ""
    """Of the plan, where the id was chosen by a person."""
    marks: str = ""
    """Of all steps, if they are at most `WIDTH`; else of messages of so many marks: `s` if all have ended."""
    ended: Outcome | None = None
    ended_at: Moment | None = None
    failed: str = ""
    """The step whose failure ended it."""
    continues: str = ""
    """The workflow whose steps this one runs again."""
    continued: str = ""
    """The workflow that runs its steps again."""
    labels: WireLabels | None = None
    uid: str = ""
    """Of the Workflow object it was submitted for."""
    parent: str = ""
    """The task that ends as this does, as `LANE.KIND.ID`; empty if there is none."""

    @property
    def small(self) -> bool:
        """Whether the marks of its steps are in it."""
        return self.tasks <= WIDTH

    @property
    def parts(self) -> int:
        """How many messages of marks there are."""
        return 0 if self.small else -(-self.tasks // WIDTH)

    @property
    def complete(self) -> bool:
        """Whether all steps have ended."""
        return Mark.WAITING not in self.marks


class Failed(Struct, frozen=True, array_like=True):
    """Why a source of a join has no value."""

    step: str
    reason: str
    message: str = ""


class Slot(Struct, frozen=True, array_like=True, omit_defaults=True):
    """What arrived at a join from one source."""

    value: tuple[Raw, ...] = ()
    """A small result, if it is one."""
    task: str = ""
    """The task whose record has the result."""
    queue: str = ""
    """The queue of that task."""
    join: int = -1
    """The join whose value it is."""
    failed: Failed | None = None


Slots = tuple[Slot | None, ...]


def with_mark(marks: str, number: int, mark: Mark) -> str:
    """Return marks with that of a step, unless it has one."""
    if marks[number] != Mark.WAITING:
        return marks
    return f"{marks[:number]}{mark}{marks[number + 1 :]}"


def with_slot(slots: Slots, number: int, slot: Slot) -> Slots:
    """Return what arrived at a join with one more, unless that source arrived before."""
    if slots[number] is not None:
        return slots
    return (*slots[:number], slot, *slots[number + 1 :])


def ended(root: Root, outcome: Outcome, at: Any, failed: str = "") -> Root:
    """Return a workflow that has ended, unless it had before."""
    return root if root.ended is not None else replace(root, ended=outcome, ended_at=at, failed=failed)


def step_id(flow: str, number: int) -> str:
    """Return the id of the task of a step."""
    return f"{PREFIX}{flow}_{number}"


def outcome_id(flow: str) -> str:
    """Return the id under which the outcome of a workflow is recorded, as that of a task."""
    return f"{PREFIX}{flow}"


def is_workflow_id(text: str) -> bool:
    """Return whether a workflow can have that id."""
    return _ID.fullmatch(text) is not None


def workflow_id(name: str, uid: str) -> str:
    """Return the id of the workflow of an object: another one if it is deleted and declared again."""
    return f"{name}-{sha256(uid.encode()).hexdigest()[:8]}"


def is_step(task_id: str) -> bool:
    """Return whether a task is a step of a workflow, or starts one."""
    return task_id.startswith(PREFIX) and task_id.count("_") == 2


def parse_step(task_id: str) -> tuple[str, int]:
    """Return the workflow and the number of a step.

    Raises:
        ValueError: if it is none.
    """
    prefix, flow, number = task_id.split("_")
    if f"{prefix}_" != PREFIX or not number.isdigit():
        raise ValueError(task_id)
    return flow, int(number)


def outcome_address(namespace: str, queue: str, flow: str) -> TaskAddress:
    """Return where the outcome of a workflow is recorded."""
    return TaskAddress(namespace, queue, Lane.NORMAL, Kind.DIRECT, outcome_id(flow))


_encode = msgspec.json.Encoder().encode
_decode_root = msgspec.json.Decoder(Root).decode
_decode_slots = msgspec.json.Decoder(Slots).decode


def encode(value: Root | Slots) -> bytes:
    """Return what is stored."""
    return _encode(value)


def decode_root(body: bytes) -> Root:
    """Return the root in a message.

    Raises:
        EnvelopeInvalid: if it is none of a version known here.
    """
    try:
        root = _decode_root(body)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"a workflow that cannot be read: {error}") from None
    if root.v != VERSION:
        raise EnvelopeInvalid(f"a workflow of version {root.v}, known here is {VERSION}")
    if problem := _problem(root):
        raise EnvelopeInvalid(f"a workflow whose {problem} cannot be")
    return root


def _problem(root: Root) -> str:
    """Return what of a root cannot be: producers write roots, and all who look count by its numbers."""
    chunks = (-1, *root.chunks)
    fits = {
        "number of steps": 1 <= root.tasks <= ALL_MOST,
        "number of nodes": root.tasks <= root.nodes <= NODES_MOST,
        "plan": root.chunks[:1] == (0,) and all(one < other < root.nodes for one, other in pairwise(chunks)),
        "start or end": 0 <= root.start < root.nodes and 0 <= root.out < root.nodes,
        "times": all(at is None or in_range(at) for at in (root.created_at, root.deadline, root.ended_at)),
        "queues": all(map(is_queue_name, root.queues)),
        "parent": not root.parent or _is_parent(root.parent),
        "other lives": all(not each or is_workflow_id(each) for each in (root.continues, root.continued)),
    }
    return next((what for what, fit in fits.items() if not fit), "") or (
        "" if are_marks(root.marks, root.tasks if root.small else root.parts) else "marks"
    )


def _is_parent(text: str) -> bool:
    found = _PARENT.fullmatch(text)
    return found is not None and is_token(found[3])


def are_marks(text: str, count: int) -> bool:
    """Return whether a text is the marks of so many steps."""
    return len(text) == count and not set(text) - set(Mark)


def decode_slots(data: bytes | Raw, width: int | None = None) -> Slots:
    """Return what arrived at a join.

    Args:
        data: as it is stored.
        width: how many sources it has; None if that is not known.

    Raises:
        EnvelopeInvalid: if it cannot be read.
    """
    try:
        slots = _decode_slots(data)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"a join that cannot be read: {error}") from None
    if width is not None and len(slots) != width:
        raise EnvelopeInvalid(f"a join of {len(slots)} sources, by its plan it has {width}")
    for slot in slots:
        if slot is not None and not (
            (not slot.task or is_token(slot.task)) and (not slot.queue or is_queue_name(slot.queue))
        ):
            raise EnvelopeInvalid("a join with the name of a task or queue that cannot be")
    return slots
