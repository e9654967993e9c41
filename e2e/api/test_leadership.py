"""One of several operators leads, and the next one when it is gone."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from e2e.api.operator_process import OperatorProcess, operator
from galley_local.nats_server import NatsServer
from galley_operator.claims import CLAIM
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import LEASES
from galley_operator.errors import LeadershipLost
from galley_operator.leadership import Leadership, LeaseTimes
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually

QUICK = LeaseTimes(lease_seconds=15, renew_seconds=0.6, retry_seconds=0.1)


def settings_for(namespace: str) -> dict[str, Any]:
    return {
        "namespaces": namespace,
        "install": namespace,
        "lease_namespace": namespace,
        "lease_seconds": 4,
        "renew_seconds": 3,
        "retry_seconds": 0.5,
    }


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def cluster(api_server: ApiServer) -> AsyncIterator[Cluster]:
    async with Cluster(load_config(api_server.kubeconfig)) as connected:
        yield connected


@pytest.fixture
def lease(api_namespace: str) -> tuple[str, str]:
    return api_namespace, "galley-operator"


async def test_the_first_leads_and_the_second_waits(cluster: Cluster, lease: tuple[str, str]) -> None:
    one, two = Leadership(cluster, lease, "one"), Leadership(cluster, lease, "two")
    assert await one.attempt()
    assert not await two.attempt()
    assert (one.leading, two.leading, two.leader) == (True, False, "one")
    assert await one.attempt()


async def test_a_lease_is_taken_once_it_was_not_renewed_for_its_whole_duration(
    cluster: Cluster, lease: tuple[str, str]
) -> None:
    clock = Clock()
    one, two = Leadership(cluster, lease, "one"), Leadership(cluster, lease, "two", clock=clock)
    await one.attempt()
    assert not await two.attempt()
    clock.now += 14.9
    assert not await two.attempt()
    await one.attempt()
    clock.now += 14.9
    assert not await two.attempt()
    clock.now += 15.1
    assert await two.attempt()
    assert not await one.attempt()
    found = await cluster.get(LEASES, *lease)
    assert (found["spec"]["holderIdentity"], found["spec"]["leaseTransitions"]) == ("two", 1)


async def test_of_two_that_take_it_at_once_one_leads(cluster: Cluster, lease: tuple[str, str]) -> None:
    candidates = [Leadership(cluster, lease, f"candidate-{each}") for each in range(5)]
    led = await asyncio.gather(*(each.attempt() for each in candidates))
    assert sorted(led) == [False, False, False, False, True]


async def test_a_released_lease_is_taken_at_once(cluster: Cluster, lease: tuple[str, str]) -> None:
    one, two = Leadership(cluster, lease, "one"), Leadership(cluster, lease, "two")
    await one.attempt()
    await one.release()
    assert await two.attempt()


async def test_who_is_robbed_of_the_lease_stops_leading(cluster: Cluster, lease: tuple[str, str]) -> None:
    one = Leadership(cluster, lease, "one", QUICK)
    await one.attempt()
    await cluster.merge_patch(LEASES, *lease, {"spec": {"holderIdentity": "robber"}})
    with pytest.raises(LeadershipLost, match="robber has it"):
        async with asyncio.timeout(30):
            await one.hold()
    assert not one.leading


async def test_who_cannot_renew_stops_leading_before_others_begin(
    cluster: Cluster, lease: tuple[str, str]
) -> None:
    async with (
        _cable(cluster.config.server) as (url, cut),
        Cluster(replace(cluster.config, server=url)) as far,
    ):
        one = Leadership(far, lease, "one", QUICK)
        assert await one.attempt()
        holding = asyncio.create_task(one.hold())
        loop = asyncio.get_running_loop()
        began = loop.time()
        cut()
        with pytest.raises(LeadershipLost, match="no answer"):
            await holding
        assert not one.leading
        assert loop.time() - began < QUICK.lease_seconds


@asynccontextmanager
async def _cable(server: str) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """Lead a port of ours to a server until it is cut."""
    host, _, port = server.removeprefix("https://").partition(":")
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writers.extend((writer, far_writer))
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))

    relay = await asyncio.start_server(carry, "127.0.0.1", 0)

    def cut() -> None:
        relay.close()
        for writer in writers:
            writer.transport.abort()

    yield f"https://127.0.0.1:{relay.sockets[0].getsockname()[1]}", cut


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def test_two_operators_one_leads_and_the_other_after_its_death(
    galley_api: ApiServer, nats_server: NatsServer, api_namespace: str, tmp_path: Path
) -> None:
    settings = settings_for(api_namespace)

    def start(name: str) -> OperatorProcess:
        return OperatorProcess(galley_api.kubeconfig, nats_server.url, tmp_path, name, **settings)

    with operator(galley_api.kubeconfig, nats_server.url, tmp_path, "one", **settings) as one:
        await eventually(lambda: one.leads, within=20)
        two = start("two")
        try:
            await eventually(
                lambda: two.page("readyz") == (200, "waits to lead; the leader is one\n"), within=20
            )
            one.kill()
            await eventually(lambda: two.leads, within=30)
            assert two.stop() == 0
        finally:
            two.kill()


async def test_of_two_releases_that_serve_a_namespace_the_second_waits_and_says_whom_for(
    galley_api: ApiServer, nats_server: NatsServer, api_namespace: str, tmp_path: Path
) -> None:
    settings = settings_for(api_namespace)
    with operator(galley_api.kubeconfig, nats_server.url, tmp_path, "one", **settings) as one:
        await eventually(lambda: one.leads, within=20)
        other = {**settings, "lease_name": "other-operator", "install": "other"}
        with operator(galley_api.kubeconfig, nats_server.url, tmp_path, "two", **other) as two:
            await eventually(lambda: two.logged("namespace is served elsewhere"), within=20)
            said = f"namespace {api_namespace} is served by the operator {api_namespace}/galley-operator"
            assert two.page("readyz")[0] == 503
            assert said in two.page("readyz")[1]
            events = galley_api.kubectl("get", "events", "--namespace", api_namespace)
            assert "ServedElsewhere" in events
            assert one.leads
            assert not two.logged("namespace is served")
            assert two.stop() == 0


async def test_a_user_who_may_write_leases_stops_his_own_namespace_alone(
    galley_api: ApiServer, nats_server: NatsServer, api_namespace: str, tmp_path: Path
) -> None:
    theirs = f"{api_namespace}-theirs"
    galley_api.kubectl("create", "namespace", theirs)
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": CLAIM},
        "spec": {
            "holderIdentity": "mallory\n",
            "leaseDurationSeconds": 2**31 - 1,
            "leaseTransitions": 2**31 - 1,
        },
    }
    galley_api.kubectl.apply(lease, namespace=theirs)
    settings = {**settings_for(api_namespace), "namespaces": f"{api_namespace},{theirs}"}
    queue = {"apiVersion": "galley.dev/v1alpha1", "kind": "TaskQueue", "metadata": {"name": "q"}, "spec": {}}
    with operator(galley_api.kubeconfig, nats_server.url, tmp_path, "one", **settings) as one:
        # It is ready before it leads, too, and not again until it has looked at the queues.
        told = f"namespace {theirs} is served by the operator mallory?,"
        await eventually(lambda: told in one.page("readyz")[1], within=40)
        assert one.page("readyz")[0] == 200
        assert f'galley_operator_namespace_served{{namespace="{theirs}"}} 0.0' in one.page("metrics")[1]
        for namespace in (api_namespace, theirs):
            galley_api.kubectl.apply(queue, namespace=namespace)
        deployments = ("get", "deployments", "--output", "name", "--namespace")
        await eventually(lambda: galley_api.kubectl(*deployments, api_namespace), within=20)
        assert not galley_api.kubectl(*deployments, theirs)
        # It is served from when the Lease is gone, whatever count of holders stood there.
        galley_api.kubectl("patch", "lease", CLAIM, "--namespace", theirs, "--type=merge",
                           "--patch", '{"spec": {"holderIdentity": ""}}')  # fmt: skip
        await eventually(lambda: galley_api.kubectl(*deployments, theirs), within=30)
        assert one.leads
        # Taken while it serves: the other namespace is served on.
        galley_api.kubectl("patch", "lease", CLAIM, "--namespace", theirs, "--type=merge",
                           "--patch", '{"spec": {"holderIdentity": "mallory"}}')  # fmt: skip
        await eventually(lambda: one.logged("namespace is not served any more"), within=40)
        another = {**queue, "metadata": {"name": "another"}}
        galley_api.kubectl.apply(another, namespace=api_namespace)
        await eventually(lambda: "another" in galley_api.kubectl(*deployments, api_namespace), within=20)
        assert one.page("readyz")[0] == 200
        assert one.stop() == 0


async def test_a_leader_that_was_frozen_for_too_long_ends(
    galley_api: ApiServer, nats_server: NatsServer, api_namespace: str, tmp_path: Path
) -> None:
    settings = settings_for(api_namespace)
    with (
        operator(galley_api.kubeconfig, nats_server.url, tmp_path, "one", **settings) as one,
        operator(galley_api.kubeconfig, nats_server.url, tmp_path, "two", **settings) as two,
    ):
        await eventually(lambda: one.leads or two.leads, within=20)
        first, second = (one, two) if one.leads else (two, one)
        first.process.send_signal(signal.SIGSTOP)
        await eventually(lambda: second.leads, within=20)
        first.process.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(first.process.wait, 10) == 4
        [said] = first.logged("leadership lost")
        assert said["level"] == "error"
