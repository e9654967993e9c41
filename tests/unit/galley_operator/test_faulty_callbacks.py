"""An exception in any callback of the operator costs one Task, queue or look, and the operator goes on.

A callback is a method that is handed to another part (found in the code, so that a new one is tried as well),
or one by which a part hears of changes. In each in turn an exception is raised the first time it is called.
"""

import asyncio
import importlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from msgspec.structs import replace

import galley_operator
from galley.broker.connection import Broker
from galley.broker.publish import Publisher
from galley_operator.cluster.resource import DEPLOYMENTS, PODS, TASKS
from galley_operator.fleet.names import selected_by
from tests.support.callbacks import Callbacks, Raising
from tests.support.eventually import eventually
from tests.support.memory_nats.client import MemoryClient
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import desk
from tests.unit.galley_operator.queues.test_queues import stage
from tests.unit.galley_operator.test_data_path import LATER, applied_by_a_client

HEARING: Final = ({"changed", "gone"}, {"new", "gone"})
"""What classes have by which a part hears of changes (see the protocols `Listener` and `TaskListener`)."""

OF_THE_PROCESS: Final = {
    "Operator.": "the process itself; test_leadership.py, e2e/test_operator_killed.py",
    "Serving.": "runs within keep_running, and each namespace apart; test_serving.py",
    "Scope.": "runs within keep_running of its namespace; test_serving.py",
    "Views.": "runs within keep_running; test_serving.py",
    "BrokerAccess.": "before the process leads: it ends, and is started again",
    "Leadership.": "a replica that cannot lead ends; tests/unit/galley_operator/test_leadership_errors.py",
    "QueueWatch.": "kopf's watch; tests/unit/galley_operator/test_handlers.py",
    "CertificateKeeper.": "runs within keep_running; its own tests",
    "BackupSecret.": "runs within keep_running; its own tests",
    "LoopWatch.": "measures the loop; without it /livez fails and the process is started again",
    "OperatorMetrics.": "of a page: the request fails, tests/unit/galley_operator/test_health.py",
    "Health.": "of a page: the request fails, tests/unit/galley_operator/test_health.py",
    "Redrives.": "of a Task that failed, which the desk here has none of; intake/test_redrives.py",
    "TopicsKeeper.": "runs within keep_running, and each topic apart; topics/test_topics_keeper.py",
    "WorkflowKeeper.": "runs within keep_running, and each workflow apart; workflows/test_workflow_keeper.py",
    "ScheduleKeeper.": "runs within keep_running, and each schedule apart; schedules/test_keeper.py",
    "WorkerEnds.": "runs within keep_running; fleet/test_workloads.py",
    "AuditTrail.": "runs within keep_running; tests/integration/credentials/test_audit.py",
    "CountKeeper.": "runs within keep_running; test_figures.py",
    "StreamCollector.": "runs within keep_running; e2e/api/test_queues_collected.py",
    "Authority.": "within the look at its queue; tests/integration/credentials/test_accounts.py",
    "DataPath._follow": "the desk has streams of its own; what they hand on is RecordStreams._react",
    "DataPath._known": "within the reading of one record; test_hostile_objects.py",
    "Queues.supply": "within the answer to one question of a client",
    "Workloads.end_of": "within the report of one record, as StatusKeeper.heard is",
    "DeploymentFleet.": "within keep_running of its queue's scaling; test_deployment_fleet.py",
}
"""Callbacks that are not tried here, by how their names begin, and why."""


CALLBACKS: Final = Callbacks(galley_operator, HEARING)
TRIED: Final = sorted(name for name in CALLBACKS.all if not name.startswith(tuple(OF_THE_PROCESS)))


def told(change: Callable[..., Any], *args: Any, **named: Any) -> None:
    """Have kopf's handler tell of a change: it catches what is raised."""
    with suppress(RuntimeError):
        change(*args, **named)


def cut(broker: Broker) -> None:
    """Lose the connection to the broker."""
    assert isinstance(broker.nats, MemoryClient)
    broker.nats.cut()


async def use_of_tasks() -> None:
    """Have all happen that happens to Tasks; the last of them must be served in full."""
    async with desk(resync_seconds=30.0, sweep_seconds=30.0, expiry_seconds=10.0, task_ttl_seconds=60) as it:
        told(it.queue)
        await applied_by_a_client(it, "adopted")
        await it.end("adopted", digest=it.envelope("adopted").digest)
        it.api.task("adopted", created=LATER)
        left = replace(it.envelope("left"), uid="uid-of-one-that-is-gone")
        await Publisher(it.broker).publish(it.address("left"), left, chosen_id=True)
        it.api.task("first")
        it.api.task("orphan")
        await asyncio.sleep(5)
        it.api.remove(TASKS, "orphan")
        it.api.cut()
        told(it.queue, "other")
        cut(it.broker)
        await asyncio.sleep(200)
        it.api.task("second")
        await asyncio.sleep(100)
        uid = it.api.task("last")["metadata"]["uid"]
        await it.until("last", "Queued", "Unknown", "Queued", within=1_500)
        await it.end("last", uid=uid)
        await eventually(lambda: it.api.status("last").get("phase") == "Succeeded", within=1_500)
        it.path.expiry._clock = it.server.now
        await eventually(lambda: (TASKS.plural, "default", "last") not in it.api.objects, within=1_500)


async def use_of_queues() -> None:
    """Have all happen that happens to TaskQueues; the last of them must be served in full."""
    async with stage() as it:
        told(it.apply)
        await asyncio.sleep(30)
        labels = selected_by("images")
        it.api.put(PODS, {"metadata": {"namespace": "default", "name": "w1", "labels": labels}})
        told(it.apply, scaling={"workers": 2})
        cut(it.queues._broker)
        await asyncio.sleep(30)
        it.api.remove(PODS, "w1")
        it.api.remove(DEPLOYMENTS, "galley-images")
        await asyncio.sleep(30)
        told(it.apply, "last")
        await eventually(lambda: it.ready("last") == ("True", "Serving"), within=1_500)
        await eventually(lambda: it.ready()[0] != "", within=1_500)


@pytest.mark.parametrize("name", TRIED)
def test_an_exception_in_a_callback_costs_no_more_than_it_must(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = CALLBACKS.all[name]
    cls = getattr(importlib.import_module(each.module), each.owner)
    raising = Raising(cls.__dict__[each.name])
    monkeypatch.setattr(cls, each.name, raising.method)
    in_virtual_time(use_of_tasks)()
    if not raising.times:
        in_virtual_time(use_of_queues)()
    if name in CALLBACKS.certain:
        assert raising.times, (
            f"nothing called {name}: try it here, or say in OF_THE_PROCESS where it is tried"
        )


def test_what_is_not_tried_here_is_there() -> None:
    assert len(TRIED) > 20
    for start in OF_THE_PROCESS:
        assert any(name.startswith(start) for name in CALLBACKS.all), f"{start} is not needed any more"
