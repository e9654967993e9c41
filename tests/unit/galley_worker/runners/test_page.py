"""What a worker sees of a child that is interrupted at any moment."""

import struct

import pytest

from galley_worker.runners import page
from galley_worker.runners.page import BYTES, ORDER, STEP, Step, begun, step, write_number, write_step

NUMBER = struct.calcsize("@Q")


def test_a_new_page_shows_nothing() -> None:
    assert (begun(bytearray(BYTES)), step(bytearray(BYTES))) == (0, None)


def test_a_handler_that_has_the_loop_is_shown_until_it_gives_it_back() -> None:
    shared = bytearray(BYTES)
    write_number(shared, 0, 300)
    write_step(shared, STEP, 10.0, 11.5, 300)
    assert (begun(shared), step(shared)) == (300, Step(300, 10.0, 11.5))
    write_number(shared, ORDER, 0)
    assert (begun(shared), step(shared)) == (300, None)


@pytest.mark.parametrize("written", range(0, BYTES - STEP, NUMBER))
def test_a_child_interrupted_while_it_writes_shows_no_handler_with_the_times_of_before(written: int) -> None:
    shared, complete = bytearray(BYTES), bytearray(BYTES)
    write_step(complete, STEP, 57_000.0, 57_000.0, 1)
    shared[STEP : STEP + written] = complete[STEP : STEP + written]
    assert step(shared) is None


def test_what_changes_while_it_is_read_is_not_taken_for_one_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = bytearray(BYTES)
    write_step(shared, STEP, 10.0, 10.0, 1)

    def interrupted(buffer: bytearray, offset: int) -> tuple[float, float]:
        write_step(buffer, STEP, 12.0, 12.0, 2)
        return struct.unpack_from("@dd", buffer, offset)

    monkeypatch.setattr(page, "_times", interrupted)
    assert step(shared) is None
