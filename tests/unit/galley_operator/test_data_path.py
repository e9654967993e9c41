"""Tasks from the API to the broker and back, over streams of events in memory."""

from galley.record import Outcome
from galley_operator.cluster.resource import TASKS
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import desk


@in_virtual_time
async def test_a_task_is_admitted_under_its_name_and_its_outcome_is_written() -> None:
    async with desk() as it:
        it.queue()
        uid = it.api.task("one")["metadata"]["uid"]
        await it.until("one", "Queued", "Unknown", "Queued")
        assert it.waiting() == ["one"]
        await it.end("one", uid=uid)
        await it.until("one", "Succeeded", "True", "Succeeded")
        assert it.api.status("one")["worker"] == "w1"


@in_virtual_time
async def test_a_task_waits_for_its_queue_and_is_admitted_once_there_is_one() -> None:
    async with desk() as it:
        it.api.task("one")
        await it.until("one", "Pending", "Unknown", "QueueNotFound")
        it.queue()
        await it.until("one", "Queued", "Unknown", "Queued")


@in_virtual_time
async def test_a_deleted_task_is_cancelled() -> None:
    async with desk() as it:
        it.queue()
        it.api.task("one")
        await it.until("one", "Queued", "Unknown", "Queued")
        it.api.remove(TASKS, "one")
        await it.until_gone("one")
        stored = await it.record("one")
        assert stored is not None
        assert stored.record.outcome is Outcome.CANCELLED
