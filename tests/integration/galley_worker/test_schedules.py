"""Schedules on a real server, with real workers that are killed."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Raw

from galley import AsyncClient, Phase, call
from galley.broker.schedules import store
from galley.repeat import Repeat
from galley.resources import TaskQueue
from galley.schedule import Origin, Schedule
from galley.schedules import ScheduleView
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually

HANDLERS = """
from galley import Repeat, task

@task(cron="@every 1s")
def beat():
    return "ok"

@task(cron=Repeat("0 3 * * *", "Europe/Berlin"))
def clean_up(days: int = 7):
    return days
"""


async def test_the_schedules_of_the_code_fire_once_a_tick_though_workers_are_killed(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    (tmp_path / "beats.py").write_text(HANDLERS)
    queue = drills.model_copy(
        update={"spec": drills.spec.model_copy(
            update={"worker": drills.spec.worker.model_copy(update={"modules": ("beats",)})}
        )}
    )  # fmt: skip
    name = queue.metadata.name
    first, second = await start(queue, ("w1", "w2"), GALLEY_IMPORT_PATHS=str(tmp_path))

    async def beats(many: int) -> ScheduleView | None:
        views = {view.name: view for view in await client.schedules.list(name)}
        return views["beat"] if "beat" in views and views["beat"].fired >= many else None

    await eventually(lambda: beats(2), within=30)
    first.kill()
    view = await eventually(lambda: beats(5), within=60)
    assert view is not None
    assert view.origin is Origin.CODE
    (nightly,) = [each for each in await client.schedules.list(name) if each.name == "clean_up"]
    assert nightly.next_at is not None
    assert nightly.next_at.astimezone(UTC) > datetime.now(UTC)
    handle = await client.schedules.run_now(name, "clean_up")
    assert await handle.result(30) == 7
    await client.schedules.delete(name, "beat")
    tasks = [status for status in await client.tasks(name) if status.address.id.startswith("beat-")]
    assert set(Counter(status.address.id for status in tasks).values()) == {1}
    assert len(tasks) >= 5
    assert second.end() == 0
    left = [view.name for view in await client.schedules.list(name)]
    assert left == ["clean_up"]

    # A worker with code that has no schedules any more removes those of the code, and no others.
    (tmp_path / "beats.py").write_text("from galley import task\n\n@task\ndef beat():\n    return 1\n")
    await client.schedules.create("theirs", call(name, "beat"), "@every 1s")
    await start(queue, ("w3",), GALLEY_IMPORT_PATHS=str(tmp_path))

    async def removed() -> bool:
        return [view.name for view in await client.schedules.list(name)] == ["theirs"]

    await eventually(removed, within=30)

    async def succeeded() -> bool:
        return any(
            status.phase is Phase.SUCCEEDED
            for status in await client.tasks(name)
            if status.address.id.startswith("theirs-")
        )

    await eventually(succeeded, within=30)


async def test_a_schedule_whose_task_cannot_be_read_hides_no_other(
    client: AsyncClient, drills: TaskQueue
) -> None:
    queue = drills.metadata.name
    await client.schedules.create("good", call(queue, "echo"), "@every 1h")
    later = datetime.now(UTC) + timedelta(days=1)
    broken = Schedule("broken", Repeat("@every 1h"), Raw(b'{"handler":7}'), "echo")
    ack = await store(client.broker, (client.namespace, queue), broken, later, instead_of=0)
    assert ack.stored, ack
    views = await client.schedules.list(queue)
    assert [view.name for view in views] == ["broken", "good"]
    assert "its task cannot be read" in views[0].problem
    assert (views[0].input, views[1].problem) == (None, "")
    assert await client.schedules.get(queue, "broken") == views[0]
    await client.schedules.delete(queue, "broken")
    assert [view.name for view in await client.schedules.list(queue)] == ["good"]
