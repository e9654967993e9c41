"""Names and numbers in messages that would do harm once they are used, though they can be decoded."""

import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

import galley
import galley_gateway
import galley_operator
import galley_worker
from galley import dead_letter, envelope, key, queue_limit, record, unique_key
from galley.bounds import STRICT_END
from galley.broker.errors import SubjectInvalid
from galley.broker.lean_client import header_block
from galley.dead_letter import DeadLetter
from galley.errors import EnvelopeInvalid, EventInvalid
from galley.event import from_headers
from galley.record import Claim, Failure, Record, State
from galley.unique_key import KeyRecord, KeyState, UniqueKey
from galley.workflow.plan import Node, read_chunk
from galley.workflow.state import Failed, Root, Slot, decode_root, decode_slots, encode

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
COMMAND = "x 0\r\n\r\nPUB galley.y"
"""Behind a subject, it would be a command with all the rights of who publishes."""

ROOT = Root("flow", 3, 4, (0, 2), 0, 3, NOW, NOW + timedelta(days=1), queues=("mail",), marks="s..")
SLOTS = (None, Slot((msgspec.Raw(b"1"),)), Slot(task="t", queue="q", join=3, failed=Failed("a", "Odd", "no")))
NODE = Node("a", ((1, 0),))
TASK = envelope.Envelope("echo", NOW)


def patterns_in(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, msgspec.Meta) and annotation.pattern is not None:
        yield annotation.pattern
    for part in (*typing.get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from patterns_in(part)


def structs_of(kind: type[Any] = msgspec.Struct) -> Iterator[type[Any]]:
    each: type[Any]
    for each in kind.__subclasses__():
        yield each
        yield from structs_of(each)


def test_no_pattern_takes_the_end_of_a_line() -> None:
    """In a pattern of msgspec, `$` also matches before a last newline, which ends a command of NATS."""
    for package in (galley, galley_worker, galley_operator, galley_gateway):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found = {
        f"{each.__module__}.{each.__qualname__}.{name}": pattern
        for each in structs_of()
        if each.__module__.startswith("galley") and each.__module__ != "galley.tracing"
        for name, annotation in typing.get_type_hints(each, include_extras=True).items()
        for pattern in patterns_in(annotation)
    }
    assert len(found) > 10
    assert [name for name, pattern in found.items() if not pattern.endswith(STRICT_END)] == []


WRONG_ROOTS: dict[str, dict[str, Any]] = {
    "more steps than can be": {"tasks": 10**8, "nodes": 10**8},
    "no step": {"tasks": 0},
    "a negative number of steps": {"tasks": -1},
    "fewer nodes than steps": {"nodes": 2},
    "no plan": {"chunks": ()},
    "a plan without a beginning": {"chunks": (1, 2)},
    "a plan that goes back": {"chunks": (0, 2, 1)},
    "a plan beyond its end": {"chunks": (0, 9)},
    "a start that is not there": {"start": 4},
    "a negative end": {"out": -1},
    "fewer marks": {"marks": "s"},
    "marks that are none": {"marks": "s?."},
    "a time that cannot be compared": {"deadline": datetime(1, 1, 1, tzinfo=UTC)},
    "a time that cannot be added to": {"deadline": datetime(9999, 12, 31, tzinfo=UTC)},
    "a command in a queue": {"queues": (COMMAND,)},
    "all queues": {"queues": ("*",)},
    "the end of a line in its id": {"id": "flow\n"},
    "a parent that is none": {"parent": "task"},
    "a parent with a command": {"parent": f"high.sdk.{COMMAND}"},
    "another life that is none": {"continued": "a b"},
}


@pytest.mark.parametrize("what", WRONG_ROOTS)
def test_a_workflow_that_cannot_be_is_refused(what: str) -> None:
    assert decode_root(encode(ROOT)) == ROOT
    with pytest.raises(EnvelopeInvalid):
        decode_root(encode(replace(ROOT, **WRONG_ROOTS[what])))


@pytest.mark.parametrize(
    "change",
    [{"join": 10**12}, {"join": -1}, {"next": ((-1, 0),)}, {"next": ((1, 10**9),)}, {"queue": COMMAND},
     {"queue": ">"}, {"given": "a.b"}, {"given": "a\n"}, {"join": 3, "keys": ("a",)}],
)  # fmt: skip
def test_a_node_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    assert read_chunk(msgspec.json.encode((NODE,))) == (NODE,)
    with pytest.raises(EnvelopeInvalid):
        read_chunk(msgspec.json.encode((Node(**{"name": "a", **change}),)))


def test_a_join_of_another_width_or_with_wrong_names_is_refused() -> None:
    assert decode_slots(encode(SLOTS), 3) == SLOTS
    for slots, width in ((SLOTS, 2), ((Slot(task=COMMAND),), 1), ((Slot(task="a", queue="*"),), 1)):
        with pytest.raises(EnvelopeInvalid):
            decode_slots(encode(slots), width)


WRONG: dict[str, tuple[Callable[[bytes], object], Any]] = {
    "a task of a workflow elsewhere": (envelope.decode, replace(TASK, flow=COMMAND)),
    "a trace with another header": (envelope.decode, replace(TASK, trace=f"00-{'a' * 32}-{'b' * 16}-01\n")),
    "a unique key with a command": (envelope.decode, replace(TASK, unique=UniqueKey("a" * 32 + "\n"))),
    "a unique key that stays": (envelope.decode, replace(TASK, unique=UniqueKey("a" * 32, seconds=1e300))),
    "a holder with a command": (record.decode, Record(State.RUN, 1, claim=Claim("GW", 1, COMMAND))),
    "a record that awaits a command": (record.decode, Record(State.RETRY, 1, awaits=COMMAND)),
    "a key of a task with a command": (unique_key.decode, KeyRecord(COMMAND, KeyState.CLAIMED)),
    "a key of the last year": (
        unique_key.decode, KeyRecord("t", KeyState.CLAIMED, ends_at=datetime(9999, 12, 31, tzinfo=UTC))
    ),
    "a permit of a command": (key.decode, key.Permits((COMMAND,))),
    "credits that cannot be written": (key.decode, {"credits": {"high": "HUGE"}}),
    "permits that cannot be written": (
        queue_limit.decode, {"shares": {"h": {"worker": "w", "permits": "HUGE"}}}
    ),
    "a beat that cannot be written": (queue_limit.decode, {"shares": {"h": {"worker": "w", "beat": "HUGE"}}}),
    "permits in a deep field": (queue_limit.decode, {"x": "DEEP"}),
    "permits of a key in a deep field": (key.decode, {"x": "DEEP"}),
    "a letter without an offset": (
        dead_letter.decode, DeadLetter(Failure("Odd", "no"), datetime(2026, 3, 1), "w", 1, "normal")  # noqa: DTZ001
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_would_do_harm_later_is_refused_at_once(what: str) -> None:
    decode, value = WRONG[what]
    body = msgspec.json.encode(value).replace(b'"HUGE"', b"9" * 40)
    with pytest.raises(EnvelopeInvalid):
        decode(body.replace(b'"DEEP"', b"[" * 5000 + b"]" * 5000))


def test_no_header_ends_a_line() -> None:
    assert header_block({"A": "b"}) == b"NATS/1.0\r\nA: b\r\n\r\n"
    for value in ("b\r\nNats-Rollup: all", "b\n", "\r"):
        with pytest.raises(SubjectInvalid):
            header_block({"A": value})


@pytest.mark.parametrize("hops", ["9" * 5000, "9" * 30])
def test_hops_without_end_are_refused(hops: str) -> None:
    headers = {"ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0", "ce-galleyhops": hops}
    with pytest.raises(EventInvalid):
        from_headers(headers, b"1", NOW)
