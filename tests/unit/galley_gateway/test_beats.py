"""What the workers of a queue say of themselves while a page is open."""

from typing import Any

from galley.broker.control import Heartbeat
from galley_gateway.pages.beats import Beats


class Open:
    """A page that is open, in a time of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.beats = Beats(listening=True, clock=lambda: self.now)

    def hear(self, worker: str, done: int = 0) -> None:
        self.now += 0.1
        self.beats.hear(Heartbeat(worker, 2, 1, draining=False, ready=True, done=done))

    def kept(self) -> int:
        found: Any = self.beats
        return len(found._last) + len(found._ended)


def test_it_shows_who_was_heard_of_a_moment_ago_and_how_many_attempts_end() -> None:
    page = Open()
    for number in range(40):
        page.hear("b", 10 * number)
        page.hear("a")
    assert [each.worker for each in page.beats.workers] == ["a", "b"]
    assert page.beats.rate == "39.0"
    page.now += 4.95
    assert [each.worker for each in page.beats.workers] == ["a"]
    page.now += 10
    assert page.beats.workers == []
    assert page.beats.rate == "0.0"


def test_what_is_over_is_forgotten_though_it_is_not_looked_at() -> None:
    page = Open()
    for number in range(5_000):
        page.hear("one", number)
    assert page.kept() < 200
    for number in range(5_000):
        page.hear(f"worker-{number}")
    assert page.kept() < 200


def test_a_number_without_end_is_shown_as_a_large_one() -> None:
    page = Open()
    page.hear("one")
    page.hear("one", 10**400)
    assert page.beats.rate == "100000.0"
