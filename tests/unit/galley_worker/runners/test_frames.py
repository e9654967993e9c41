"""Frames survive however the stream is cut, and garbage is known as such."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galley.retry import RetryPolicy
from galley_worker.runners import frames
from galley_worker.runners.frames import (
    Again,
    Answer,
    Ask,
    AtOnce,
    Broken,
    Cancel,
    Done,
    Failed,
    HandlerRules,
    Leave,
    Order,
    Ran,
    Ready,
    Recall,
    Recalled,
    Run,
    Said,
    Stopped,
)  # fmt: skip

ORDERS: list[Order] = [
    Run(2**40, "resize", b'{"a":1}'), Recall(), Cancel(7), Leave(), Ask(8), AtOnce(16), Run(1, "", b""),
    Run(3, "resize", b"{}", "t1", "low", 4, 1.5, 2.5, "HandlerRaised: no"),
]  # fmt: skip
ANSWERS: list[Answer] = [
    Done(1, 0.5, b"null"), Failed(2, 0.1, "HandlerRaised", "ValueError: nö", "trace", retryable=True),
    Stopped(3, 0.0), Recalled([4, 5]), Ready(["a"], ["b"], several=True),
    Broken("import", "m", "m.py:1", "no", "line 1"), Said(), Ran(7, 0.5),
    Again(8, 0.1, 30.0, True, "Snooze", "later", "trace"),
    Ready(["a"], [], several=False, rules={"a": HandlerRules(5.0, RetryPolicy(attempts=2))}),
]  # fmt: skip


def test_orders_and_answers_come_back_as_they_were() -> None:
    (body,) = frames.Frames().feed(frames.encode(ORDERS))
    assert frames.decode_orders(body) == ORDERS
    (body,) = frames.Frames().feed(frames.encode(ANSWERS))
    assert frames.decode_answers(body) == ANSWERS


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 3000), max_size=20))
def test_where_the_stream_is_cut_does_not_matter(inputs: list[bytes], cuts: list[int]) -> None:
    said: list[list[Order]] = [[Run(number, "h", data)] for number, data in enumerate(inputs)]
    stream = b"".join(frames.encode(one) for one in said)
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    cutter = frames.Frames()
    bodies = [body for a, b in pairwise(places) for body in cutter.feed(stream[a:b])]
    assert [frames.decode_orders(body) for body in bodies] == said


def test_a_stream_that_comes_byte_by_byte_is_read() -> None:
    cutter = frames.Frames()
    stream = frames.encode(ORDERS) + frames.encode([Recall()])
    bodies = [body for byte in stream for body in cutter.feed(bytes([byte]))]
    assert [frames.decode_orders(body) for body in bodies] == [ORDERS, [Recall()]]


def test_an_answer_is_no_order() -> None:
    (body,) = frames.Frames().feed(frames.encode(ANSWERS))
    with pytest.raises(ValueError, match="Invalid value"):
        frames.decode_orders(body)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"HTTP/1.1 200 OK\r\n"])
def test_a_length_no_frame_has_is_garbage(data: bytes) -> None:
    with pytest.raises(frames.Garbage):
        frames.Frames().feed(data)
