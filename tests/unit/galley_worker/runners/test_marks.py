"""Marks: what several handlers write to one pipe is told apart, however it is read."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from galley_worker.runners.child.streams import Streams
from galley_worker.runners.execution import Account
from galley_worker.runners.output import LINE_LIMIT, Output
from galley_worker.runners.settings import Line, RunnerSettings
from galley_worker.work import Work

Lines = list[tuple[str, str]]


@contextmanager
def streams() -> Iterator[tuple[Streams, Callable[[], bytes]]]:
    """A child's streams over a real pipe, and what was written to it so far."""
    kept = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)

    def written() -> bytes:
        try:
            return os.read(read_end, 1 << 20)
        except BlockingIOError:
            return b""

    try:
        child = Streams()
        child.attach(write_end, write_end)
        yield child, written
    finally:
        sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = kept  # type: ignore[misc]
        os.close(read_end)
        os.close(write_end)


@contextmanager
def pipes() -> Iterator[tuple[asyncio.AbstractEventLoop, int]]:
    """An event loop, and the end of a pipe that an `Output` reads from."""
    loop = asyncio.new_event_loop()
    read_end, write_end = os.pipe()
    try:
        yield loop, read_end
    finally:
        os.close(write_end)
        loop.close()


@contextmanager
def output(limit: int = 64 * 1024) -> Iterator[tuple[Output, Lines]]:
    """The supervisor's side of a stream, and the lines it forwarded."""
    lines: Lines = []
    accounts: dict[int, Account] = {}

    def owner(order: int) -> Account | None:
        work = Work(str(order), "q", "normal", "h", 1, Raw(b"{}"), 1.0, datetime.now(UTC))
        return accounts.setdefault(order, Account(work)) if order else None

    def take(line: Line) -> None:
        lines.append((line.work.task_id if line.work else "", line.text))

    told = RunnerSettings("q", output_limit=limit, on_line=take)
    with pipes() as (loop, read_end):
        one = Output(loop, read_end, "stdout", told, owner)
        try:
            yield one, lines
        finally:
            one.close()


WRITES = st.lists(st.tuples(st.integers(1, 4), st.text("ab\n", min_size=1, max_size=12)), max_size=25)


@given(WRITES, st.lists(st.integers(1, 400), max_size=15))
def test_each_byte_goes_to_who_wrote_it(writes: list[tuple[int, str]], cuts: list[int]) -> None:
    with streams() as (child, written), output() as (supervisor, lines):
        for order, text in writes:
            child.owner = lambda order=order: order  # type: ignore[misc]
            sys.stdout.write(text)
        for order in sorted({order for order, _ in writes}):
            child.end(order)
        data = written()
        places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        for begin, end in pairwise(places):
            supervisor.feed(data[begin:end])
    for order in range(1, 5):
        wrote = "".join(text for its, text in writes if its == order)
        told = [line for task, line in lines if task == str(order)]
        assert "".join(told) == wrote.replace("\n", "")
    assert not [line for task, line in lines if not task and line]


def test_one_print_is_one_write() -> None:
    with streams() as (child, written):
        child.owner = lambda: 3
        sys.stdout.write("a")
        sys.stdout.write("b")
        assert written() == b""
        sys.stdout.write("\n")
        assert written() == b"\x1e3\x1fab\n"


def test_what_comes_after_the_limit_is_counted_and_told_once() -> None:
    with output(limit=10) as (supervisor, lines):
        supervisor.feed(b"\x1e1\x1f" + b"x" * 25 + b"\n" + b"\x1e-1\x1f")
        supervisor.feed(b"\x1e2\x1fshort\n\x1e-2\x1f")
    assert lines == [
        ("1", "x" * 10),
        ("1", "output limit reached: what follows the first 10 bytes is dropped"),
        ("1", "16 bytes of output dropped after the first 10"),
        ("2", "short"),
    ]


def test_a_line_without_end_is_cut() -> None:
    with output() as (supervisor, lines):
        supervisor.feed(b"\x1e1\x1f" + b"x" * (2 * LINE_LIMIT + 1))
        assert [len(line) for _, line in lines] == [LINE_LIMIT] * 2
    assert lines[-1] == ("1", "x")


@pytest.mark.parametrize("data", [b"\x1e", b"\x1e12", b"a\x1eb\x1f", b"\x1e" + b"9" * 40 + b"\x1f"])
def test_bytes_that_only_look_like_marks_are_text(data: bytes) -> None:
    with output() as (supervisor, lines):
        supervisor.feed(data)
        supervisor.feed(b" and more than a mark can have\n")
    assert "".join(line for _, line in lines) == data.decode() + " and more than a mark can have"


def notices(lines: Lines, task: str = "") -> list[str]:
    return [line for its, line in lines if its == task and ("limit" in line or "dropped" in line)]


def test_output_of_no_attempt_has_a_budget_that_is_announced_and_renewed() -> None:
    with output(limit=100) as (supervisor, lines):
        clock = [0.0]
        supervisor._loop.time = lambda: clock[0]  # type: ignore[method-assign]
        supervisor._unowned_since = 0.0
        for _ in range(30):
            supervisor.feed(b"a thread\n")
        assert sum(line == "a thread" for _, line in lines) == 100 // len(b"a thread\n")
        assert notices(lines) == ["output limit reached: what follows the first 100 bytes is dropped"]
        clock[0] = 59.0
        supervisor.feed(b"still too much\n")
        assert len(notices(lines)) == 1
        clock[0] = 61.0
        supervisor.feed(b"a thread again\n")
        dropped = 30 * len(b"a thread\n") - 100 + len(b"still too much\n")
        assert notices(lines)[1:] == [f"{dropped} bytes of output dropped after the first 100"]
        assert lines[-1] == ("", "a thread again")


def test_output_of_no_attempt_and_that_of_an_attempt_do_not_use_up_each_others_budget() -> None:
    with output(limit=100) as (supervisor, lines):
        supervisor.feed(b"x" * 99 + b"\n" + b"thread\n")
        supervisor.feed(b"\x1e7\x1f" + b"handler\n" * 20 + b"\x1e-7\x1f")
        assert sum(line == "handler" for _, line in lines) == 100 // len(b"handler\n")
        assert len(notices(lines)) == 1
        assert len(notices(lines, "7")) == 2
        supervisor.feed(b"\x1e8\x1fthe next attempt\n\x1e-8\x1fthread\n")
    assert ("8", "the next attempt") in lines
    assert notices(lines)[1:] == [f"{14} bytes of output dropped after the first 100"]
