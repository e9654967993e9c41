"""Whatever is in records, messages, Tasks, TaskQueues and Secrets, the operator goes on with all others.

Changed at random from a seed; `GALLEY_MUTANT_OBJECTS=10000` tries as many. Objects keep the metadata that
an API server itself writes. Nothing here may even count as an unexpected error.
"""

import base64
import json
import os
import random
from functools import partial
from typing import Any

import msgspec
import pytest

from galley import envelope as envelope_wire
from galley import record as record_wire
from galley.broker import topology
from galley.broker.follow import Follower, React
from galley.broker.permissions import Role
from galley.errors import GalleyError
from galley.history import EndedBy, History, PastAttempt
from galley.record import Claim, Failure, Record, State
from galley_operator.cluster.answer import events_in, page_in
from galley_operator.cluster.resource import SECRETS, TASKQUEUES, TASKS
from galley_operator.credentials.authority import Authority
from galley_operator.credentials.key_secret import keys_in
from galley_operator.credentials.queue_secrets import FILE_KEY, QueueSecrets, secret_name
from galley_operator.credentials.trust import made_keys
from galley_operator.tasks.active_tasks import QueueKey
from galley_operator.tasks.task_object import TaskObject
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.mutation import mangled, mutated
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import BEGAN, Desk, MemoryRecords, a_task_queue_object, desk
from tests.unit.galley_operator.queues.test_queues import Stage, stage

KEYS = made_keys(0)
MANY = int(os.environ.get("GALLEY_MUTANT_OBJECTS", "600"))
SEED = int(os.environ.get("GALLEY_MUTANT_SEED", "1"))
AT_ONCE = 50
BATCH = 500
"""What one operator is given: servers in memory keep all that happened."""

SPEC = {
    "queueName": "images", "handler": "resize", "input": {"path": "a.png", "sizes": [1, 2.5]},
    "retry": {"attempts": 3, "backoffSeconds": 1, "maxBackoffSeconds": 60, "crashes": 3},
    "priority": "high", "timeoutSeconds": 60,
    "notBefore": "2026-03-01T09:00:00Z", "deadline": "2026-03-02T09:00:00Z", "ttlSecondsAfterFinished": 60,
}  # fmt: skip
STATUS = {
    "phase": "Running", "attempts": 2, "worker": "w1", "queuedTime": "2026-03-01T09:00:00Z",
    "observedGeneration": 1,
    "conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Running", "message": "it runs"}],
}  # fmt: skip
PAST = PastAttempt(1, EndedBy.CRASH, "WorkerLost", "it is gone", "w0", BEGAN, BEGAN, "Traceback ...")
RECORD = Record(
    State.RUN, 2, "w1", "resize", submitted_at=BEGAN, started_at=BEGAN, ended_at=BEGAN, due_at=BEGAN,
    claim=Claim("GW_default_images", 1, "h1"), history=History(1, 1, 1, (PAST,)),
    result=msgspec.Raw(b'{"a":1}'),
    failure=Failure("HandlerRaised", "no", "Traceback ..."), uid="uid-0", digest="0123.4567",
)  # fmt: skip
WORKER = {"modules": ["jobs"], "concurrency": 4, "template": {"resources": {"limits": {"memory": "1Gi"}}}}
QUEUE = {
    "lanes": ["high", "normal"], "worker": WORKER, "scaling": {"minWorkers": 0, "maxWorkers": 3},
    "retry": {"attempts": 3}, "limits": {"backlog": 100, "backlogBytes": 1000000},
    "retention": {"resultsSeconds": 60},
    "handlers": {"commands": [{"name": "ls", "command": ["ls"]}]},
}  # fmt: skip


class RealReading(MemoryRecords):
    """Hands on what the server stores by the follower's own reading of it."""

    def __init__(self, it: Desk, queue: QueueKey, react: React) -> None:
        super().__init__(it.server, queue, react)
        self._follower = Follower(it.broker, queue, react, it.path._known)

    async def run(self) -> None:
        while True:
            while self._read < len(self._server.log):
                seen = self._server.log[self._read]
                self._read += 1
                if seen.what == "stored" and seen.kind == "result":
                    self._follower._position = seen.sequence
                    self._follower._tell(seen.subject, seen.body)
            await eventually(lambda: self._read < len(self._server.log), within=1e9)


def bytes_of(value: Any, rng: random.Random) -> bytes:
    """Return JSON that is wrong in its values or, sometimes, in its bytes."""
    if rng.randrange(4) == 0:
        return mangled(json.dumps(value).encode(), rng)
    return json.dumps(mutated(value, rng)).encode()


async def still_works(it: Desk, number: int) -> None:
    """A good Task is admitted and its outcome written."""
    uid = it.api.task(f"good-{number}")["metadata"]["uid"]
    await it.until(f"good-{number}", "Queued", "Unknown", "Queued", within=600)
    await it.end(f"good-{number}", uid=uid)
    await it.until(f"good-{number}", "Succeeded", "True", "Succeeded", within=600)


@in_virtual_time
async def test_mutated_tasks_records_and_messages_cost_no_other_task() -> None:
    rng, left = random.Random(SEED), MANY
    while left > 0:
        await some_mutated_tasks(min(left, BATCH), rng)
        left -= BATCH


async def some_mutated_tasks(many: int, rng: random.Random) -> None:
    async with desk() as it:
        it.path.records._follow = lambda queue, react: RealReading(it, queue, react)
        it.queue()
        for number in range(many):
            name, kind = f"t{number}", rng.randrange(3)
            spec, status = (mutated(SPEC, rng), mutated(STATUS, rng)) if kind == 0 else (SPEC, {})
            status = status if isinstance(status, dict) else {}
            metadata = {
                "name": name, "namespace": "default", "uid": f"uid-{name}",
                "creationTimestamp": "2026-03-01T08:00:00Z",
            }  # fmt: skip
            address = it.address(name)
            if kind == 1:
                body = bytes_of(json.loads(record_wire.encode(RECORD)), rng)
                it.server.publish(topology.record_subject(address), body, {})
            elif kind == 2:
                body = bytes_of(json.loads(envelope_wire.encode(it.envelope(name))), rng)
                flags = rng.choice(({}, {"Galley": "v=1;a=1;f=0"}, {"Galley": "v=1;a=x"}, {"Galley": "v=9"}))
                it.server.publish(topology.task_subject(address), body, flags)
            it.api.put(TASKS, {"metadata": metadata, "spec": spec, "status": status})
            if kind == 1:
                body = bytes_of(json.loads(record_wire.encode(RECORD)), rng)
                it.server.publish(topology.record_subject(address), body, {})
            if number % AT_ONCE == AT_ONCE - 1:
                await still_works(it, number)
                for old in range(number - AT_ONCE + 1, number + 1):
                    it.api.remove(TASKS, f"t{old}")
                stream = it.server.streams["GW_default_images"]
                await eventually(lambda: len(it.view.tasks) <= AT_ONCE // 10, within=600)
                for message in list(stream.messages.values()):
                    stream.remove(message.sequence)
        await still_works(it, many)
        assert it.faults == [], it.faults


def a_secret(name: str, namespace: str, data: dict[str, str], rng: random.Random, owner: str = "") -> Any:
    """Return a Secret as an API server takes it, with any bytes in it."""
    changed = {
        key: mangled(text.encode(), rng) if rng.randrange(2) else text.encode() for key, text in data.items()
    }
    for key in [each for each in changed if rng.randrange(8) == 0]:
        del changed[key]
    if rng.randrange(8) == 0:
        changed[rng.choice(("", "auth.conf", "account", "galley.creds"))] = rng.randbytes(40)
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if owner and rng.randrange(8):
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    coded = {key: base64.b64encode(value).decode() for key, value in changed.items()}
    return {"metadata": metadata} | rng.choice(({"data": coded}, {"data": coded}, {}, {"data": None}))


def serving(it: Stage, name: str) -> bool:
    return it.ready(name) == ("True", "Serving")


@in_virtual_time
async def test_mutated_queues_and_secrets_cost_no_other_queue() -> None:
    rng = random.Random(SEED)
    authority = Authority.read(KEYS, "the test's keys")
    assert authority is not None
    account = authority.streams
    data = {FILE_KEY: account.credentials("x", None)}
    async with stage(secrets=lambda api: QueueSecrets(api, account, clock=lambda: 1e9)) as it:
        for number in range(MANY // 10):
            name = f"q{number}"
            body = a_task_queue_object(name)
            spec, status = mutated(QUEUE, rng), mutated({"conditions": [], "deadLetters": 1}, rng)
            body["metadata"]["uid"] = f"uid-{name}"
            # Both are objects by their definition, and so are conditions.
            body["spec"] = spec if isinstance(spec, dict) else {}
            body["status"] = {**status, "conditions": []} if isinstance(status, dict) else {}
            for role in Role:
                it.api.put(SECRETS, a_secret(secret_name(role, name), "default", data, rng, f"uid-{name}"))
            it.known.seen(it.api.put(TASKQUEUES, body))
            if number % 5 == 4:
                good = f"good{number}"
                it.apply(good)
                await eventually(partial(serving, it, good), within=600)
                for old in range(number - 4, number + 1):
                    gone = it.api.objects.pop((TASKQUEUES.plural, "default", f"q{old}"))
                    it.known.gone(gone)
        assert it.faults == [], it.faults


@in_virtual_time
async def test_mutated_keys_are_refused_with_an_error_of_ours() -> None:
    rng, cluster = random.Random(SEED), MemoryCluster()
    refused = 0
    for _ in range(max(100, MANY // 20)):
        cluster.put(SECRETS, a_secret("keys", "galley-system", KEYS, rng))
        try:
            await keys_in(cluster, "galley-system", "keys", make=False)
        except GalleyError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("depth", [100, 2_000, 9_000])
def test_an_object_nested_without_end_hides_no_other(depth: int) -> None:
    """The API server takes an input of ten thousand levels."""
    deep = b'{"metadata":{"name":"deep","uid":"u"},"spec":{"input":' + b"[" * depth + b"]" * depth + b"}}"
    good = b'{"metadata":{"name":"good","uid":"v"},"spec":{"input":"\\"]}"}}'
    page = page_in(b'{"metadata":{"resourceVersion":"7"},"items":[' + deep + b"," + good + b"]}", TaskObject)
    expected = ["deep", "good"] if depth < 300 else ["good"]
    assert [each.metadata.name for each in page.items] == expected
    assert page.metadata.resource_version == "7"
    lines = [b'{"type":"ADDED","object":' + each + b"}" for each in (deep, good)]
    told = [event.object.metadata.name for event in events_in(lines, TaskObject, "tasks") if event.object]
    assert told == expected


def test_the_changes_reach_what_they_are_for() -> None:
    """Some are taken, some are refused: else nothing is tried."""
    rng = random.Random(SEED)
    read = 0
    for _ in range(500):
        try:
            record_wire.decode(bytes_of(json.loads(record_wire.encode(RECORD)), rng))
            read += 1
        except GalleyError:
            pass
    assert 25 < read < 450


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_makes_the_same_changes(seed: int) -> None:
    one, other = (mutated(SPEC, random.Random(seed)) for _ in range(2))
    assert repr(one) == repr(other)
