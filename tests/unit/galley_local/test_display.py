import dataclasses
import io
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace
from rich.console import Console

from galley.backlog import LaneBacklog, Unknown
from galley.lanes import Lane
from galley.record import Failure
from galley.task_status import Phase, TaskStatus
from galley_local.display import EventLines, LiveTable, drawn
from galley_local.snapshot import QueueSnapshot, Snapshot
from galley_operator.fleet.fleet import WorkerPhase, WorkerView
from tests.support.builders import an_address
from tests.unit.galley.cli.a_terminal import a_terminal, out

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def a_worker(phase: WorkerPhase) -> WorkerView:
    return WorkerView(f"images-{phase}", phase, 0, 2, NOON)


def a_snapshot(*tasks: TaskStatus, workers: tuple[WorkerPhase, ...] = (), **changes: Any) -> Snapshot:
    defaults: dict[str, Any] = {
        "name": "images",
        "lanes": (LaneBacklog(Lane.HIGH, 3, 1), LaneBacklog(Lane.LOW, 0, 0)),
        "later": 7,
        "workers": tuple(map(a_worker, workers)),
        "wanted": 2,
        "most": 4,
        "reason": "2 workers: 3 waiting + 1 running",
        "problem": "",
    }
    return Snapshot(
        NOON, "nats://127.0.0.1:1", (QueueSnapshot(**{**defaults, **changes}),), tasks, "Ctrl-C ends"
    )


def a_status(phase: Phase = Phase.RUNNING, **changes: Any) -> TaskStatus:
    return replace(
        TaskStatus(an_address(id="life"), phase, handler="thumbnail", worker="images-1", attempt=1), **changes
    )


def text_of(snapshot: Snapshot, most_tasks: int = 10, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        console.print(drawn(snapshot, most_tasks, width))
    return captured.get()


def test_the_table_shows_lanes_workers_and_the_reason() -> None:
    text = text_of(a_snapshot(workers=(WorkerPhase.READY, WorkerPhase.STARTING, WorkerPhase.STARTING)))
    assert ["images", "high", "3", "1", "7", "2", "4", "1", "ready,", "2", "starting"] in [
        row.split() for row in text.splitlines()
    ]
    assert "images: 2 workers: 3 waiting + 1 running" in text
    assert "no tasks yet" in text


def test_tasks_that_do_not_fit_are_counted() -> None:
    assert "and 3 more: galley get tasks" in text_of(a_snapshot(*[a_status()] * 5), most_tasks=2)


def test_a_task_is_shown_with_its_worker_and_age() -> None:
    text = text_of(a_snapshot(a_status(started_at=NOON - timedelta(seconds=9))))
    assert "life   thumbnail   normal   Running         1   images-1   9s ago" in text


def test_a_narrow_table_lacks_columns_rather_than_letters() -> None:
    task = a_status(
        Phase.SUCCEEDED, address=an_address(id="01M7YFGD8YAR2W4T2FJ29RFEV3"), started_at=NOON, ended_at=NOON
    )
    text = text_of(a_snapshot(task), width=80)
    assert "images   01M7YFGD8YAR2W4T2FJ29RFEV3   normal   Succeeded         1   0s ago" in text
    assert "…" not in text
    assert "01M7YFGD8YAR2W4T2FJ29RFEV3   Succeeded         1   0s ago" in text_of(a_snapshot(task), width=72)


def lines_of(*snapshots: Snapshot) -> list[str]:
    lines: list[str] = []
    display = EventLines(lines.append)
    for snapshot in snapshots:
        display.show(snapshot)
    return lines


def test_a_line_is_written_for_what_changed_and_only_then() -> None:
    ready = a_snapshot(a_status(), workers=(WorkerPhase.READY,))
    ended = a_snapshot(
        a_status(Phase.SUCCEEDED, started_at=NOON, ended_at=NOON + timedelta(seconds=2)),
        workers=(WorkerPhase.READY,),
    )
    assert lines_of(ready, ready, ended, ended) == [
        "queue/images: 1 ready; wanted 2 workers: 3 waiting + 1 running",
        "task/life (images): Running on images-1",
        "task/life (images): Succeeded on images-1, 2.00 s",
    ]


def test_tasks_that_only_wait_make_no_lines() -> None:
    assert len(lines_of(a_snapshot(a_status(Phase.QUEUED), a_status(Phase.SCHEDULED)))) == 1


def test_a_task_runs_once_its_worker_is_known() -> None:
    unknown, known = a_snapshot(a_status(worker="")), a_snapshot(a_status())
    assert lines_of(unknown, unknown, known)[1:] == ["task/life (images): Running on images-1"]


def test_changes_that_were_too_many_are_counted() -> None:
    some, more = (dataclasses.replace(a_snapshot(), passed_over=number) for number in (3, 10))
    assert [line.partition(" ")[0] for line in lines_of(some, some, more)[1:]] == ["3", "7"]


def test_a_lane_is_empty_that_was_seen_without_tasks() -> None:
    (queue,) = a_snapshot(later=0).queues
    assert queue.empty == (Lane.LOW,)
    lanes = LaneBacklog(Lane.LOW, 0, 0, stale=Unknown("no answer", NOON)), LaneBacklog(Lane.HIGH, 0, 0)
    (queue,) = a_snapshot(later=0, lanes=lanes).queues
    assert queue.empty == (Lane.HIGH,)
    (queue,) = a_snapshot(later=1, lanes=lanes).queues
    assert queue.empty == ()


def test_a_failure_is_told_with_its_message_and_attempt() -> None:
    status = a_status(Phase.FAILED, attempt=2, failure=Failure("AttemptsExhausted", "not an image"))
    assert (
        lines_of(a_snapshot(status))[-1] == "task/life (images): Failed on images-1, attempt 2: not an image"
    )


def test_a_problem_is_told_even_if_the_last_reason_did_not_know_it() -> None:
    [line] = lines_of(a_snapshot(workers=(WorkerPhase.FAILED,), problem="module x does not import"))
    assert line.endswith("; module x does not import")


def test_text_of_tasks_and_workers_is_only_displayed_by_the_terminal() -> None:
    evil = "\x1b[2J\x9b31m\r\x07\u202e"
    status = a_status(Phase.FAILED, handler=evil, worker=evil, failure=Failure("HandlerRaised", evil))
    snapshot = a_snapshot(status, problem=evil, reason=evil)
    screen = io.StringIO()
    live = LiveTable(Console(file=screen, width=200, force_terminal=True, color_system=None), passing=False)
    with live:
        live.say(evil)
        live.show(snapshot)
    terminal = a_terminal()
    EventLines(terminal.result).show(snapshot)
    for shown in (screen.getvalue(), out(terminal)):
        assert r"\x1b[2J\x9b31m" in shown
        assert not [part for part in ("\x1b[2J", "\x9b", "\x07", "\u202e") if part in shown]
