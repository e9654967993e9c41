"""The dead letter: what is written can be read, and bytes that are not ours are refused."""

from datetime import UTC, datetime

import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley import dead_letter, envelope
from galley.dead_letter import NO_TASK, DeadLetter
from galley.errors import EnvelopeInvalid
from galley.record import Failure
from tests.support.builders import an_envelope

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LETTER = DeadLetter(Failure("ValueError", "no such picture"), NOON, "w-1", 3, "normal")


def test_the_task_in_a_dead_letter_can_be_read_again() -> None:
    task = an_envelope("resize", input={"path": "a.jpg"})
    found = dead_letter.decode(dead_letter.encode(replace(LETTER, envelope=Raw(envelope.encode(task)))))
    assert envelope.decode(bytes(found.envelope)) == task


def test_a_dead_letter_may_have_no_task() -> None:
    body = dead_letter.encode(replace(LETTER, body=b"\xff", header="v=9"))
    assert b"envelope" not in body
    found = dead_letter.decode(body)
    assert (found.envelope, found.body) == (NO_TASK, b"\xff")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_dead_letter_is_refused(body: bytes) -> None:
    with pytest.raises(EnvelopeInvalid, match="a dead letter that cannot be read"):
        dead_letter.decode(body)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(EnvelopeInvalid, match="a dead letter of version 3, known here is 1"):
        dead_letter.decode(dead_letter.encode(replace(LETTER, v=3)))
