"""What programs write: chains, groups and graphs of calls. Pure; `plan.compiled` checks and numbers them."""

import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from galley.workflow.errors import WorkflowInvalid
from galley.workflow.result import StepResult

if TYPE_CHECKING:
    from galley.calls import Call
    from galley.handler import Handler

STEPS_MOST: Final = 10_000
"""Steps a graph may have, and members a group."""

ALL_MOST: Final = 2 * STEPS_MOST
"""Steps a workflow may have in all."""

NAME_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
_NAME: Final = re.compile(NAME_PATTERN.strip("^$"))

Item: TypeAlias = "Call[Any] | Handler[Any, Any] | Shape"
"""A step, or several: a call, a handler without arguments, or a chain, group or graph."""


class Shape:
    """A chain, a group or a graph: what `client.submit` takes, and what others may be made of."""


class Chain(Shape):
    """One after the other; see `chain`."""

    def __init__(self, items: tuple[Item, ...]) -> None:
        self.items = items


class Group(Shape):
    """Beside each other; see `group`."""

    def __init__(self, items: tuple[Item, ...], *, collect: bool = False) -> None:
        self.items, self.collect = items, collect


class Graph(Shape):
    """Steps with names, each of which runs when those it depends on have succeeded.

    Its result is an object: for each step that no other one depends on, its result by its name.
    """

    def __init__(self) -> None:
        self.steps: dict[str, tuple[Item, tuple[str, ...]]] = {}

    def add(self, name: str, step: Item, *, after: Iterable[StepResult | str] = ()) -> StepResult:
        """Add a step, and return what stands for its result in calls of others.

        Args:
            name: 1 to 63 characters of A-Z, a-z, 0-9, `_`, `.` and `-`; no other step of the graph has it.
            step: a call, or a chain or group whose result is that of the step. Steps whose results it is
                passed come before it.
            after: further steps that have to succeed first, by name or by what `add` returned.

        Raises:
            WorkflowInvalid: the name is taken, or not valid.
        """
        if not _NAME.fullmatch(name):
            raise WorkflowInvalid(
                f"step {name[:80]!r}", "can have no such name", "use 1 to 63 of A-Z, a-z, 0-9, _, . and -"
            )
        if name in self.steps:
            raise WorkflowInvalid(f"step {name!r}", "is there twice", "give each step a name of its own")
        earlier = tuple(each.step if isinstance(each, StepResult) else each for each in after)
        self.steps[name] = step, earlier
        return StepResult(name)


def chain(*items: Item) -> Chain:
    """Return steps that run one after the other.

    The result of each is passed to the next: as the first argument that it needs and that is not given; or
    where `galley.previous` stands in its arguments; or not at all if it needs none. The result of the chain
    is that of its last step.

    Raises:
        WorkflowInvalid: there is no step.
    """
    if not items:
        raise WorkflowInvalid("chain", "has no steps", "pass at least one call")
    return Chain(items)


def group(*items: "Item | Iterable[Item]", collect: bool = False) -> Group:
    """Return steps that run beside each other; the result is the list of their results, in this order.

    Args:
        items: calls, chains, groups; or one iterable of them.
        collect: whether the failure of a member is a part of the result, `{"error": {"step": ..., "reason":
            ..., "message": ...}}`, and not a failure of the workflow.

    Raises:
        WorkflowInvalid: there is no member, or there are more than 10,000.
    """
    members: tuple[Any, ...] = items
    if len(items) == 1 and not _is_item(items[0]):
        # Not all of them: an iterable may have no end.
        members = tuple(islice(items[0], STEPS_MOST + 1))  # type: ignore[arg-type]
    check_count("group", len(members), STEPS_MOST)
    if not members:
        raise WorkflowInvalid("group", "has no members", "leave it out if there is nothing to do")
    return Group(members, collect=collect)


def chord(members: "Group | Iterable[Item]", callback: Item) -> Chain:
    """Return a group and the step that follows when all its members have succeeded.

    The callback is passed the list of results, as in `chain(group(...), callback)`.

    Raises:
        WorkflowInvalid: the group has no member, or more than 10,000.
    """
    return chain(members if isinstance(members, Group) else group(members), callback)


def check_count(what: str, count: int, most: int) -> None:
    """Refuse more steps than there may be.

    Raises:
        WorkflowInvalid: naming the limit.
    """
    if count > most:
        raise WorkflowInvalid(what, f"has more than {most} steps", "have a step work on several inputs")


def _is_item(value: object) -> bool:
    return isinstance(value, Shape) or hasattr(value, "handler") or hasattr(value, "function")
