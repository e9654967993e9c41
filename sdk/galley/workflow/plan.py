"""The plan of a workflow: numbered nodes, as they are stored. Pure.

A node is a task, or a join of at most `WIDTH` others; wider groups become trees of joins, so that no message
grows with the workflow. A task has one source at most: several dependencies are a join before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from galley.bounds import is_queue_name, is_token
from galley.calls import Call
from galley.errors import EnvelopeInvalid
from galley.handler import Handler
from galley.lanes import Lane
from galley.unreadable import UNREADABLE
from galley.workflow.errors import WorkflowInvalid
from galley.workflow.result import Partial, StepResult, previous
from galley.workflow.shape import ALL_MOST, STEPS_MOST, Chain, Graph, Group, Item, check_count

WIDTH: Final = 100
"""Sources a join has at most, and steps whose marks are in one message."""

NODES_MOST: Final = 10 * ALL_MOST
"""Nodes a workflow may have: each step may have a join before it, and each redrive adds one."""

CHUNK_BYTES: Final = 200 * 1024
"""Bytes of nodes after which another message of the plan begins."""

START: Final = "galley.workflow"
"""What the first message of a workflow with several first steps carries in the place of a handler."""

Path = tuple[str | int, ...]


class Node(Struct, array_like=True, omit_defaults=True, gc=False):
    """One node, as it is stored."""

    name: str = ""
    """Of a step."""
    next: tuple[tuple[int, int], ...] = ()
    """What follows: a node, and which of its sources this one is."""
    join: int = 0
    """How many sources are joined; 0 for a task."""
    flat: bool = False
    """Whether the lists of its sources become one."""
    collect: bool = False
    """Whether failures are parts of the value."""
    keys: tuple[str, ...] = ()
    """Names of the sources, if the value is an object."""
    tolerated: bool = False
    """Whether its failure is collected, wherever it goes."""
    queue: str = ""
    lane: Lane = Lane.NORMAL
    task: Raw = Raw(b"null")
    """The envelope of a task, less what its source gives."""
    holes: tuple[tuple[str, Path], ...] = ()
    """Arguments that are made of the source's value."""
    given: str = ""
    """The task whose result counts, of an earlier workflow that this one continues."""


@dataclass
class Draft:
    """A node before it is numbered."""

    name: str = ""
    call: Call[Any] | None = None
    """Of a task; None for a join."""
    sources: list["Draft"] = field(default_factory=list)
    holes: tuple[tuple[str, Path], ...] = ()
    flat: bool = False
    collect: bool = False
    keys: tuple[str, ...] = ()
    next: list[tuple["Draft", int]] = field(default_factory=list)
    number: int = -1


@dataclass
class Compiled:
    """A workflow with numbers: tasks first, then joins, then perhaps the start."""

    drafts: list[Draft]
    tasks: int
    first: list[Draft]
    """Tasks that wait for nothing."""
    out: Draft
    """The node whose value is the result."""

    @property
    def queue(self) -> str:
        """The queue whose workers keep its state: that of its first step."""
        call = self.drafts[0].call
        assert call is not None
        return call.queue


def compiled(item: Item, *, collect: bool = False) -> Compiled:
    """Return a workflow in numbers.

    Args:
        item: what a program wrote.
        collect: whether all groups collect failures.

    Raises:
        WorkflowInvalid: it has a cycle, a dependency on a step that is not there, more than `STEPS_MOST`
            steps, an argument that nothing gives, or a rule that a step cannot have.
    """
    compiler = _Compiler(collect)
    try:
        out = compiler.build(item, _Scope(), "")
    except RecursionError:
        raise WorkflowInvalid(
            "workflow", "is nested too deeply", "put chains and groups into each other less often"
        ) from None
    tasks, joins = compiler.tasks, compiler.joins
    drafts = [*tasks, *joins]
    for number, draft in enumerate(drafts):
        draft.number = number
        for slot, source in enumerate(draft.sources):
            source.next.append((draft, slot))
    return Compiled(drafts, len(tasks), [draft for draft in tasks if not draft.sources], out)


@dataclass(frozen=True)
class _Scope:
    """What a step can refer to."""

    before: Draft | None = None
    steps: dict[str, Draft] = field(default_factory=dict)


class _Compiler:
    def __init__(self, collect: bool) -> None:
        self._collect = collect
        self.tasks: list[Draft] = []
        self.joins: list[Draft] = []
        self._names: dict[str, int] = {}

    def build(self, item: Item, scope: _Scope, name: str) -> Draft:
        """Add what an item means, and return the node whose value is its result."""
        match item:
            case Chain():
                for number, each in enumerate(item.items, start=1):
                    scope = replace(scope, before=self.build(each, scope, _part(name, number)))
                assert scope.before is not None
                return scope.before
            case Group():
                check_count("group", len(item.items), STEPS_MOST)
                numbered = enumerate(item.items, start=1)
                members = [self.build(each, scope, _part(name, number)) for number, each in numbered]
                return self._join(members, collect=item.collect or self._collect)
            case Graph():
                return self._graph(item, scope, name)
            case Handler():
                return self._task(item.step(), scope, name)
            case Call():
                return self._task(item, scope, name)
            case _:
                raise WorkflowInvalid(
                    "step", f"{item!r:.80} is none", "use handler.call(...), a handler, chain, group or Graph"
                )

    def _join(self, sources: list[Draft], *, collect: bool = False, keys: tuple[str, ...] = ()) -> Draft:
        flat = len(sources) > WIDTH
        if flat:
            parts = [sources[at : at + WIDTH] for at in range(0, len(sources), WIDTH)]
            sources = [self._join(part, collect=collect) for part in parts]
        draft = Draft(sources=sources, flat=flat, collect=collect, keys=keys)
        self.joins.append(draft)
        return draft

    def _graph(self, graph: Graph, scope: _Scope, name: str) -> Draft:
        if not graph.steps:
            raise WorkflowInvalid("graph", "has no steps", "add at least one")
        check_count("graph", len(graph.steps), STEPS_MOST)
        needs = {step: _needs(step, *rest) for step, rest in graph.steps.items()}
        found: dict[str, Draft] = {}
        for step in _in_order(needs):
            item, after = graph.steps[step]
            first = [found[each] for each in after]
            before = scope.before if not first else first[0] if len(first) == 1 else self._join(first)
            found[step] = self.build(item, _Scope(before, found), f"{name}.{step}" if name else step)
        needed = {each for every in needs.values() for each in every}
        last = tuple(step for step in graph.steps if step not in needed)
        return self._join([found[step] for step in last], keys=last, collect=self._collect)

    def _task(self, call: Call[Any], scope: _Scope, name: str) -> Draft:
        check_count("workflow", len(self.tasks) + 1, ALL_MOST)
        name = self._named(name or call.handler)
        check_step(name, call)
        holes = _holes(name, call, scope)
        places = [(argument, _source(name, hole, scope), hole.path) for argument, hole in holes]
        # By identity, and each once: one step may have thousands of arguments that are results of others.
        distinct = {} if scope.before is None else {id(scope.before): scope.before}
        distinct |= {id(source): source for _, source, _ in places}
        sources = list(distinct.values())
        if len(sources) > 1:
            at = {id(source): slot for slot, source in enumerate(sources)}
            filled = tuple((argument, (at[id(source)], *path)) for argument, source, path in places)
            draft = Draft(name, call, [self._join(sources)], filled)
        else:
            draft = Draft(name, call, sources, tuple((argument, path) for argument, _, path in places))
        self.tasks.append(draft)
        return draft

    def _named(self, name: str) -> str:
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}-{count}"


def _part(name: str, number: int) -> str:
    return f"{name}.{number}" if name else ""


def _holes(name: str, call: Call[Any], scope: _Scope) -> list[tuple[str, StepResult]]:
    partial = call.partial or Partial()
    holes, missing = list(partial.holes), list(partial.missing)
    if missing and scope.before is not None and not any(hole.step == "" for _, hole in holes):
        holes.append((missing.pop(0), previous))
    if missing:
        raise WorkflowInvalid(
            f"step {name!r}", f"needs arguments that nothing gives: {', '.join(missing)}",
            "pass them, or results of other steps",
        )  # fmt: skip
    return holes


def _source(name: str, hole: StepResult, scope: _Scope) -> Draft:
    source = scope.steps.get(hole.step) if hole.step else scope.before
    if source is not None:
        return source
    if hole.step:
        raise WorkflowInvalid(
            f"step {name!r}", f"is passed the result of step {hole.step!r}, which is not there",
            "use what Graph.add returned, in the same graph",
        )  # fmt: skip
    raise WorkflowInvalid(
        f"step {name!r}", "is passed the result of what comes before it, and nothing does",
        "pass a value, or put a step before it",
    )  # fmt: skip


def _needs(step: str, item: Item, after: tuple[str, ...]) -> set[str]:
    """Return the names of the steps that come before one."""
    found = set(after)
    waiting = [item]
    while waiting:
        match waiting.pop():
            case Chain(items=items) | Group(items=items):
                waiting.extend(items)
            case Call(partial=Partial(holes=holes)):
                found.update(hole.step for _, hole in holes if hole.step)
    if step in found:
        raise WorkflowInvalid(f"step {step!r}", "depends on itself", "remove that dependency")
    return found


def _in_order(needs: dict[str, set[str]]) -> list[str]:
    """Return the steps so that each comes after those it needs."""
    following: dict[str, list[str]] = {}
    for step, every in needs.items():
        for each in every:
            if each not in needs:
                raise WorkflowInvalid(
                    f"step {step!r}", f"depends on step {each!r}, which is not there",
                    "add that step, or correct the name",
                )  # fmt: skip
            following.setdefault(each, []).append(step)
    open_needs = {step: len(every) for step, every in needs.items()}
    ready = [step for step, count in open_needs.items() if not count]
    for step in ready:
        for each in following.get(step, ()):
            open_needs[each] -= 1
            if not open_needs[each]:
                ready.append(each)
    if len(ready) < len(needs):
        raise WorkflowInvalid(
            "graph", f"has a cycle: {_cycle(needs, set(ready))}", "remove one of these dependencies"
        )
    return ready


def _cycle(needs: dict[str, set[str]], done: set[str]) -> str:
    step = next(step for step in needs if step not in done)
    way: list[str] = []
    while step not in way:
        way.append(step)
        step = next(each for each in sorted(needs[step]) if each not in done)
    return " after ".join((*way[way.index(step) :], step))


def check_step(name: str, call: Call[Any]) -> None:
    """Refuse rules that make no sense for a step.

    Raises:
        WorkflowInvalid: naming the step, and the rule.
    """
    unique = call.unique if call.rules is None or call.rules.unique is None else call.rules.unique
    for wrong, rule in ((call.task_id is not None, "an id of its own"), (bool(unique), "a unique key")):
        if wrong:
            raise WorkflowInvalid(f"step {name!r}", f"has {rule}", "leave it out: a workflow makes the ids")
    if (call.large or call.files) and call.partial is not None and call.partial.holes:
        raise WorkflowInvalid(
            f"step {name!r}", "has files or more than 256 KiB beside the result of another step",
            "have a step of its own return them",
        )  # fmt: skip


def numbered(
    work: Compiled, envelope: Callable[[Draft, Call[Any]], tuple[Lane, Raw]]
) -> tuple[list[Node], int]:
    """Return the nodes as they are stored, and which one the first message is for.

    Args:
        work: the workflow.
        envelope: returns the lane and the envelope of a task.
    """
    tolerated = {
        id(draft) for draft in work.drafts if draft.next and all(after.collect for after, _ in draft.next)
    }
    nodes = []
    for draft in work.drafts:
        following = tuple((after.number, slot) for after, slot in draft.next)
        if draft.call is None:
            nodes.append(Node("", following, len(draft.sources), draft.flat, draft.collect, draft.keys))
            continue
        lane, body = envelope(draft, draft.call)
        nodes.append(
            Node(
                draft.name, following, tolerated=id(draft) in tolerated, queue=draft.call.queue, lane=lane,
                task=body, holes=draft.holes,
            )
        )  # fmt: skip
    if len(work.first) == 1:
        return nodes, work.first[0].number
    nodes.append(Node("", tuple((draft.number, 0) for draft in work.first)))
    return nodes, len(nodes) - 1


def chunked(nodes: Sequence[Node]) -> tuple[list[bytes], tuple[int, ...]]:
    """Return the messages of a plan, and the number of the first node in each."""
    chunks: list[bytes] = []
    first: list[int] = []
    bodies: list[bytes] = []
    size = 0
    for number, node in enumerate(nodes):
        body = _encode(node)
        if bodies and size + len(body) > CHUNK_BYTES:
            chunks.append(b"[" + b",".join(bodies) + b"]")
            bodies, size = [], 0
        if not bodies:
            first.append(number)
        bodies.append(body)
        size += len(body)
    chunks.append(b"[" + b",".join(bodies) + b"]")
    return chunks, tuple(first)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Node, ...]).decode


def read_chunk(data: bytes | Raw) -> tuple[Node, ...]:
    """Return the nodes in a message of a plan.

    Raises:
        EnvelopeInvalid: it is none.
    """
    try:
        nodes = _decode(data)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"a plan that cannot be read: {error}") from None
    for node in nodes:
        if not _fits(node):
            raise EnvelopeInvalid(f"a plan with a node that cannot be: {node.name[:63]!r}")
    return nodes


def _fits(node: Node) -> bool:
    """Return whether there can be such a node: producers write plans."""
    return (
        0 <= node.join <= WIDTH
        and (not node.keys or len(node.keys) == node.join or node.flat)
        and all(0 <= number < NODES_MOST and 0 <= slot < WIDTH for number, slot in node.next)
        and (not node.queue or is_queue_name(node.queue))
        and (not node.given or is_token(node.given))
    )
