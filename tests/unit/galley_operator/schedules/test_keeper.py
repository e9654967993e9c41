"""TaskSchedules over an API and a nats-server in memory: schedules are kept, shown, run and removed."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from galley.broker import schedules as stored
from galley.broker.errors import BrokerRefused
from galley.broker.topology import TIMER
from galley.calls import call
from galley.client import AsyncClient
from galley.resources import TaskSchedule
from galley.schedule import RUN_NOW, Origin, Schedule
from galley.schedule_manifest import apply_schedule
from galley_operator.cluster.allowance import BYTES_A_SECOND
from galley_operator.cluster.resource import TASKSCHEDULES
from galley_operator.faults import Faults
from galley_operator.schedules.keeper import ScheduleKeeper
from galley_operator.tasks.known_queues import KnownQueues
from galley_worker.ledger import Ledger
from galley_worker.measures import Measures
from galley_worker.ticker import Ticker
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import a_task_queue_object

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Stage:
    server: MemoryServer
    cluster: MemoryCluster
    broker: MemoryBroker
    queues: KnownQueues
    faults: Faults

    def declare(self, name: str = "nightly", namespace: str = "default", **spec: Any) -> dict[str, Any]:
        """Have a TaskSchedule be there, or changed, as `kubectl apply` does it."""
        present = self.cluster.objects.get(("taskschedules", namespace, name))
        generation = 1 + (present["metadata"]["generation"] if present else 0)
        uid = present["metadata"]["uid"] if present else f"uid-{name}-{len(self.cluster.past)}"
        metadata = {"name": name, "namespace": namespace, "uid": uid, "generation": generation}
        spec = {"queueName": "images", "handler": "resize", "cron": "@every 1m", "overlap": "allow", **spec}
        body = {"metadata": metadata, "spec": spec, "status": present.get("status", {}) if present else {}}
        return self.cluster.put(TASKSCHEDULES, body)

    def annotate(self, name: str, value: str) -> None:
        present = self.cluster.objects["taskschedules", "default", name]
        present["metadata"]["annotations"] = {RUN_NOW: value}
        self.cluster.touch(TASKSCHEDULES, "default", name)

    def status(self, name: str = "nightly", namespace: str = "default") -> dict[str, Any]:
        return dict(self.cluster.objects["taskschedules", namespace, name].get("status") or {})

    def ready(self, name: str = "nightly", namespace: str = "default") -> str:
        conditions = self.status(name, namespace).get("conditions") or [{"reason": "none"}]
        return str(conditions[0]["reason"])

    async def kept(self, name: str = "nightly", queue: str = "images") -> Schedule | None:
        found = await stored.find(self.broker, "default", queue, name)
        return found.schedule if found is not None else None

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[None]:
        keeper = ScheduleKeeper(self.cluster, self.broker, self.queues, (None,), self.faults, self.server.now)
        running = asyncio.create_task(keeper.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        async with MemoryBroker(self.server, "w1") as broker:
            counted = Measures("default", "images", lambda: 1, lambda: 0)
            ticker = Ticker(broker, a_queue(), Ledger(broker), counted, self.server.now)
            running = asyncio.create_task(ticker.run())
            try:
                yield
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def a_stage() -> AsyncIterator[Stage]:
    server, queues = MemoryServer(BEGAN), KnownQueues()
    for name in ("images", "texts"):
        server.create(a_queue(name))
        body = a_task_queue_object(name)
        body["metadata"]["uid"] = f"uid-{name}"
        queues.seen(body)
    async with MemoryBroker(server, "operator") as broker:
        yield Stage(server, MemoryCluster(), broker, queues, Faults())


@in_virtual_time
async def test_a_schedule_is_kept_and_its_status_shows_how_far_it_is() -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        await asyncio.sleep(130)
        kept = await stage.kept()
        assert kept is not None
        assert (kept.origin, kept.generation) == (Origin.OBJECT, 1)
        status = stage.status()
        assert status["fired"] == 2
        assert status["lastTime"] == "2026-03-01T12:02:00Z"
        assert status["nextTime"] == "2026-03-01T12:03:00Z"
        assert [tick["action"] for tick in status["recent"]] == ["Fired", "Fired"]
        assert status["lastTask"].startswith("nightly-")
        written = len(stage.cluster.log)
        await asyncio.sleep(40)
        assert len(stage.cluster.log) == written, "nothing is written while nothing happens"
        assert stage.faults.seen == 0


@in_virtual_time
async def test_two_operators_at_the_same_time_double_no_tick() -> None:
    """A frozen leader may go on for a moment beside the next one."""
    async with a_stage() as stage, stage.worker(), stage.operator(), stage.operator():
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        await asyncio.sleep(600)
        stage.declare(cron="@every 2m")
        await asyncio.sleep(600)
        kept = await stage.kept()
        assert kept is not None
        assert kept.generation == 2
        submitted = [
            each.subject
            for each in stage.server.log
            if (each.what, each.kind) == ("stored", "schedule") and f".{TIMER}." not in each.subject
        ]
        assert len(submitted) == len(set(submitted)) == kept.progress.fired
        assert 14 <= len(submitted) <= 16, "ten in the first ten minutes, five in the next"


@in_virtual_time
async def test_it_fires_on_while_the_operator_is_away() -> None:
    async with a_stage() as stage, stage.worker():
        stage.declare()
        async with stage.operator():
            await eventually(lambda: stage.ready() == "Active", within=30)
        await asyncio.sleep(3 * 3600)
        kept = await stage.kept()
        assert kept is not None
        assert kept.progress.fired == 180


@in_virtual_time
async def test_a_changed_spec_changes_the_schedule_and_another_queue_moves_it() -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        stage.declare(cron="0 3 * * *", timeZone="Europe/Berlin", suspend=True)
        await eventually(lambda: stage.ready() == "Suspended", within=30)
        kept = await stage.kept()
        assert kept is not None
        assert (kept.repeat.cron, kept.repeat.time_zone) == ("0 3 * * *", "Europe/Berlin")
        stage.declare(queueName="texts")

        async def moved() -> bool:
            return await stage.kept() is None and await stage.kept(queue="texts") is not None

        await eventually(moved, within=200)


@in_virtual_time
async def test_a_deleted_schedule_is_removed_also_if_the_operator_was_away() -> None:
    async with a_stage() as stage, stage.worker():
        async with stage.operator():
            stage.declare("one")
            stage.declare("two")
            await eventually(lambda: (stage.ready("one"), stage.ready("two")) == ("Active",) * 2, within=30)
            stage.cluster.remove(TASKSCHEDULES, "one")

            async def gone() -> bool:
                return await stage.kept("one") is None

            await eventually(gone, within=30)
        stage.cluster.remove(TASKSCHEDULES, "two")
        assert await stage.kept("two") is not None
        async with stage.operator():

            async def gone_too() -> bool:
                return await stage.kept("two") is None

            await eventually(gone_too, within=100)


@in_virtual_time
async def test_a_schedule_of_a_program_is_neither_removed_nor_taken() -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        client = AsyncClient.over(stage.broker, "default")
        await client.schedules.create("nightly", call("images", "resize"), "@every 1m")
        stage.declare()
        await eventually(lambda: stage.ready() == "ScheduleTaken", within=30)
        await asyncio.sleep(150)
        kept = await stage.kept()
        assert kept is not None
        assert kept.origin is Origin.CLIENT


@in_virtual_time
async def test_a_new_value_of_the_annotation_runs_it_once() -> None:
    async with a_stage() as stage, stage.worker():
        async with stage.operator():
            stage.declare(cron="0 3 * * *")
            await eventually(lambda: stage.ready() == "Active", within=30)
            stage.annotate("nightly", "monday")
            await eventually(lambda: stage.status().get("runNow") == "monday", within=30)
        async with stage.operator():
            await asyncio.sleep(100)
        tasks = [each for each in stage.server.log if each.what == "stored" and each.kind == "task"]
        assert len(tasks) == 1
        assert tasks[0].subject.split(".")[-1].startswith("nightly-now-")


@in_virtual_time
async def test_a_value_longer_than_the_status_keeps_runs_it_once(caplog: pytest.LogCaptureFixture) -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        caplog.set_level(logging.INFO)
        stage.declare(cron="0 3 * * *")
        await eventually(lambda: stage.ready() == "Active", within=30)
        for number, end in enumerate("ab", 1):
            stage.annotate("nightly", "x" * 300 + end)
            await asyncio.sleep(100)
            assert caplog.messages.count("schedule run now") == number
            assert len(stage.status()["runNow"]) <= 256


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"cron": "0 0 30 2 *"}, "ManifestInvalid", "spec.cron: '0 0 30 2 *' never fires"),
        ({"timeZone": "Europe/Atlantis"}, "ManifestInvalid", "spec.timeZone: there is no time zone"),
        ({"start": "2026-02-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "ManifestInvalid", "spec.end"),
        ({"overlap": "skip", "catchUp": "all"}, "ManifestInvalid", "spec.catchUp"),
        ({"queueName": "nowhere"}, "QueueNotFound", "nowhere"),
        ({"queueName": "images", "priority": "critical"}, "LaneNotEnabled", "critical"),
        ({"cron": "@daily", "end": "2026-01-01T00:00:00Z"}, "Ended", "no further tick"),
    ],
)
@in_virtual_time
async def test_what_is_wrong_is_a_condition_until_it_is_put_right(
    spec: dict[str, Any], reason: str, words: str
) -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        stage.declare(**spec)
        await eventually(lambda: stage.ready() == reason, within=30)
        assert words in stage.status()["conditions"][0]["message"]
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        assert stage.faults.seen == 0


@in_virtual_time
async def test_errors_of_broker_and_cluster_are_outlived() -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        stage.broker.line.lose(to_server=lambda _subject: True)
        await asyncio.sleep(200)
        stage.broker.line.lose()
        stage.cluster.away = True
        await asyncio.sleep(200)
        stage.cluster.away = False
        await asyncio.sleep(60)
        now = stage.server.now()
        assert now - datetime.fromisoformat(stage.status()["lastTime"]) <= timedelta(seconds=70)
        assert stage.faults.seen == 0


@in_virtual_time
async def test_a_queue_whose_schedules_cannot_be_read_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = stored.schedules_of

    def refuse(broker: Any, namespace: str, queue: str, name: str = "*") -> Any:
        if queue == "images" and name == "*":
            raise BrokerRefused("read stream", 10100, "broken for this one")
        return read(broker, namespace, queue, name)

    async with a_stage() as stage, stage.worker():
        async with stage.operator():
            stage.declare("two", queueName="texts")
            await eventually(lambda: stage.ready("two") == "Active", within=30)
        stage.cluster.remove(TASKSCHEDULES, "two")
        monkeypatch.setattr(stored, "schedules_of", refuse)
        async with stage.operator():

            async def gone() -> bool:
                return await stage.kept("two", "texts") is None

            await eventually(gone, within=100)
        assert "schedules of a queue not swept" in caplog.messages
        assert stage.faults.seen == 0


@in_virtual_time
async def test_a_schedule_whose_object_cannot_be_read_any_more_fires_on() -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        stage.declare(queueName=5)
        await asyncio.sleep(300)
        kept = await stage.kept()
        assert kept is not None, "its object is still there"
        assert kept.progress.fired >= 5
        assert stage.ready() == "ManifestInvalid"


@in_virtual_time
async def test_an_unexpected_error_costs_one_schedule_and_is_counted() -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        write = stage.cluster.replace_status

        async def broken(resource: Any, namespace: str, name: str, version: str, status: Any) -> None:
            if name == "bad":
                raise RuntimeError("broken for this one")
            await write(resource, namespace, name, version, status)

        stage.cluster.replace_status = broken  # type: ignore[method-assign, assignment]
        stage.declare("bad")
        stage.declare("good")
        await eventually(lambda: stage.ready("good") == "Active", within=60)
        await eventually(lambda: stage.faults.seen >= 2, within=300)
        assert stage.ready("bad") == "none"
        stage.cluster.replace_status = write  # type: ignore[method-assign]
        await eventually(lambda: stage.ready("bad") == "Active", within=300)


@in_virtual_time
async def test_a_schedule_restored_without_its_uid_is_taken_over() -> None:
    async with a_stage() as stage, stage.worker(), stage.operator():
        client = AsyncClient.over(stage.broker, "default")
        manifest = TaskSchedule.model_validate(
            {
                "metadata": {"name": "nightly"},
                "spec": {"queueName": "images", "handler": "resize", "cron": "@every 1m", "overlap": "allow"},
            }
        )
        assert await apply_schedule(client, manifest)
        assert not await apply_schedule(client, manifest)
        await asyncio.sleep(150)
        assert await stage.kept() is not None, "it has no object, and was not removed"
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        kept = await stage.kept()
        assert kept is not None
        assert kept.uid == stage.cluster.objects["taskschedules", "default", "nightly"]["metadata"]["uid"]
        assert not await apply_schedule(client, manifest), "and what has an object stays its own"


@in_virtual_time
async def test_large_schedules_that_are_refused_cost_no_other_namespace() -> None:
    """All were read every five seconds, in one go, whether they were kept or not."""
    async with a_stage() as stage, stage.operator():
        for number in range(40):
            stage.declare(f"large{number}", namespace="other", input={"text": "x" * 1_000_000})
        began, reads = stage.server.now(), stage.cluster.reads
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=10)

        def told() -> set[str]:
            return {stage.ready(f"large{number}", "other") for number in range(40)}

        await eventually(lambda: "none" not in told(), within=30, why="a condition of each")
        await asyncio.sleep(60)
        seconds = (stage.server.now() - began).total_seconds()
        most = (seconds + 5) * BYTES_A_SECOND / 1_000_000 + 3
        assert 5 < stage.cluster.reads - reads <= most
        await eventually(lambda: told() == {"ManifestInvalid"}, within=200, why="each in its turn")


@in_virtual_time
async def test_a_schedule_that_is_kept_is_not_read_again() -> None:
    async with a_stage() as stage, stage.operator():
        stage.declare()
        await eventually(lambda: stage.ready() == "Active", within=30)
        reads = stage.cluster.reads
        await asyncio.sleep(60)
        assert stage.cluster.reads == reads
        stage.declare(cron="@every 2m")
        await eventually(lambda: stage.cluster.reads == reads + 1, within=30)
