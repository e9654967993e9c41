"""When a worker is live and when it is ready, and the pages that say so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest

from galley_worker import health
from galley_worker.health import Answer, Condition, HealthPages, liveness, readiness

ALLOWED = 60.0


def a_worker(**changes: Any) -> Condition:
    """Return a worker that takes tasks."""
    return Condition(**{"connected": True, "open": True, "free": 2, "silent_seconds": 0.5, **changes})


def test_a_worker_whose_consumers_answer_is_live() -> None:
    for silent in (0.0, ALLOWED):
        assert liveness(a_worker(silent_seconds=silent), ALLOWED)[0]


def test_a_worker_with_a_free_slot_that_no_consumer_answers_is_not_live_though_it_is_up() -> None:
    live, words = liveness(a_worker(silent_seconds=61.0), ALLOWED)
    assert not live
    assert words == "a consumer answered 61 s ago; the limit is 60 s"


@pytest.mark.parametrize(
    "changes",
    [{"connected": False}, {"open": False}, {"free": 0}, {"free": -3}],
    ids=["no broker", "starting or draining", "busy", "more begun than it would begin now"],
)
def test_a_worker_that_asks_for_nothing_may_hear_nothing(changes: dict[str, Any]) -> None:
    assert liveness(a_worker(silent_seconds=9999.0, **changes), ALLOWED)[0]


def test_a_worker_that_takes_tasks_is_ready_even_if_it_is_busy() -> None:
    assert readiness(a_worker()) == (True, "takes tasks")
    assert readiness(a_worker(free=0)) == (True, "takes tasks")


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"connected": False}, "no connection to the broker"), ({"open": False}, "takes no tasks")],
    ids=["no broker", "starting or draining"],
)
def test_a_worker_that_takes_no_tasks_is_not_ready_and_says_why(changes: dict[str, Any], words: str) -> None:
    assert readiness(a_worker(**changes)) == (False, words)


class Reply(NamedTuple):
    status: str
    head: dict[str, str]
    body: bytes


Ask = Callable[[bytes], Any]


class Words:
    """What the pages are to say."""

    live: Answer = (True, "live")
    ready: Answer = (True, "ready")
    metrics = b"galley_slots 4.0\n"


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
async def ask(words: Words) -> AsyncIterator[Ask]:
    """Sends a request as it is, byte by byte, and returns what comes until the connection is closed."""
    pages = HealthPages(lambda: words.live, lambda: words.ready, lambda: words.metrics)
    async with pages.served("127.0.0.1", 0) as port:

        async def ask(request: bytes) -> Reply | None:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(request)
                    answer = await reader.read()
                finally:
                    writer.close()
            if not answer:
                return None
            head, _, body = answer.partition(b"\r\n\r\n")
            status, *lines = head.decode("ascii").split("\r\n")
            return Reply(status, dict(line.split(": ", 1) for line in lines), body)

        yield ask


def get(page: str) -> bytes:
    return f"GET {page} HTTP/1.1\r\nHost: worker\r\nUser-Agent: kube-probe/1.34\r\n\r\n".encode()


async def test_a_page_says_how_it_is_in_status_and_words(ask: Ask, words: Words) -> None:
    for page, name in (("/livez", "live"), ("/readyz", "ready"), ("/livez?verbose", "live")):
        assert (await ask(get(page)))[::2] == ("HTTP/1.1 200 OK", f"{name}\n".encode())
    words.live, words.ready = (False, "silent"), (False, "takes no tasks")
    for page, text in (("/livez", b"silent\n"), ("/readyz", b"takes no tasks\n")):
        assert (await ask(get(page)))[::2] == ("HTTP/1.1 503 Service Unavailable", text)


async def test_live_and_ready_are_two_things(ask: Ask, words: Words) -> None:
    words.ready = False, "takes no tasks"
    assert (await ask(get("/livez"))).status == "HTTP/1.1 200 OK"


async def test_metrics_are_served_as_they_are(ask: Ask, words: Words) -> None:
    reply = await ask(get("/metrics"))
    assert reply.body == words.metrics
    assert reply.head["Content-Length"] == str(len(words.metrics))
    assert reply.head["Connection"] == "close"
    assert reply.head["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (get("/"), "HTTP/1.1 404 Not Found"),
        (get("/livez/x"), "HTTP/1.1 404 Not Found"),
        (b"POST /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (b"\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (b"\xff\xfe\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
    ],
)
async def test_what_is_no_question_gets_an_answer_all_the_same(
    ask: Ask, request_text: bytes, status: str
) -> None:
    assert (await ask(request_text)).status == status
    assert (await ask(get("/livez"))).status == "HTTP/1.1 200 OK"


async def test_a_line_without_end_is_broken_off(ask: Ask) -> None:
    assert await ask(b"GET /" + b"x" * 100_000) is None
    assert (await ask(get("/livez"))).status == "HTTP/1.1 200 OK"


async def test_a_client_that_says_nothing_is_hung_up_on(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_REQUEST_SECONDS", 0.05)
    assert await ask(b"GET /livez HTTP/1.1\r\n") is None


async def test_a_taken_port_is_an_error_at_the_start() -> None:
    pages = HealthPages(lambda: (True, ""), lambda: (True, ""), bytes)
    async with pages.served("127.0.0.1", 0) as port:
        with pytest.raises(OSError, match="in use"):
            async with pages.served("127.0.0.1", port):
                pass
