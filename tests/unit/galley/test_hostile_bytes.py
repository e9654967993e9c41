"""What any holder of a queue's credentials can store is read, or refused with an error of ours.

`GALLEY_HOSTILE_MUTANTS` sets how many are tried of each (`make hostile`).
"""

import json
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from galley import audit, dead_letter, event, note, schedule, unique_key
from galley.audit import Action, Entry
from galley.broker.audit import read
from galley.broker.control import Heartbeat, Supply
from galley.broker.topic_keeper import CodeSubscriptions
from galley.dead_letter import DeadLetter
from galley.errors import GalleyError
from galley.record import Failure
from galley.repeat import Repeat
from galley.schedule import Schedule
from galley.topic import (
    QueueSubscriptions,
    Subscribe,
    Subscription,
    Topic,
    decode_subscriptions,
    decode_topic,
)
from galley.unreadable import UNREADABLE
from galley.workflow.plan import Node, read_chunk
from galley.workflow.state import Failed, Root, Slot, decode_root, decode_slots
from tests.support.mutation import mangled, mutated

MANY = int(os.environ.get("GALLEY_HOSTILE_MUTANTS", "150"))
NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)

ROOT = Root("flow", 3, 4, (0, 2), 0, 3, NOW, NOW + timedelta(days=1), queues=("mail",), marks="s..")
SLOTS = (None, Slot((msgspec.Raw(b"1"),)), Slot(task="t", queue="q", join=3, failed=Failed("a", "Odd", "no")))
NODES = (Node("a", ((1, 0),)), Node("b", join=2, keys=("x", "y"), queue="mail", task=msgspec.Raw(b'{"a":1}')))
SUBSCRIPTION = Subscription("resize", "images", "resize", 'key == "a"')
CODE = CodeSubscriptions({"resize": (Subscribe("uploads"),)}, {})
EVENT = event.event_of({"a": [1]}, NOW, source="s", attributes={"region": "eu"}, key="k")


def code_of(body: bytes) -> object:
    try:
        return msgspec.json.decode(body, type=CodeSubscriptions)
    except UNREADABLE:
        return None


def line_of(body: bytes) -> object:
    return read("galley.audit.ns.q.client", body, NOW)


WIRE: dict[str, tuple[Any, Callable[[bytes], object]]] = {
    "a topic": (Topic("uploads", 60, 1000, uid="u"), decode_topic),
    "subscriptions": (QueueSubscriptions((SUBSCRIPTION,)), decode_subscriptions),
    "subscriptions of code": (CODE, code_of),
    "an event": (msgspec.Raw(event.encode(EVENT)), event.decode),
    "a workflow": (ROOT, decode_root),
    "what arrived at a join": (SLOTS, decode_slots),
    "a plan": (NODES, read_chunk),
    "a schedule": (
        Schedule("nightly", Repeat("@daily"), msgspec.Raw(b'{"handler":"a"}'), "a"), schedule.decode,
    ),
    "a dead letter": (DeadLetter(Failure("Odd", "no"), NOW, "w", 1, "normal"), dead_letter.decode),
    "a key": ({"owner": "t", "state": "held", "v": 1}, unique_key.decode),
    "a progress": ({"fraction": 0.5, "text": "page 3"}, note.decode_progress),
    "an output": ({"worker": "w", "lines": []}, note.decode_output),
    "an audit line": (Entry(Action.EDIT, "eve", "host", "t", 3, "detail"), line_of),
}  # fmt: skip


@pytest.mark.parametrize("what", WIRE)
def test_it_is_read_or_refused_with_an_error_of_ours(what: str) -> None:
    good, decode = WIRE[what]
    value, rng = json.loads(msgspec.json.encode(good)), random.Random(what)
    refused = 0
    for number in range(MANY):
        body = json.dumps(mutated(value, rng)).encode()
        if number % 4 == 0:
            body = mangled(json.dumps(value).encode(), rng)
        if number % 50 == 1:
            body = b'{"unknown":' + b"[" * 5000 + b"]" * 5000 + b"}"
        try:
            decode(body)
        except GalleyError:
            refused += 1
    assert 0 <= refused <= MANY


@pytest.mark.parametrize("kind", [Heartbeat, Supply])
def test_what_a_callback_catches_is_all_that_decoding_raises(kind: type) -> None:
    for body in (b"\xff", b"{", b'{"x":' + b"[" * 5000):
        with pytest.raises(UNREADABLE):
            msgspec.json.decode(body, type=kind)
    assert audit.decode(b'{"action":"edit"}').action is Action.EDIT
