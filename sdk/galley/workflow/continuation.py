"""What a handler returns to have a workflow take its place: the task ends as the workflow does. Pure."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from galley import tracing
from galley.calls import Call
from galley.envelope import Envelope, encode
from galley.inside import line
from galley.labels import merged
from galley.lanes import Lane
from galley.when import NO_RULES
from galley.workflow.errors import WorkflowInvalid
from galley.workflow.plan import Node, compiled, numbered
from galley.workflow.shape import Item
from galley.workflow.state import OnFailure

DAY_SECONDS: Final = 24 * 3600.0
LONGEST_SECONDS: Final = 30 * DAY_SECONDS
"""Longest time a workflow may take."""

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Stands for the time of submission in a plan, which is then the same whenever it is made."""


class Continuation:
    """What `then` returns: a handler that returns it has ended, and its task has not."""

    __slots__ = ("item", "on_failure", "seconds")

    def __init__(self, item: Item, on_failure: OnFailure, seconds: float) -> None:
        self.item, self.on_failure, self.seconds = item, on_failure, seconds


class Onward(Struct, frozen=True):
    """The workflow of a continuation, as it goes from a handler to its worker."""

    tasks: int
    nodes: tuple[Node, ...]
    start: int
    out: int
    on_failure: OnFailure
    seconds: float


def then(
    item: Item, *, on_failure: OnFailure | str = OnFailure.STOP, timeout_seconds: float = DAY_SECONDS
) -> Any:
    """Return what a handler returns to have a workflow run in its place.

    The task does not end with the handler: it waits for the workflow without holding a slot, and then
    succeeds with its result, or fails as it did.

    Args:
        item: a call, chain, group or graph.
        on_failure: as in `AsyncWorkflows.submit`.
        timeout_seconds: how long the workflow may take, at most 30 days, and not beyond the task's deadline.

    Raises:
        WorkflowInvalid: one of these cannot be. What is wrong with a step fails the attempt.
    """
    return Continuation(item, rule_of(on_failure), check_seconds(timeout_seconds))


def rule_of(on_failure: OnFailure | str) -> OnFailure:
    """Return a failure policy by its name.

    Raises:
        WorkflowInvalid: if there is none of that name.
    """
    try:
        return OnFailure(on_failure)
    except ValueError:
        raise WorkflowInvalid(
            "on_failure", repr(on_failure)[:80], f"use one of {', '.join(OnFailure)}"
        ) from None


def check_seconds(seconds: float) -> float:
    """Return how long a workflow may take.

    Raises:
        WorkflowInvalid: if it may not.
    """
    if isinstance(seconds, bool) or not 0 < seconds <= LONGEST_SECONDS:
        raise WorkflowInvalid("timeout_seconds", repr(seconds), f"use up to {LONGEST_SECONDS:.0f} seconds")
    return seconds


def onward(continuation: Continuation) -> bytes:
    """Return a continuation as it goes to the worker.

    Raises:
        WorkflowInvalid: there can be no such workflow.
    """
    work = compiled(continuation.item, collect=continuation.on_failure is OnFailure.COLLECT)
    nodes, start = numbered(work, lambda _, call: _stored(call))
    return msgspec.json.encode(
        Onward(
            work.tasks, tuple(nodes), start, work.out.number, continuation.on_failure, continuation.seconds
        )
    )  # fmt: skip


def _stored(call: Call[Any]) -> tuple[Lane, Raw]:
    if call.large or call.files:
        raise WorkflowInvalid(
            f"a call of {call.handler!r}", "has files, or an input above 256 KiB",
            "have a step before it return the data: results may have 64 MiB, and files",
        )  # fmt: skip
    rules = call.rules or NO_RULES
    labels = rules.labels if call.labels is None else merged(rules.labels, call.labels)
    envelope = Envelope(
        call.handler, EPOCH, input=call.input, not_before=rules.not_before, deadline=rules.deadline,
        timeout_seconds=rules.timeout_seconds, retry=rules.retry, ancestors=line(), labels=labels or None,
        trace=tracing.present(),
    )  # fmt: skip
    return rules.lane or call.lane or Lane.NORMAL, Raw(encode(envelope))


read_onward: Final = msgspec.json.Decoder(Onward).decode
