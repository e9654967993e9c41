"""Unknown fields cost what reading them costs, however many there are, and the error about them stays short.

200,000 of them in a manifest took 51 s once, since an explanation was made for each. What is counted here is
calls, not time. `GALLEY_UNKNOWN_FIELDS` sets how many there are (`make hostile` tries 200,000).
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import msgspec
import pytest

from galley import dead_letter, envelope, record
from galley.errors import GalleyError, ManifestInvalid
from galley.resources.manifest import FILE_LIMIT, parse_manifests
from galley_gateway.api.model import NewTask
from galley_gateway.body import decoded
from galley_gateway.errors import RequestInvalid
from tests.unit.galley.test_hostile_bytes import WIRE

MANY = int(os.environ.get("GALLEY_UNKNOWN_FIELDS", "2000"))
LONGEST = 1000
"""Characters of an error."""
CALLS = 5
"""Of each field, at most; those of attributes of events are looked at one by one."""

TASK = {"handler": "h", "submittedAt": "2026-03-01T09:00:00Z"}
RECORD = {"state": "run", "attempt": 1}
LETTER = {
    "failure": {"reason": "a", "message": "b"}, "diedAt": "2026-03-01T09:00:00Z", "worker": "w", "attempt": 1,
    "lane": "normal",
}  # fmt: skip
READERS: dict[str, tuple[Any, Callable[[bytes], object]]] = {
    **WIRE,
    "a task": (TASK, envelope.decode),
    "a record": (RECORD, record.decode),
    "what died": (LETTER, dead_letter.decode),
    "a body of HTTP": ({"handler": "h"}, lambda body: decoded(body, NewTask)),
}


def with_unknown(value: Any, count: int) -> bytes:
    """Return a value with further fields, or further entries, as JSON."""
    read = json.loads(msgspec.json.encode(value))
    if isinstance(read, list):
        return json.dumps(
            [[*each, *range(count)] if isinstance(each, list) else each for each in read]
        ).encode()
    return json.dumps({**read, **{f"x{number}": number for number in range(count)}}).encode()


def calls_of(work: Callable[[], object]) -> tuple[int, str]:
    """Return how many functions of Python and C are called, and the text of an error of ours."""
    count, said = 0, ""

    def heard(_frame: FrameType, what: str, _argument: object) -> None:
        nonlocal count
        count += what in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(heard)
    try:
        work()
    except GalleyError as error:
        said = str(error) + error.hint
    finally:
        sys.setprofile(before)
    return count, said


@pytest.mark.parametrize("what", READERS)
def test_a_reader_does_little_for_an_unknown_field(what: str) -> None:
    good, decode = READERS[what]
    few, many = with_unknown(good, 1), with_unknown(good, MANY)
    with suppress(GalleyError):
        decode(few)  # what is imported at the first use does not count
    plain, _ = calls_of(lambda: decode(few))
    whole, said = calls_of(lambda: decode(many))
    assert whole - plain <= CALLS * MANY + 100
    assert len(said) <= LONGEST


@pytest.mark.parametrize("place", [(), ("spec",), ("metadata",), ("spec", "retry")])
@pytest.mark.parametrize("kind", ["Task", "TaskQueue", "TaskSchedule", "Topic", "Workflow"])
def test_a_manifest_costs_no_more_for_each_field_the_more_there_are(
    kind: str, place: tuple[str, ...]
) -> None:
    def text(count: int) -> str:
        found: dict[str, Any] = {"apiVersion": "galley.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}}
        found["spec"] = {"retry": {}}
        inner = found
        for name in place:
            inner = inner[name]
        inner |= {f"x{number}": number for number in range(count)}
        return json.dumps(found)

    several = max(100, MANY // 20)

    def refused(count: int) -> tuple[int, str]:
        given = text(count)
        assert len(given) < FILE_LIMIT
        calls, said = calls_of(lambda: parse_manifests(given, "a.yaml"))
        assert said
        assert len(said) <= LONGEST
        return calls, said

    refused(1)
    one, some, twice = (refused(count)[0] for count in (1, several, 2 * several))
    assert twice - one <= 2.2 * (some - one)


def test_a_body_and_a_manifest_name_the_first_one() -> None:
    with pytest.raises(RequestInvalid, match="x0"):
        decoded(with_unknown({"handler": "h"}, MANY), NewTask)
    with pytest.raises(ManifestInvalid, match="larger than 4 MiB"):
        parse_manifests("#" * (FILE_LIMIT + 1), "a.yaml")
