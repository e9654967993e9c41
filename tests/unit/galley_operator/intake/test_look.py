"""Putting Tasks into the broker and taking them out again, over a server and an API in memory."""

from typing import Any, Final

import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.errors import BrokerError, BrokerRefused
from galley.broker.publish import Publisher
from galley.envelope import decode
from galley.file import File
from galley.lanes import Lane
from galley.objects.content import Bytes
from galley.objects.store import INPUT
from galley.record import Failure, Outcome, Record, State
from galley.unique import OnConflict, Unique, wanted
from galley_operator.cluster.errors import ClusterUnreachable
from galley_operator.cluster.resource import TASKS
from galley_operator.intake.admission import Publish
from galley_operator.intake.broker_tasks import NatsTasks, Trace
from galley_operator.intake.departures import Departures
from galley_operator.intake.look import Look
from galley_operator.tasks.active_tasks import ActiveTask
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.report import Admitted, Pending, Rejected, Unclear, Until
from tests.support.builders import a_queue, an_envelope
from tests.support.memory_cluster import MemoryCluster
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.intake.tasks import an_active_task
from tests.unit.galley_worker.bench import Bench, a_bench

KEEP: Final = 7200


def a_task(**changes: Any) -> ActiveTask:
    """Return a Task of the queue on the bench."""
    return an_active_task(**{"namespace": "default", "queue": "images", **changes})


def a_look(bench: Bench, cluster: MemoryCluster) -> Look:
    return Look(cluster, NatsTasks(bench.producer), KnownQueues(), lambda _address: KEEP, bench.server.now)


def publishing(bench: Bench) -> Look:
    return a_look(bench, MemoryCluster())


def ended(**changes: Any) -> Record:
    return Record(State.DONE, 1, outcome=Outcome.SUCCEEDED, **changes)


# -- publishing


@in_virtual_time
async def test_a_task_is_put_into_the_broker_flagged_as_one_that_may_have_been_before() -> None:
    async with a_bench() as bench:
        task = a_task()
        envelope = an_envelope(uid=task.uid)
        assert await publishing(bench).carry_out(task, Publish(envelope)) == Admitted()
        (stored,) = bench.seen("stored", "task")
        assert ";r" in stored.headers["Galley"]
        assert isinstance(await publishing(bench).carry_out(task, Publish(envelope)), Unclear)
        assert bench.in_work == 1


@pytest.mark.parametrize(
    ("queue", "backlog", "lane", "until"),
    [
        ("nowhere", 1, Lane.NORMAL, Until.ROOM),
        ("small", 1, Lane.NORMAL, Until.ROOM),
        ("images", 1, Lane.CRITICAL, Until.LATER),
    ],
)
@in_virtual_time
async def test_what_the_broker_refuses_waits_for_what_would_change_that(
    queue: str, backlog: int, lane: Lane, until: Until
) -> None:
    async with a_bench() as bench:
        small = a_queue("small", backlog=backlog)
        bench.server.create(small)
        await bench.submit(TaskAddress("default", "small", Lane.NORMAL, a_task().address.kind, "other"))
        report = await publishing(bench).carry_out(
            a_task(queue=queue, lane=lane), Publish(an_envelope(uid="u1"))
        )
        assert isinstance(report, Pending)
        assert report.until is until


@in_virtual_time
async def test_a_task_whose_input_names_a_file_refers_to_it() -> None:
    async with a_bench() as bench:
        task = a_task()
        reference = await bench.producer.objects.put(task.address, Bytes(b"page"), INPUT, "page.bin")
        named = bytes(File.stored(reference).as_json())
        envelope = an_envelope(uid=task.uid, input=Raw(b'{"page":%s}' % named))
        assert await publishing(bench).carry_out(task, Publish(envelope)) == Admitted()
        (stored,) = bench.seen("stored", "task")
        assert decode(stored.body).files == (reference,)


@in_virtual_time
async def test_a_task_whose_input_names_a_file_that_is_not_there_is_rejected_with_what_to_do() -> None:
    async with a_bench() as bench:
        there = b'{"galley.file":{"digest":"%s","size":4,"name":"a.bin"}}' % (b"0" * 64)
        for inner, reason in ((there, "ObjectMissing"), (b'{"galley.file":"s3://b/a"}', "InputInvalid")):
            step = Publish(an_envelope(uid="u1", input=Raw(b'{"page":%s}' % inner)))
            report = await publishing(bench).carry_out(a_task(), step)
            assert isinstance(report, Rejected)
            assert report.reason == reason
            assert "galley files put" in report.message
        assert bench.in_work == 0


@in_virtual_time
async def test_no_answer_is_no_admission() -> None:
    async with a_bench() as bench:
        bench.producer.line.lose(to_server=lambda subject: subject.startswith("galley.task."))
        with pytest.raises(BrokerError):
            await publishing(bench).carry_out(a_task(), Publish(an_envelope(uid="u1")))
        assert bench.in_work == 0


@pytest.mark.parametrize("running", [False, True])
@in_virtual_time
async def test_the_work_of_an_earlier_task_of_the_name_goes_before_the_new_one_comes(running: bool) -> None:
    async with a_bench() as bench:
        task = a_task(uid="u2")
        broker = NatsTasks(bench.producer)
        if running:
            await Publisher(bench.producer).publish(task.address, an_envelope(uid="u1"), chosen_id=True)
        else:
            bench.put(task.address, ended(uid="u1"))
        earlier = await broker.trace(task.address)
        assert earlier.uid == "u1"
        bench.mark()
        report = await publishing(bench).carry_out(task, Publish(an_envelope(uid="u2"), earlier))
        assert report == Admitted()
        present = await broker.trace(task.address)
        assert (present.uid, present.held, present.stored) == ("u2", True, None)
        assert bench.in_work == 1


# -- departures


def departures(bench: Bench, cluster: MemoryCluster) -> Departures:
    return Departures(cluster, NatsTasks(bench.producer), lambda _address: KEEP)


async def publish(bench: Bench, task: ActiveTask) -> TaskAddress:
    await Publisher(bench.producer).publish(task.address, an_envelope(uid=task.uid), chosen_id=True)
    return task.address


@in_virtual_time
async def test_the_work_of_a_deleted_task_is_cancelled() -> None:
    async with a_bench() as bench:
        gone, task = departures(bench, MemoryCluster()), a_task()
        address = await publish(bench, task)
        key = gone.add(address, task.uid, task.name)
        await gone.settle(key)
        assert (bench.final(address).outcome, bench.in_work, gone.cancelled) == (Outcome.CANCELLED, 0, 1)
        bench.mark()
        await gone.settle(key)
        assert bench.writes() == [], "once"


@in_virtual_time
async def test_the_work_of_a_task_whose_object_is_still_there_goes_on() -> None:
    """It is gone from among the unfinished ones, since it has ended or is about to."""
    async with a_bench() as bench:
        cluster, task = MemoryCluster(), a_task()
        cluster.put(TASKS, {"metadata": {"name": task.name, "namespace": "default", "uid": task.uid}})
        gone = departures(bench, cluster)
        await gone.settle(gone.add(await publish(bench, task), task.uid, task.name))
        assert (bench.in_work, gone.cancelled) == (1, 0)


@in_virtual_time
async def test_the_work_of_a_deleted_task_is_cancelled_though_another_has_its_name() -> None:
    async with a_bench() as bench:
        cluster, task = MemoryCluster(), a_task()
        cluster.put(TASKS, {"metadata": {"name": task.name, "namespace": "default", "uid": "u9"}})
        gone = departures(bench, cluster)
        await gone.settle(gone.add(await publish(bench, task), task.uid, task.name))
        assert (bench.in_work, gone.cancelled) == (0, 1)


@in_virtual_time
async def test_the_work_of_the_next_task_of_the_name_is_not_cancelled_for_the_one_before() -> None:
    async with a_bench() as bench:
        gone = departures(bench, MemoryCluster())
        address = await publish(bench, a_task(uid="u2"))
        await gone.settle(gone.add(address, "u1", ""))
        assert (bench.in_work, gone.cancelled) == (1, 0)


@in_virtual_time
async def test_an_outcome_is_not_replaced_by_a_cancel() -> None:
    async with a_bench() as bench:
        gone, address = departures(bench, MemoryCluster()), a_task().address
        bench.put(address, ended(uid="u1", failure=Failure("X", "y")))
        await gone.settle(gone.add(address, "u1", ""))
        assert bench.final(address).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("away", ["broker", "API server"])
@in_virtual_time
async def test_what_could_not_be_cancelled_is_cancelled_the_next_time(
    away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_bench() as bench:
        cluster, task = MemoryCluster(), a_task()
        gone, address = departures(bench, cluster), await publish(bench, task)
        key = gone.add(address, task.uid, task.name)
        if away == "broker":
            bench.producer.line.lose(to_server=lambda subject: subject.startswith("galley.result."))

        async def fail(*_arguments: object) -> dict[str, Any]:
            raise ClusterUnreachable("https://api", "get", "no answer")

        with monkeypatch.context() as broken:
            if away == "API server":
                broken.setattr(cluster, "get", fail)
            with pytest.raises((BrokerError, ClusterUnreachable)):
                await gone.settle(key)
        assert bench.in_work == 1
        bench.producer.line.lose()
        await gone.settle(key)
        assert (bench.final(address).outcome, bench.in_work) == (Outcome.CANCELLED, 0)


# -- reading


@in_virtual_time
async def test_a_task_found_under_its_uid_by_an_older_operator_is_known_as_ours() -> None:
    async with a_bench() as bench:
        task = a_task(unsure=True)
        by_uid = replace(task, by_uid=True).address
        bench.put(by_uid, Record(State.RUN, 1))
        reading = a_look(bench, MemoryCluster())
        facts = await reading.facts(task)
        assert facts.task.by_uid
        assert facts.trace.stored is not None


@in_virtual_time
async def test_a_spec_that_was_not_kept_is_read_again_and_not_that_of_another_task() -> None:
    async with a_bench() as bench:
        cluster, task = MemoryCluster(), a_task(spec=None)
        spec = {"queueName": "images", "handler": "resize"}
        metadata = {"name": task.name, "namespace": "default", "uid": task.uid}
        reading = a_look(bench, cluster)
        assert (await reading.facts(task)).spec is None, "it is gone"
        cluster.put(TASKS, {"metadata": metadata, "spec": spec})
        assert (await reading.facts(task)).spec is not None
        cluster.put(TASKS, {"metadata": {**metadata, "uid": "u9"}, "spec": spec})
        assert (await reading.facts(task)).spec is None


@in_virtual_time
async def test_a_task_whose_unique_key_is_taken_fails_with_the_name_of_the_other() -> None:
    async with a_bench() as bench:
        key = wanted(Unique(key="k"), "resize", Raw(b"{}"))
        work, first, second = publishing(bench), a_task(name="first"), a_task(name="second", uid="uid-2")
        step = Publish(an_envelope(), unique=key)
        assert await work.carry_out(first, step) == Admitted()
        assert await work.carry_out(first, step) == Unclear(), "as after a lost answer"
        refused = await work.carry_out(second, step)
        assert isinstance(refused, Rejected)
        assert refused.reason == "UniqueConflict"
        assert "first" in refused.message
        assert bench.in_work == 1
        newer = Publish(an_envelope(), unique=replace(key, on_conflict=OnConflict.REPLACE))
        assert await work.carry_out(second, newer) == Admitted()


# -- what is gone


@pytest.mark.parametrize("streams", ["none", "no leader"])
@in_virtual_time
async def test_only_a_queue_without_streams_has_nothing_to_cancel_and_to_forget(streams: str) -> None:
    """A stream of records that has no leader does not answer, as if there were none."""
    async with a_bench() as bench:
        broker, address = NatsTasks(bench.producer), a_task().address
        gone = [topology.records_stream("default", "images")]
        for name in list(bench.server.streams) if streams == "none" else gone:
            del bench.server.streams[name]
        if streams == "none":
            assert await broker.cancel(address, Trace(), KEEP) is None
            await broker.forget(address)
        else:
            with pytest.raises(BrokerRefused, match="no server answers"):
                await broker.cancel(address, Trace(), KEEP)
            with pytest.raises(BrokerRefused, match="not found"):
                await broker.forget(address)
