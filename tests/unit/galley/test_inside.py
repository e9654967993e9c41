"""Inside a worker: for which queues the present code works, its own and those it descends from."""

from datetime import UTC, datetime

import pytest

from galley import current, inside
from galley.current import CurrentTask


def working(monkeypatch: pytest.MonkeyPatch, *ancestors: str, command: bool = False) -> None:
    """Have this process be one of handlers of queue `images`."""
    monkeypatch.setenv(inside.WORKER_VARIABLE, "ns/images")
    if command:
        monkeypatch.setenv(inside.ANCESTORS_VARIABLE, " ".join(ancestors))
        return
    now = datetime(2026, 1, 1, tzinfo=UTC)
    task = CurrentTask("t", "images", "normal", "h", 1, now, None, "", ancestors)
    monkeypatch.setattr(current, "_find", lambda: task)


def test_outside_a_worker_there_is_no_queue() -> None:
    assert inside.line() == ()


@pytest.mark.parametrize("command", [False, True])
def test_the_queues_of_a_task_are_those_it_descends_from_and_its_own(
    monkeypatch: pytest.MonkeyPatch, command: bool
) -> None:
    working(monkeypatch, "ns/a", "other/b", command=command)
    assert inside.line() == ("ns/a", "other/b", "ns/images")


def test_each_queue_is_named_once_and_a_long_line_is_cut_at_its_far_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    working(monkeypatch, "ns/a", "ns/images", "ns/b")
    assert inside.line() == ("ns/a", "ns/b", "ns/images")
    working(monkeypatch, *(f"ns/{number}" for number in range(40)))
    assert inside.line() == (*(f"ns/{number}" for number in range(9, 40)), "ns/images")
