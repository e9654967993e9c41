"""Ids of tasks: sortable, unique, and fit for a subject."""

import os
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley import task_id
from galley.broker.topology import parse_task_subject, task_subject
from galley.errors import SubmissionInvalid
from galley.task_id import check_task_id, new_task_id
from tests.support.builders import an_address

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def test_an_id_is_a_ulid_of_the_present_time() -> None:
    before = time.time_ns() // 1_000_000
    made = new_task_id()
    after = time.time_ns() // 1_000_000
    assert len(made) == 26
    milliseconds = 0
    for character in made[:10]:
        milliseconds = milliseconds * 32 + CROCKFORD.index(character)
    assert before <= milliseconds <= after


def test_ids_sort_in_the_order_they_were_made_also_within_a_millisecond() -> None:
    made = [new_task_id() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_sort_across_a_carry_out_of_their_last_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = time.time_ns() // 1_000_000 + 60_000
    before = {"_milliseconds": ahead, "_low": 2**20 - 3, "_high": 7, "_head": "0" * 21 + "7"}
    for name, value in before.items():
        monkeypatch.setattr(f"galley.task_id.{name}", value)
    made = [new_task_id() for _ in range(4)]
    assert [each[-5:] for each in made] == ["7ZZZY", "7ZZZZ", "80000", "80001"]
    assert made == sorted(made)


def test_threads_never_make_the_same_id() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda own=own: own.extend(new_task_id() for _ in range(2000)))
        for own in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({each for own in made for each in own}) == 8000


def test_a_forked_process_makes_other_ids_though_the_clock_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    new_task_id()
    reading, writing = os.pipe()
    with task_id._lock:  # as if another thread made one
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os.write(writing, new_task_id().encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        made = told.read().decode()
    os.waitpid(child, 0)
    assert len(made) == 26
    assert made != new_task_id()


def test_a_new_id_may_stand_in_a_subject() -> None:
    assert check_task_id(made := new_task_id()) == made


@pytest.mark.parametrize("wrong", ["", "a.b", "a b", "a>", "*", "é", "x" * 65, "a\n", "a/b"])
def test_an_id_a_subject_cannot_carry_is_refused(wrong: str) -> None:
    with pytest.raises(SubmissionInvalid) as refused:
        check_task_id(wrong)
    assert "use 1 to 64 characters" in refused.value.hint


@given(st.text(max_size=70))
def test_an_id_that_passes_survives_the_way_through_a_subject(text: str) -> None:
    try:
        address = an_address(id=check_task_id(text))
    except SubmissionInvalid:
        return
    assert parse_task_subject(task_subject(address)) == address
