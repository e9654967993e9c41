"""TaskQueues from an event to their objects, streams and status, over an API and a nats-server in memory."""

import asyncio
import copy
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from galley.broker.errors import BrokerUnreachable
from galley.broker.publish import Publisher
from galley.broker.queue_view import worker_problem
from galley_operator.cluster.errors import ApiRefused, ClusterUnreachable, ObjectNotFound
from galley_operator.cluster.ownership import USABLE_LABEL
from galley_operator.cluster.resource import CONFIGMAPS, DEPLOYMENTS, PODS, SECRETS, TASKQUEUES, Resource
from galley_operator.credentials.queue_secrets import QueueSecrets
from galley_operator.events import Occurrence
from galley_operator.faults import Faults
from galley_operator.fleet.names import labels_of
from galley_operator.fleet.workloads import STALE_SECONDS, Queue, Workloads
from galley_operator.key_queue import KeyQueue
from galley_operator.metrics import OperatorMetrics
from galley_operator.queues.queues import _UNWRITTEN_EVENTS, Queues
from galley_operator.queues.status_writer import QueueStatusWriter
from galley_operator.settings import OperatorSettings
from galley_operator.tasks.known_queues import KnownQueues
from tests.support.builders import an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster, Written
from tests.support.memory_nats import MemoryBroker, MemoryClient, MemoryServer
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import a_task_queue_object


@dataclass
class Stage:
    """The operator's control path, with what it reads and writes."""

    api: MemoryCluster
    server: MemoryServer
    known: KnownQueues
    queues: Queues
    turns: KeyQueue[Queue]
    statuses: QueueStatusWriter
    faults: list[str]
    metrics: OperatorMetrics

    def apply(self, name: str = "images", **spec: Any) -> dict[str, Any]:
        """Have a TaskQueue be there, and kopf tell of it."""
        before = self.api.objects.get((TASKQUEUES.plural, "default", name))
        body = a_task_queue_object(name, **spec)
        if before is not None:
            body["metadata"] |= {"uid": before["metadata"]["uid"]}
            body["metadata"]["generation"] = before["metadata"]["generation"] + 1
            body["status"] = before.get("status", {})
        self.known.seen(self.api.put(TASKQUEUES, body))
        return body

    def children(self, name: str = "images") -> set[str]:
        """Return the kinds of the objects of a queue."""
        return {key[0] for key in self.api.objects if key[2] == f"galley-{name}"}

    def ready(self, name: str = "images") -> tuple[str, str]:
        """Return status and reason of the condition Ready."""
        status = self.api.objects[TASKQUEUES.plural, "default", name].get("status", {})
        found: dict[str, Any] = next(
            (each for each in status.get("conditions", []) if each["type"] == "Ready"), {}
        )
        return found.get("status", ""), found.get("reason", "")

    def condition(self, name: str, kind: str) -> str:
        """Return the reason of a condition."""
        return self._of_condition(name, kind, "reason")

    def message(self, name: str, kind: str) -> str:
        """Return the message of a condition."""
        return self._of_condition(name, kind, "message")

    def _of_condition(self, name: str, kind: str, part: str) -> str:
        status = self.api.objects[TASKQUEUES.plural, "default", name].get("status", {})
        return next((str(c[part]) for c in status.get("conditions", []) if c["type"] == kind), "")


@asynccontextmanager
async def stage(
    secrets: Callable[[MemoryCluster], QueueSecrets] | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    api, server = MemoryCluster(), MemoryServer()
    seen: list[str] = []
    faults, known, metrics = Faults(seen.append), KnownQueues(), OperatorMetrics()
    options = OperatorSettings(pod_name="operator-1", sweep_seconds=10, **settings)
    turns: KeyQueue[Queue] = KeyQueue(asyncio.get_running_loop().time)
    clock = asyncio.get_running_loop().time
    workloads = Workloads(api, (None,), turns.add, faults, clock)
    async with MemoryBroker(server, "operator") as broker:
        kept = secrets(api) if secrets is not None else None
        queues = Queues(api, broker, options, workloads, metrics, known, turns, faults, kept)
        statuses = QueueStatusWriter(api, queues, metrics, faults)
        work = (
            faults.keep_running("workloads", workloads.run),
            faults.keep_running("queues", queues.run),
            faults.keep_running("queue status", statuses.run),
        )
        running = [asyncio.create_task(each) for each in work]
        try:
            yield Stage(api, server, known, queues, turns, statuses, seen, metrics)
            assert not any(each.done() for each in running), "the operator goes on whatever happens"
        finally:
            for each in running:
                each.cancel()
            await asyncio.wait(running)


ALL = {"configmaps", "serviceaccounts", "poddisruptionbudgets", "deployments"}


@in_virtual_time
async def test_a_queue_gets_its_streams_its_objects_and_its_status() -> None:
    async with stage() as it:
        it.apply()
        await eventually(lambda: it.children() == ALL, within=60)
        assert {"GW_default_images", "GS_default_images"} <= set(it.server.streams)
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        assert it.queues.listed == frozenset({("default", "images")})


@in_virtual_time
async def test_workers_get_a_secret_that_was_missing_only_with_its_label() -> None:
    """The kubelet gives pods what they name once it is there, labelled or not."""
    name = {"name": "theirs", "optional": True}
    template = {
        "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": name | {"key": "k"}}},
            {"name": "B", "value": "b"},
        ],
        "envFrom": [{"secretRef": name}, {"configMapRef": {"name": "open"}}],
        "volumes": [{"name": "files", "secret": {"secretName": "theirs", "optional": True}}],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        "initContainers": [
            {"name": "first", "env": [{"name": "A", "valueFrom": {"secretKeyRef": name | {"key": "k"}}}]}
        ],
    }
    async with stage(allow_init_containers=True) as it:
        it.apply(worker={"modules": ["jobs"], "template": template})

        def pods() -> str:
            return json.dumps(it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"])

        def put(labels: dict[str, str]) -> None:
            metadata = {"name": "theirs", "namespace": "default", "labels": labels}
            it.api.put(SECRETS, {"metadata": metadata})

        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        assert "theirs" not in pods()
        assert all(kept in pods() for kept in ('"B"', '"open"', '"/files"', '"sizeLimit"'))
        put({})
        await eventually(lambda: it.ready()[1] == "ReferenceNotAllowed", within=600)
        assert "theirs" not in pods()
        put({USABLE_LABEL: "allowed"})
        await eventually(lambda: pods().count("theirs") == 4, within=600)
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)


def settled(it: Stage, replicas: int) -> bool:
    """Have the controller of Deployments take in what was asked; return whether that is so many workers."""
    found = it.api.objects.get((DEPLOYMENTS.plural, "default", "galley-images"))
    if found is None:
        return False
    told = {"observedGeneration": found["metadata"]["generation"], "replicas": found["spec"]["replicas"]}
    told["updatedReplicas"] = told["replicas"]
    if found.get("status") != told:
        found["status"] = told
        it.api.touch(DEPLOYMENTS, "default", "galley-images")
    return bool(found["spec"]["replicas"] == replicas)


def consent(it: Stage, label: str) -> None:
    metadata = {"name": "theirs", "namespace": "default", "labels": {USABLE_LABEL: label}}
    it.api.put(SECRETS, {"metadata": metadata})


SECRET = {"modules": ["jobs"], "template": {"envFrom": [{"secretRef": {"name": "theirs"}}]}}


@pytest.mark.parametrize(
    "fewer", [{"workers": 1}, {"minWorkers": 1, "maxWorkers": 1, "idleSeconds": 0}, {"paused": True}]
)
def test_a_queue_that_asks_for_more_than_is_allowed_keeps_its_workers_and_is_scaled_as_it_says(
    fewer: dict[str, Any],
) -> None:
    @in_virtual_time
    async def run() -> None:
        async with stage() as it:
            consent(it, "allowed")
            it.apply(worker=SECRET, scaling={"workers": 3})
            await eventually(lambda: settled(it, 3), within=60)
            template = copy.deepcopy(it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"])
            other = {"modules": ["jobs"], "template": {"envFrom": [{"secretRef": {"name": "not-theirs"}}]}}
            if "paused" in fewer:
                it.apply(worker=other, scaling={"workers": 3}, **fewer)
            else:
                it.apply(worker=other, scaling=fewer)
            await eventually(lambda: it.ready() == ("False", "ReferenceNotAllowed"), within=60)
            await eventually(lambda: settled(it, 0 if "paused" in fewer else 1), within=300)
            now = it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"]
            assert now["template"] == template["template"], "nothing else of it is taken over"

    run()


@in_virtual_time
async def test_workers_of_a_queue_that_lost_consent_end_until_it_has_it_again() -> None:
    async with stage() as it:
        consent(it, "allowed")
        it.apply(worker=SECRET, scaling={"workers": 3})
        await eventually(lambda: settled(it, 3), within=60)
        consent(it, "no")
        await eventually(lambda: it.ready() == ("False", "ReferenceNotAllowed"), within=600)
        await eventually(lambda: settled(it, 0), within=300)
        assert it.condition("images", "ScalingActive") == "ConsentWithdrawn"
        assert "'theirs'" in it.message("images", "ScalingActive")
        it.apply(worker=SECRET, scaling={"workers": 4})
        await asyncio.sleep(120)
        assert settled(it, 0)
        consent(it, "allowed")
        await eventually(lambda: settled(it, 4), within=600)
        await eventually(lambda: it.condition("images", "ScalingActive") == "Fixed", within=60)


@in_virtual_time
async def test_a_queue_at_zero_starts_no_worker_once_consent_is_gone() -> None:
    """A queue at rest is looked at in full every few minutes, and scaled at once."""
    async with stage() as it:
        consent(it, "allowed")
        it.apply(worker=SECRET, scaling={"minWorkers": 0, "maxWorkers": 3})
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        await eventually(lambda: settled(it, 0), within=60)
        consent(it, "no")
        async with MemoryBroker(it.server, "producer") as producer:
            await Publisher(producer).publish(an_address(), an_envelope())
        for _ in range(100):
            await asyncio.sleep(1)
            assert settled(it, 0)
        assert it.ready() == ("False", "ReferenceNotAllowed")
        consent(it, "allowed")
        await eventually(lambda: settled(it, 1), within=600)


@in_virtual_time
async def test_a_secret_that_is_made_again_costs_no_worker() -> None:
    async with stage() as it:
        consent(it, "allowed")
        it.apply(worker=SECRET, scaling={"workers": 3})
        await eventually(lambda: settled(it, 3), within=60)
        it.api.remove(SECRETS, "theirs")
        await eventually(lambda: it.ready() == ("False", "ReferenceNotAllowed"), within=600)
        await asyncio.sleep(60)
        assert settled(it, 3)
        it.apply(worker=SECRET, scaling={"workers": 4})
        await asyncio.sleep(60)
        assert settled(it, 3), "a pod could not read it, or would be given what is made without the label"
        consent(it, "allowed")
        await eventually(lambda: settled(it, 4), within=600)


@pytest.mark.parametrize("owner", ["its own", "another"])
def test_an_operator_that_starts_scales_workers_of_a_queue_without_consent_if_they_are_its_own(
    owner: str,
) -> None:
    @in_virtual_time
    async def run() -> None:
        async with stage() as it:
            it.apply(worker=SECRET, scaling={"workers": 1})
            uid = it.api.objects[TASKQUEUES.plural, "default", "images"]["metadata"]["uid"]
            consent(it, "no")
            metadata = {
                "name": "galley-images", "namespace": "default", "labels": labels_of("images"),
                "ownerReferences": [{"uid": uid if owner == "its own" else "other"}],
            }  # fmt: skip
            it.api.put(DEPLOYMENTS, {"metadata": metadata, "spec": {"replicas": 3}})
            await eventually(lambda: it.ready() == ("False", "ReferenceNotAllowed"), within=60)
            if owner == "its own":
                await eventually(lambda: settled(it, 1), within=300)
            else:
                await asyncio.sleep(120)
                assert settled(it, 3)

    run()


@in_virtual_time
async def test_workers_wait_for_the_config_map_with_their_code() -> None:
    async with stage() as it:
        it.apply(worker={"modules": ["jobs"], "code": {"configMapName": "code"}})
        await eventually(lambda: it.ready()[1] == "CodeNotFound", within=60)
        assert "deployments" not in it.children()
        it.api.put(
            CONFIGMAPS, {"metadata": {"name": "code", "namespace": "default"}, "data": {"jobs.py": ""}}
        )
        await eventually(lambda: it.ready() == ("True", "Serving"), within=600)


@in_virtual_time
async def test_a_change_is_taken_over_and_a_status_alone_is_no_change() -> None:
    async with stage() as it:
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        it.known.seen(it.api.objects[TASKQUEUES.plural, "default", "images"])
        assert len(it.turns) == 0
        it.apply(worker={"modules": ["jobs"], "image": "example.com/worker:2"})

        def image() -> str:
            deployment = it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]
            return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

        await eventually(lambda: image() == "example.com/worker:2", within=60)


@in_virtual_time
async def test_those_who_wait_for_tasks_are_told_why_no_worker_takes_them() -> None:
    async with stage() as it, MemoryBroker(it.server, "producer") as producer:
        it.apply(scaling={"workers": 0})
        await eventually(lambda: it.ready() == ("False", "Paused"), within=60)
        assert "spec.scaling.workers is 0" in await worker_problem(producer, "default", "images")
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        assert await worker_problem(producer, "default", "images") == ""
        with pytest.raises(BrokerUnreachable):
            await worker_problem(producer, "default", "of-another-operator")


@in_virtual_time
async def test_a_change_ends_the_rest_of_a_queue() -> None:
    async with stage() as it:
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        runtime = it.queues.served["default", "images"].runtime
        assert runtime is not None
        assert runtime.scaler.resting
        last = runtime.scaler.last
        labels = it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["metadata"]["labels"]
        pod = {"metadata": {"namespace": "default", "name": "galley-images-1", "labels": labels}}
        it.api.put(PODS, pod)
        await eventually(lambda: runtime.scaler.last is not last, within=2)
        it.api.remove(PODS, "galley-images-1")
        await eventually(lambda: runtime.scaler.resting, within=2)
        it.apply(scaling={"minWorkers": 2})
        assert runtime.scaler.resting, "nothing has been reconciled yet"
        deployment = it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]
        await eventually(lambda: deployment["spec"]["replicas"] == 2, within=3)


@in_virtual_time
async def test_figures_say_what_workers_do_and_what_limits_their_number_while_that_is_known() -> None:
    async with stage() as it:
        it.apply(scaling={"minWorkers": 2})
        await eventually(lambda: it.condition("images", "ScalingActive") == "Scaling", within=60)
        await asyncio.sleep(3)
        own = 'namespace="default",queue="images"'

        def shown(figure: str) -> list[str]:
            lines = it.metrics.page().decode().splitlines()
            return [line.split()[-1] for line in lines if line.startswith(figure)]

        states = "needed", "desired", "present", "starting", "ready", "draining", "busy"
        each = [shown(f'galley_operator_workers{{{own},state="{state}"}}') for state in states]
        assert each == [["0.0"], ["2.0"], ["2.0"], ["2.0"], ["0.0"], ["0.0"], ["0.0"]]
        limit = "galley_operator_scaling_limit{limit="
        assert shown(f'{limit}"MinWorkers",{own}') == ["1.0"]
        assert shown(f'{limit}"None",{own}') == ["0.0"]
        it.known.gone(it.api.objects.pop((TASKQUEUES.plural, "default", "images")))
        await eventually(lambda: it.queues.served == {}, within=60)
        assert not shown("galley_operator_workers{")
        assert not shown(limit)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"scaling": {"minWorkers": 3, "maxWorkers": 2}}, "minWorkers is 3, above maxWorkers"),
        ({"worker": {"modules": ["jobs"], "concurrency": 0}}, "concurrency"),
    ],
)
def test_a_spec_that_cannot_be_changes_no_worker_and_is_named(spec: dict[str, Any], says: str) -> None:
    @in_virtual_time
    async def run() -> None:
        async with stage() as it:
            it.apply(scaling={"minWorkers": 2})
            it.apply("other")
            replicas = it.api.objects
            await eventually(lambda: it.ready("other") == ("True", "Serving"), within=60)
            it.apply(**spec)
            await eventually(lambda: it.ready() == ("False", "QueueInvalid"), within=10)
            assert says in it.message("images", "Ready")
            assert it.condition("images", "ScalingActive") == "SpecInvalid"
            assert replicas[DEPLOYMENTS.plural, "default", "galley-images"]["spec"]["replicas"] == 2
            assert it.ready("other") == ("True", "Serving"), "others go on"
            it.apply(scaling={"minWorkers": 3})
            await eventually(
                lambda: replicas[DEPLOYMENTS.plural, "default", "galley-images"]["spec"]["replicas"] == 3,
                within=10,
            )

    run()


def edited(it: Stage) -> None:
    template = it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"]["template"]
    template["spec"]["containers"][0]["image"] = "example.com/other:1"
    it.api.touch(DEPLOYMENTS, "default", "galley-images", generation=True)


def deleted(it: Stage) -> None:
    it.api.remove(DEPLOYMENTS, "galley-images")


def scaled(it: Stage) -> None:
    it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"]["replicas"] = 7
    it.api.touch(DEPLOYMENTS, "default", "galley-images", generation=True)


@pytest.mark.parametrize("settings", [{}, {"budget": json.dumps({"workers": 9})}])
def test_workers_that_a_deleted_deployment_left_behind_are_not_ended_by_the_next(
    settings: dict[str, Any],
) -> None:
    @in_virtual_time
    async def run() -> None:
        async with stage(**settings) as it:
            it.apply(scaling={"maxWorkers": 5})
            await eventually(lambda: it.condition("images", "ScalingActive") == "Scaling", within=60)
            labels = {"app.kubernetes.io/name": "galley-worker", "galley.dev/queue": "images"}
            for number, phase in enumerate(("Running", "Running", "Succeeded", "Pending")):
                metadata = {"name": f"left-{number}", "namespace": "default", "labels": labels}
                it.api.put(PODS, {"metadata": metadata, "status": {"phase": phase}})
            seen = len(it.api.log)
            it.api.remove(DEPLOYMENTS, "galley-images")
            await eventually(lambda: "deployments" in it.children(), within=20)
            first = next(each for each in it.api.log[seen:] if each.plural == DEPLOYMENTS.plural)
            assert first.body["spec"]["replicas"] == 3, "the one that has ended is none"

    run()


@pytest.mark.parametrize(
    ("happen", "reason"),
    [(edited, "DeploymentChanged"), (deleted, "DeploymentDeleted"), (scaled, "ReplicasChanged")],
)
def test_a_deployment_that_others_change_is_restored_and_a_condition_says_so(
    happen: Callable[[Stage], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = 60.0
    for module in ("queues", "scaled_queue"):
        monkeypatch.setattr(f"galley_operator.queues.{module}.INTERFERENCE_SECONDS", remembered)

    @in_virtual_time
    async def run() -> None:
        async with stage() as it:
            it.apply(scaling={"minWorkers": 2, "idleSeconds": 0})
            await eventually(lambda: it.condition("images", "ScalingActive") == "Scaling", within=60)
            await asyncio.sleep(3)
            before = copy.deepcopy(it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"])
            happen(it)
            await eventually(lambda: it.condition("images", "ScalingActive") == reason, within=20)
            assert "galley-images" in it.message("images", "ScalingActive")
            told = it.queues.supply("default", "images")
            assert told is not None
            assert told.scaling_problem == it.message("images", "ScalingActive"), "galley why says it too"
            if happen is not scaled:  # that takes pods that drain
                now = it.api.objects[DEPLOYMENTS.plural, "default", "galley-images"]["spec"]
                assert (now["template"], now["replicas"]) == (before["template"], before["replicas"])
            await asyncio.sleep(remembered + 20)
            assert it.condition("images", "ScalingActive") == "Scaling"
            told = it.queues.supply("default", "images")
            assert told is not None
            assert told.scaling_problem == ""

    run()


@in_virtual_time
async def test_queues_at_rest_cost_few_requests() -> None:
    async with stage() as it:
        for number in range(10):
            it.apply(f"q{number}")
        await eventually(lambda: it.ready("q9") == ("True", "Serving"), within=60)
        await asyncio.sleep(70)
        written = len(it.api.log)
        await asyncio.sleep(600)
        # Four objects of each queue, applied at every fifth of 60 sweeps, and no status.
        applied = Counter(each.plural for each in it.api.log[written:])
        assert applied.keys() == ALL
        assert applied["configmaps"] <= 10 * 13


@in_virtual_time
async def test_a_queue_that_only_waits_for_its_finalizers_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def seen(name: str, uid: str = "") -> None:
        body = a_task_queue_object(name)
        kept = {"deletionTimestamp": "2026-03-01T09:30:00Z", "finalizers": ["example.com/kept"]}
        body["metadata"] |= kept | ({"uid": uid} if uid else {})
        it.known.seen(it.api.put(TASKQUEUES, body))

    def said(name: str) -> bool:
        return it.ready(name) == ("False", "QueueDeleted")

    async with stage() as it:
        seen("never")
        it.apply("before")
        await eventually(lambda: it.ready("before") == ("True", "Serving"), within=60)
        before = it.api.objects[TASKQUEUES.plural, "default", "before"]["metadata"]["uid"]
        seen("before", before)
        it.api.remove(DEPLOYMENTS, "galley-before")
        for name in ("never", "before"):
            await eventually(partial(said, name), within=60)
        assert it.children("never") == set()
        assert "deployments" not in it.children("before"), "nothing is made for it again"
        await asyncio.sleep(60)
        for name in ("never", "before"):
            it.known.gone(it.api.objects.pop((TASKQUEUES.plural, "default", name)))
        await eventually(lambda: it.queues.served == {}, within=60)
        assert [one.message for one in caplog.records].count("queue is gone") == 1, "told once"


@in_virtual_time
async def test_a_queue_is_changed_and_forgotten_while_nothing_is_known_of_workers() -> None:
    async with stage() as it:
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        watch = it.api.watch_of

        async def deaf(shape: Any, resource: Resource, *place: Any, **options: Any) -> AsyncIterator[Any]:
            if resource in {DEPLOYMENTS, PODS}:
                raise ClusterUnreachable("watch", "https://memory", "it is away")
            async for event in watch(shape, resource, *place, **options):
                yield event

        it.api.watch_of = deaf  # type: ignore[method-assign, assignment]
        it.api.cut()
        await asyncio.sleep(2 * STALE_SECONDS)
        scaling = it.queues.served["default", "images"].scaling
        it.api.put(SECRETS, {"metadata": {"name": "theirs", "namespace": "default"}})
        secret = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "theirs", "key": "k"}}}
        body = it.apply(worker={"modules": ["jobs"], "template": {"env": [secret]}})
        await eventually(lambda: it.ready()[1] == "ReferenceNotAllowed", within=60)
        body["metadata"] |= {"deletionTimestamp": "2026-03-01T09:30:00Z", "finalizers": ["example.com/kept"]}
        it.known.seen(it.api.put(TASKQUEUES, body))
        await eventually(lambda: it.queues.served["default", "images"].found.going, within=60)
        await asyncio.sleep(60)
        assert it.queues.served["default", "images"].scaling is scaling
        assert scaling is not None
        assert not scaling.done(), "its workers go on as they are"
        it.known.gone(it.api.objects.pop((TASKQUEUES.plural, "default", "images")))
        await eventually(lambda: it.queues.served == {}, within=60)
        assert it.faults == []


@in_virtual_time
async def test_a_queue_that_is_deleted_is_scaled_no_more() -> None:
    async with stage() as it:
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        served = it.queues.served["default", "images"]
        body = it.api.objects.pop((TASKQUEUES.plural, "default", "images"))
        it.known.gone(body)
        await eventually(lambda: it.queues.served == {}, within=60)
        assert served.scaling is not None
        assert served.scaling.cancelled()


@in_virtual_time
async def test_what_the_watch_misses_is_found_by_the_listing() -> None:
    async with stage() as it:
        it.api.put(TASKQUEUES, a_task_queue_object("unseen"))
        await eventually(lambda: it.children("unseen") == ALL, within=60)
        del it.api.objects[TASKQUEUES.plural, "default", "unseen"]
        await eventually(lambda: it.queues.served == {}, within=60)
        assert len(it.known) == 0


@in_virtual_time
async def test_a_deleted_object_is_made_again() -> None:
    async with stage() as it:
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        it.api.remove(CONFIGMAPS, "galley-images")
        await eventually(lambda: it.children() == ALL, within=60)


@in_virtual_time
async def test_an_api_server_that_is_away_is_reported_and_asked_again() -> None:
    async with stage() as it:
        it.api.away = True
        await eventually(lambda: it.queues.problem, within=60)
        it.api.away = False
        await eventually(lambda: not it.queues.problem, within=60)
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)


@in_virtual_time
async def test_events_beyond_those_that_wait_are_dropped_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as it:
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        found = it.queues.served["default", "images"].found
        with caplog.at_level(logging.WARNING):
            for number in range(_UNWRITTEN_EVENTS + 1):
                it.queues.occur(Occurrence(found, "Scaled", f"{number} workers"))
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert warnings == ["event dropped, too many wait"]


@in_virtual_time
async def test_a_status_that_is_refused_is_written_later_and_one_of_a_deleted_queue_never(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as it:
        refusals: list[str] = []

        def refuse(request: Written) -> None:
            if request.plural == TASKQUEUES.plural:
                refusals.append(request.name)
                if request.name == "gone":
                    raise ObjectNotFound("apply", request.name, 404, "not found")
                if len(refusals) < 5:
                    raise ApiRefused("apply", request.name, 500, "etcd is full")

        it.api.before = refuse
        with caplog.at_level(logging.WARNING):
            it.apply()
            it.apply("gone")
            await eventually(lambda: it.ready() == ("True", "Serving"), within=300)
        assert "queue status not written" in [record.message for record in caplog.records]
        assert "gone" in refusals
        assert it.faults == []


@in_virtual_time
async def test_a_queue_that_cannot_be_read_says_why_and_the_others_are_served() -> None:
    async with stage() as it:
        it.apply("bad", worker={"modules": ["not a module"]})
        it.apply()
        await eventually(lambda: it.ready() == ("True", "Serving"), within=60)
        await eventually(lambda: it.ready("bad") == ("False", "QueueInvalid"), within=60)


PLACES: list[tuple[str, Callable[[Stage], tuple[object, str]]]] = [
    ("queue reconciled", lambda it: (it.queues._reconciler, "reconcile")),
    ("objects made", lambda it: (it.queues._reconciler, "_make")),
    ("an object applied", lambda it: (it.api, "apply")),
    ("dead letters counted", lambda it: (it.queues, "_tell")),
    ("scaling begun", lambda it: (it.queues, "_scale")),
    ("status found", lambda it: (it.statuses, "_found")),
    ("metrics shown", lambda it: (it.statuses, "_show")),
    ("all statuses written", lambda it: (it.statuses, "write_all")),
    ("queues listed", lambda it: (it.queues, "sweep")),
    ("next queue taken", lambda it: (it.turns, "get")),
    ("event written", lambda it: (it.queues._events, "write")),
]


@pytest.mark.parametrize(("place", "of"), PLACES, ids=[place for place, _ in PLACES])
def test_an_exception_in_a_callback_costs_one_queue_is_counted_and_tried_again(
    place: str, of: Callable[[Stage], tuple[object, str]]
) -> None:
    @in_virtual_time
    async def test() -> None:
        async with stage() as it:
            holder, name = of(it)
            real, raised = getattr(holder, name), 0

            def broken(*arguments: Any, **named: Any) -> Any:
                nonlocal raised
                if raised < 2:
                    raised += 1
                    raise RuntimeError(f"broken: {place}")
                return real(*arguments, **named)

            setattr(holder, name, broken)
            it.apply()
            it.apply("second")
            if place == "event written":
                it.apply("third", worker={"modules": ["not a module"]})
            for queue in ("images", "second"):
                await eventually(lambda: it.ready(queue) == ("True", "Serving"), within=600)  # noqa: B023
            await eventually(lambda: raised > 0, within=600)
            assert it.faults != []

    test()


@in_virtual_time
async def test_a_queue_whose_dead_letters_cannot_be_counted_is_looked_at_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with stage() as it:
        line = it.queues._broker.nats
        assert isinstance(line, MemoryClient)
        line.lose(to_server=lambda subject: ".count-" in subject)
        it.apply()
        await eventually(lambda: "queue not looked at in full" in caplog.messages, within=120)
        line.lose()
        served = it.queues.served["default", "images"]
        await eventually(lambda: served.dead_letters == 0, within=600)
        assert it.faults == []


@in_virtual_time
async def test_a_queue_says_that_the_operator_raised_while_it_does() -> None:
    async with stage() as it:
        it.apply("good")
        real = it.queues._reconciler.reconcile

        async def broken(found: Any) -> Any:
            if found.name == "bad":
                raise RuntimeError("broken for this one")
            return await real(found)

        it.queues._reconciler.reconcile = broken  # type: ignore[method-assign]
        it.apply("bad")
        await eventually(lambda: it.ready("bad") == ("False", "OperatorFault"), within=60)
        await eventually(lambda: it.ready("good") == ("True", "Serving"), within=60)
        it.queues._reconciler.reconcile = real  # type: ignore[method-assign]
        await eventually(lambda: it.ready("bad") == ("True", "Serving"), within=600)
        assert (DEPLOYMENTS.plural, "default", "galley-bad") in it.api.objects
