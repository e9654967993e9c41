"""A Task of an encrypted queue, through a whole operator: its payload is in the API server's object alone."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.broker.held import message_of
from galley.broker.records import Records
from galley.encryption.given import payloads_with
from galley.lanes import Lane
from galley.record import Failure, Outcome, Record, State
from galley_local.nats_server import NatsServer
from galley_operator.cluster.resource import SECRETS, TASKQUEUES
from galley_operator.operator import Operator
from galley_operator.settings import OperatorSettings
from tests.integration.encryption.scene import a_key, write_keys
from tests.support.eventually import eventually
from tests.support.memory_api import served
from tests.support.memory_cluster import MemoryCluster
from tests.unit.galley_operator.desk import a_task_queue_object

WORD = "5f0c0f9a11"


async def test_the_operator_encrypts_what_it_submits_and_decrypts_no_outcome(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    key = a_key()
    cluster = MemoryCluster()
    queue = a_task_queue_object(encryption={"secretName": "image-keys"})
    queue["metadata"]["namespace"] = namespace
    cluster.put(TASKQUEUES, queue)
    cluster.task("one", namespace, input={"word": WORD})
    async with served(cluster, tmp_path) as (_, kubeconfig):
        settings = OperatorSettings(
            server=nats_server.url, kubeconfig=kubeconfig, pod_name="op-1", lease_namespace=namespace,
            namespaces=namespace, health_port=0, health_host="127.0.0.1", sweep_seconds=1,
        )  # fmt: skip
        operator = Operator(settings)
        running = asyncio.create_task(operator.run())
        # Without the Secret nothing is sent; it is tried again.
        await eventually(lambda: cluster.condition("one", namespace)[2] == "KeyServiceUnavailable", within=30)
        cluster.put(
            SECRETS,
            {
                "metadata": {
                    "name": "image-keys",
                    "namespace": namespace,
                    "labels": {"galley.dev/workers": "allowed"},
                },
                "data": {
                    name: base64.b64encode(text.encode()).decode()
                    for name, text in {"primary": "k1", "k1": key}.items()
                },
            },
        )
        await eventually(lambda: cluster.condition("one", namespace)[2] == "Queued", within=60)

        with_keys = payloads_with(write_keys(tmp_path / "keys", "k1", k1=key))
        async with (
            Broker(nats_server.url, name="blind") as blind,
            Broker(nats_server.url, name="worker", payloads=with_keys) as worker,
        ):
            address = TaskAddress(namespace, "images", Lane.NORMAL, Kind.DIRECT, "one")
            hidden, seen = await message_of(blind, address), await message_of(worker, address)
            assert hidden is not None
            assert hidden.envelope is not None
            assert hidden.envelope.sealed.startswith("g1.k1.")
            assert (bytes(hidden.envelope.input), hidden.envelope.digest) == (b"{}", "")
            assert seen is not None
            assert seen.envelope is not None
            assert json.loads(bytes(seen.envelope.input)) == {"word": WORD}

            async def end(name: str, **outcome: Any) -> None:
                now = datetime.now(UTC)
                record = Record(
                    State.DONE, 1, worker="w1", handler="resize", started_at=now, ended_at=now, **outcome
                )
                ack = await Records(worker).write(replace(address, id=name), record, 0)
                assert ack.stored

            await end("one", outcome=Outcome.SUCCEEDED, result=Raw(b'"' + WORD.encode() + b'"'))
            await eventually(lambda: cluster.condition("one", namespace)[0] == "Succeeded", within=30)
            command = f"galley show images/one --namespace {namespace} --keys PATH -o json prints it"
            status = cluster.status("one", namespace)
            assert status["conditions"][0]["message"] == f"its result is encrypted with key 'k1'; {command}"
            assert "result" not in status

            cluster.task("two", namespace, input={"word": WORD})
            await eventually(lambda: cluster.condition("two", namespace)[2] == "Queued", within=30)
            failure = Failure("ValueError", f"no {WORD}", f"at {WORD}")
            await end("two", outcome=Outcome.FAILED, failure=failure)
            await eventually(lambda: cluster.condition("two", namespace)[0] == "Failed", within=30)
            error = cluster.status("two", namespace)["error"]
            assert error["reason"] == "ValueError"
            assert "its message is encrypted with key 'k1'; galley show images/two" in error["message"]
            assert WORD not in json.dumps([cluster.status(name, namespace) for name in ("one", "two")])
        operator.stop()
        await asyncio.wait_for(running, 20)
