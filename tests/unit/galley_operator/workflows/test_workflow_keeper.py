"""Workflows over an API and a nats-server in memory: submitted once, shown, cancelled, expired, refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw

from galley.broker.cancel import Cancelled
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.broker.flow_values import Place
from galley.broker.records import Records
from galley.client import AsyncClient
from galley.record import Failure, Outcome, Record, State
from galley.workflow.errors import WorkflowNotFound
from galley.workflow.state import WORKFLOW, outcome_address, workflow_id
from galley.workflows import AsyncWorkflow, AsyncWorkflows
from galley_operator.cluster.allowance import BYTES_A_SECOND
from galley_operator.cluster.errors import ObjectConflict
from galley_operator.cluster.resource import WORKFLOWS
from galley_operator.faults import Faults
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.workflows.keeper import WorkflowKeeper
from tests.support.builders import a_queue
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster, Written
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import a_task_queue_object

PAY = {"name": "pay", "queueName": "images", "handler": "pay", "input": {"amount": 3}}
SEND = {
    "name": "send",
    "queueName": "images",
    "handler": "send",
    "input": {"receipt": "${steps.pay.result.id}"},
}


@dataclass
class Stage:
    server: MemoryServer
    cluster: MemoryCluster
    broker: MemoryBroker
    queues: KnownQueues
    faults: Faults
    uids: dict[str, str] = field(default_factory=dict)

    def declare(
        self, *steps: dict[str, Any], name: str = "order", uid: str = "u1", flow: str = "",
        namespace: str = "default", **spec: Any,
    ) -> None:  # fmt: skip
        """Have a Workflow be there, as `kubectl apply` does it."""
        metadata: dict[str, Any] = {
            "name": name, "namespace": namespace, "uid": uid, "generation": 1,
            "creationTimestamp": self.server.now().isoformat(),
        }  # fmt: skip
        if flow:
            metadata["annotations"] = {WORKFLOW: flow}
        self.cluster.put(WORKFLOWS, {"metadata": metadata, "spec": {"steps": list(steps), **spec}})

    def status(self, name: str = "order", namespace: str = "default") -> dict[str, Any]:
        return dict(self.cluster.objects["workflows", namespace, name].get("status") or {})

    def phase(self, name: str = "order") -> str:
        return str(self.status(name).get("phase", ""))

    async def reaches(self, phase: str, name: str = "order") -> None:
        await eventually(lambda: self.phase(name) == phase, within=30)

    def condition(self, kind: str, name: str = "order") -> dict[str, Any]:
        return next(each for each in self.status(name)["conditions"] if each["type"] == kind)

    @property
    def client(self) -> AsyncClient:
        return AsyncClient.over(self.broker, "default")

    async def end(self, flow: str, outcome: Outcome, failure: Failure | None = None, **rest: Any) -> None:
        """Record the outcome of a workflow, as a worker does."""
        address = outcome_address("default", "images", flow)
        now = self.server.now()
        final = Record(State.DONE, 1, ended_at=now, outcome=outcome, failure=failure, **rest)
        ack = await Records(self.broker).write(address, final, 0, 3600)
        assert ack.stored


@asynccontextmanager
async def a_stage(*, one_queue: bool = False, served: bool = True) -> AsyncIterator[Stage]:
    # Deadlines of workflows are made with the real clock.
    server, queues = MemoryServer(datetime.now(UTC)), KnownQueues()
    if served:
        server.create(a_queue("images"))
    body = a_task_queue_object("images")
    body["metadata"]["uid"] = "uid-images"
    queues.seen(body)
    async with MemoryBroker(server, "operator") as broker:
        stage = Stage(server, MemoryCluster(), broker, queues, Faults())
        keeper = WorkflowKeeper(
            stage.cluster, broker, queues, (None,), stage.faults, clock=server.now, one_queue=one_queue
        )
        running = asyncio.create_task(keeper.run())
        try:
            yield stage
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_a_workflow_is_submitted_once_and_its_status_follows() -> None:
    async with a_stage() as stage:
        stage.declare(PAY, SEND)
        await eventually(lambda: stage.phase() == "Running", within=30)
        status = stage.status()
        assert status["progress"] == "0 of 2"
        assert (status["queue"], status["workflow"]) == ("images", workflow_id("order", "u1"))
        assert (stage.condition("Succeeded")["status"], stage.condition("Finished")["status"]) == (
            "Unknown",
            "False",
        )
        steps = await stage.client.workflows.get("images", status["workflow"]).steps()
        assert [(step.name, step.after) for step in steps] == [("pay", ()), ("send", ("pay",))]
        await asyncio.sleep(20)
        assert len(await stage.client.workflows.list("images")) == 1
        await stage.end(status["workflow"], Outcome.SUCCEEDED, result=Raw(b'{"send":"sent"}'))
        await eventually(lambda: stage.phase() == "Succeeded", within=30)
        assert stage.status()["result"] == {"send": "sent"}
        assert (stage.condition("Succeeded")["status"], stage.condition("Finished")["status"]) == (
            "True",
            "True",
        )


@in_virtual_time
async def test_a_failure_is_shown_with_its_reason() -> None:
    async with a_stage() as stage:
        stage.declare(PAY, SEND)
        await eventually(lambda: stage.phase() == "Running", within=30)
        failure = Failure("StepFailed", "step pay: ValueError: no money")
        await stage.end(stage.status()["workflow"], Outcome.FAILED, failure)
        await eventually(lambda: stage.phase() == "Failed", within=30)
        assert stage.status()["error"] == {
            "reason": "StepFailed",
            "message": failure.message,
            "traceback": "",
        }
        assert stage.condition("Succeeded")["reason"] == "StepFailed"


@in_virtual_time
async def test_deleting_the_object_cancels_the_workflow_and_a_new_one_runs_again() -> None:
    async with a_stage() as stage:
        stage.declare(PAY)
        await eventually(lambda: stage.phase() == "Running", within=30)
        stage.cluster.remove(WORKFLOWS, "order")
        workflow = stage.client.workflows.get("images", workflow_id("order", "u1"))

        async def cancelled() -> bool:
            return (await workflow.status()).phase == "Cancelled"

        await eventually(cancelled, within=10)
        stage.declare(PAY, uid="u2")
        await eventually(lambda: stage.status().get("workflow") == workflow_id("order", "u2"), within=30)
        assert stage.phase() == "Running"


@in_virtual_time
async def test_what_was_deleted_while_no_operator_looked_is_cancelled_at_the_second_sweep() -> None:
    async with a_stage() as stage:
        left = await stage.client.workflows.submit(_graph(), id="left", uid="gone")
        own = await stage.client.workflows.submit(_graph(), id="own")
        await asyncio.sleep(10)
        assert (await left.status()).phase == "Running", "a restore makes objects after streams"

        async def cancelled() -> bool:
            return (await left.status()).phase == "Cancelled"

        await asyncio.sleep(60)
        assert await cancelled()
        assert (await own.status()).phase == "Running", "no object was ever there for it"


@in_virtual_time
async def test_a_restored_object_goes_on_with_its_workflow() -> None:
    async with a_stage() as stage:
        stage.declare(PAY, SEND)
        await eventually(lambda: stage.phase() == "Running", within=30)
        flow = stage.status()["workflow"]
        del stage.cluster.objects["workflows", "default", "order"]
        stage.declare(PAY, SEND, uid="u2", flow=flow)
        await eventually(lambda: stage.phase() == "Running", within=30)
        await asyncio.sleep(70)
        assert [status.id for status in await stage.client.workflows.list("images")] == [flow]
        assert stage.phase() == "Running"


@in_virtual_time
async def test_what_cannot_run_fails_with_the_reason_and_is_not_submitted() -> None:
    async with a_stage(one_queue=True) as stage:
        stage.declare(PAY | {"dependsOn": ["send"]}, SEND, name="cycle")
        stage.declare(PAY, SEND | {"queueName": "mail"}, name="across")
        await stage.client.workflows.submit(_graph(), id="taken")
        stage.declare(PAY, SEND, name="conflict", flow="taken")
        for name, reason, says in (
            ("cycle", "ManifestInvalid", "has a cycle: pay after send after pay"),
            ("across", "WorkflowAcrossQueues", "images, mail"),
            ("conflict", "WorkflowConflict", "another workflow 'taken'"),
        ):
            await stage.reaches("Failed", name)
            assert stage.condition("Finished", name)["reason"] == reason
            assert says in stage.status(name)["error"]["message"]
        assert [status.id for status in await stage.client.workflows.list("images")] == ["taken"]


@in_virtual_time
async def test_one_whose_queue_is_missing_waits_and_fails_when_its_time_is_over() -> None:
    async with a_stage(served=False) as stage:
        stage.declare(PAY, timeoutSeconds=40)
        await eventually(lambda: stage.phase() == "Pending", within=30)
        assert stage.condition("Succeeded")["reason"] == "QueueNotFound"
        await eventually(lambda: stage.phase() == "Failed", within=60)
        assert stage.condition("Succeeded")["reason"] == "WorkflowNotBegun"
        assert stage.condition("Finished")["status"] == "True"
        stage.declare(PAY, name="late")
        await eventually(lambda: stage.phase("late") == "Pending", within=30)
        stage.server.create(a_queue("images"))
        await eventually(lambda: stage.phase("late") == "Running", within=30)


@in_virtual_time
async def test_one_whose_queue_is_deleted_has_ended_at_its_deadline() -> None:
    async with a_stage() as stage:
        stage.declare(PAY, timeoutSeconds=40)
        await eventually(lambda: stage.phase() == "Running", within=30)
        place = Place("default", "images", stage.status()["workflow"])
        for stream in [name for name in stage.server.streams if "images" in name]:
            del stage.server.streams[stream]
        assert place.stream not in stage.server.streams
        await eventually(lambda: stage.condition("Succeeded")["reason"] == "QueueNotFound", within=30)
        assert stage.phase() == "Running", "a restore may bring it back"
        await eventually(lambda: stage.phase() == "Failed", within=60)
        assert stage.condition("Succeeded")["reason"] == "WorkflowNotBegun"


@in_virtual_time
async def test_the_object_goes_some_time_after_the_end() -> None:
    async with a_stage() as stage:
        stage.declare(PAY, ttlSecondsAfterFinished=30)
        stage.declare(PAY, name="kept")
        for name in ("order", "kept"):
            await stage.reaches("Running", name)
            await stage.end(stage.status(name)["workflow"], Outcome.SUCCEEDED)
            await stage.reaches("Succeeded", name)
        await asyncio.sleep(15)
        assert ("workflows", "default", "order") in stage.cluster.objects
        await eventually(lambda: ("workflows", "default", "order") not in stage.cluster.objects, within=100)
        assert ("workflows", "default", "kept") in stage.cluster.objects


@in_virtual_time
async def test_an_api_server_that_is_away_costs_a_look_and_no_workflow() -> None:
    async with a_stage() as stage:
        stage.cluster.away = True
        stage.declare(PAY)
        await asyncio.sleep(20)
        stage.cluster.away = False
        await eventually(lambda: stage.phase() == "Running", within=30)
        assert stage.faults.seen == 0


@in_virtual_time
async def test_a_broker_that_is_away_costs_looks_and_what_was_deleted_meanwhile_is_cancelled() -> None:
    async with a_stage() as stage:
        stage.declare(PAY)
        await stage.reaches("Running")
        flow = stage.status()["workflow"]
        stage.broker.line.lose(to_server=lambda _subject: True)
        stage.cluster.remove(WORKFLOWS, "order")
        stage.declare(PAY, name="next", uid="u2")
        await asyncio.sleep(200)
        stage.broker.line.lose()
        await stage.reaches("Running", "next")

        async def cancelled() -> bool:
            return (await stage.client.workflows.get("images", flow).status()).phase == "Cancelled"

        await asyncio.sleep(60)
        assert await cancelled()
        assert stage.faults.seen == 0


@pytest.mark.parametrize(
    "refusal", [WorkflowNotFound("images", "a"), BrokerRefused("write", 10100, "broken for this one")]
)
@in_virtual_time
async def test_a_workflow_that_cannot_be_cancelled_keeps_no_other_from_it(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It expires between the list and the cancel, cannot be read, or the broker refuses."""
    async with a_stage() as stage:
        graphs = [await stage.client.workflows.submit(_graph(), id=name, uid="gone") for name in ("a", "b")]
        cancel = AsyncWorkflow.cancel

        async def cancels(self: AsyncWorkflow[Any]) -> Cancelled:
            if self.id == "a":
                raise refusal
            return await cancel(self)

        monkeypatch.setattr(AsyncWorkflow, "cancel", cancels)
        await asyncio.sleep(70)
        assert [(await graph.status()).phase for graph in graphs] == ["Running", "Cancelled"]
        assert stage.faults.seen == 0


@in_virtual_time
async def test_a_broker_that_goes_away_while_workflows_are_cancelled_is_asked_for_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_stage() as stage:
        graphs = [await stage.client.workflows.submit(_graph(), id=name, uid="gone") for name in ("a", "b")]
        cancel, asked = AsyncWorkflow.cancel, list[str]()

        async def cancels(self: AsyncWorkflow[Any]) -> Cancelled:
            asked.append(self.id)
            if len(asked) == 1:
                raise BrokerUnreachable("nats", "away")
            return await cancel(self)

        monkeypatch.setattr(AsyncWorkflow, "cancel", cancels)
        await eventually(lambda: bool(asked), within=200)
        await asyncio.sleep(1)
        assert asked == ["a"]
        assert "workflow not cancelled" not in caplog.messages
        await eventually(lambda: len(asked) == 3, within=200)
        assert [(await graph.status()).phase for graph in graphs] == ["Cancelled", "Cancelled"]


@in_virtual_time
async def test_a_queue_whose_workflows_cannot_be_listed_keeps_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_stage() as stage:
        body = a_task_queue_object("broken")
        body["metadata"]["uid"] = "uid-broken"
        stage.queues.seen(body)
        left = await stage.client.workflows.submit(_graph(), id="left", uid="gone")
        listed = AsyncWorkflows.list

        async def refuse(self: AsyncWorkflows, queue: str, **more: Any) -> Any:
            if queue == "broken":
                raise BrokerRefused("read stream", 10100, "broken for this one")
            return await listed(self, queue, **more)

        monkeypatch.setattr(AsyncWorkflows, "list", refuse)
        await asyncio.sleep(70)
        assert (await left.status()).phase == "Cancelled"
        assert "workflows of a queue not swept" in caplog.messages
        assert stage.faults.seen == 0


@in_virtual_time
async def test_a_fault_at_one_workflow_is_counted_and_the_others_go_on() -> None:
    async with a_stage() as stage:

        def raises(request: Written) -> None:
            if request.name == "order":
                raise RuntimeError("a bug")

        stage.cluster.before = raises
        stage.declare(PAY)
        stage.declare(PAY, name="other", uid="u2")
        await stage.reaches("Running", "other")
        assert stage.faults.seen > 0
        stage.cluster.before = lambda _request: None
        await stage.reaches("Running")


@in_virtual_time
async def test_an_ended_object_that_was_changed_or_replaced_is_left_alone() -> None:
    async with a_stage() as stage:
        for name, uid in (("order", "u1"), ("raced", "u2")):
            stage.declare(PAY, name=name, uid=uid, ttlSecondsAfterFinished=30)
            await stage.reaches("Running", name)
            await stage.end(stage.status(name)["workflow"], Outcome.SUCCEEDED)
            await stage.reaches("Succeeded", name)
        changed = stage.cluster.objects["workflows", "default", "order"]
        changed["spec"]["ttlSecondsAfterFinished"] = "soon"
        stage.cluster.touch(WORKFLOWS, "default", "order")
        refused: list[str] = []

        def replaced(request: Written) -> None:
            if request.verb == "delete":
                refused.append(request.name)
                raise ObjectConflict("delete", request.name, 409, "another uid")

        stage.cluster.before = replaced
        await asyncio.sleep(60)
        assert set(refused) == {"raced"}
        assert ("workflows", "default", "order") in stage.cluster.objects
        assert stage.faults.seen == 0


def _graph() -> Any:
    from galley import Graph, call  # noqa: PLC0415 - what a program would write

    graph = Graph()
    graph.add("pay", call("images", "pay"))
    return graph


@in_virtual_time
async def test_large_workflows_that_cannot_begin_cost_no_other_namespace() -> None:
    """Each was read every five seconds, in one go: twenty of 1 MiB cost the operator its Lease."""
    large = PAY | {"queueName": "absent", "input": {"text": "x" * 200_000}}
    steps = [large | {"name": f"s{number}"} for number in range(5)]
    async with a_stage() as stage:
        for number in range(40):
            stage.declare(*steps, name=f"large{number}", uid=f"u{number}", namespace="other")
        began, reads = stage.server.now(), stage.cluster.reads
        stage.declare(PAY, SEND)
        await eventually(lambda: stage.phase() == "Running", within=10)

        def told() -> bool:
            return all(stage.status(f"large{number}", "other").get("conditions") for number in range(40))

        await eventually(told, within=30, why="a condition of each")
        await asyncio.sleep(60)
        seconds = (stage.server.now() - began).total_seconds()
        most = (seconds + 5) * BYTES_A_SECOND / 1_000_000 + 2
        assert 5 < stage.cluster.reads - reads <= most

        async def all_tried() -> bool:
            found = [stage.status(f"large{number}", "other") for number in range(40)]
            return all(each["conditions"][0]["reason"] == "QueueNotFound" for each in found)

        await eventually(all_tried, within=200, why="each in its turn")


@in_virtual_time
async def test_a_workflow_that_has_ended_is_not_read_again() -> None:
    async with a_stage() as stage:
        stage.declare(PAY | {"input": {"receipt": "${steps.absent.result}"}})
        await stage.reaches("Failed")
        reads = stage.cluster.reads
        await asyncio.sleep(60)
        assert stage.cluster.reads == reads
