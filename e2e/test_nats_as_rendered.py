"""Servers of the rendered chart: three with accounts, TLS and encrypted streams, on loopback.

Certificates, their authority and the key of the streams are replaced while tasks run.
"""

import asyncio
import re
import subprocess
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from e2e.rendered_chart import nats_config
from e2e.rendered_cluster import NAMESPACE, RenderedCluster
from e2e.rendered_queue import QUEUE, SHOP, a_queue, ran, settings_of, submitting
from galley import BrokerError, call, connect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.permissions import Role
from galley.client import AsyncClient
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.certificate import Times
from galley_operator.credentials.certificate_keeper import CertificateKeeper
from galley_operator.credentials.server_secret import NEW_AUTHORITY
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue, workers

pytestmark = pytest.mark.timeout(240)

NEEDLE = "needle-4c1f6f0e"


async def test_three_servers_with_accounts_lose_one_and_no_task(
    three: RenderedCluster, tmp_path: Path
) -> None:
    queue = await a_queue(three, 3)
    producer = await three.credentials(Role.PRODUCER, SHOP, QUEUE)
    stop = asyncio.Event()
    with workers(three.urls[0], queue, tmp_path, **await settings_of(three)) as (worker,):
        async with connect(three.urls[1], SHOP, credentials=producer, tls=three.tls) as client:
            submitted = asyncio.create_task(submitting(client, stop))
            await eventually(lambda: worker.ready, within=30)
            await asyncio.sleep(1)
            three.kill(2)
            await asyncio.sleep(2)
            await three.start(2)
            await asyncio.sleep(1)
            stop.set()
            words = await submitted
        assert worker.end() == 0
    assert len(words) > 50
    assert ran(tmp_path) == Counter(words)


async def test_certificates_and_their_authority_are_replaced_while_tasks_run(tmp_path: Path) -> None:
    times = Times(certificate=timedelta(seconds=90), overlap=timedelta(seconds=4))
    cluster = RenderedCluster(tmp_path, "nats.replicas=3", times=times)
    certificate = await cluster.prepare()
    await cluster.start()
    stop = asyncio.Event()
    try:
        queue = await a_queue(cluster, 1)
        producer = await cluster.credentials(Role.PRODUCER, SHOP, QUEUE)
        settings = await settings_of(cluster)
        async with cluster.directory() as directory, cluster.kubelet(), asyncio.TaskGroup() as beside:
            keeper = CertificateKeeper(cluster.server_secret, certificate, directory, look_seconds=0.3)
            keeping = beside.create_task(keeper.run())
            before = cluster.ca_file.read_text()
            annotation = {"metadata": {"annotations": {NEW_AUTHORITY: "please"}}}
            await cluster.secrets.merge_patch(SECRETS, NAMESPACE, "galley-nats-server", annotation)
            with workers(cluster.urls[0], queue, tmp_path, ("w1", "w2"), **settings) as running:
                async with connect(cluster.urls[1], SHOP, credentials=producer, tls=cluster.tls) as client:
                    submitted = asyncio.create_task(submitting(client, stop))

                    def replaced() -> bool:
                        now = cluster.ca_file.read_text()
                        return now.count("BEGIN CERTIFICATE") == 1 and now != before

                    await eventually(replaced, within=40)
                    # New connections, and old ones made again, find servers and authorities that fit.
                    for url in cluster.urls:
                        async with Broker(url, name="new", credentials=producer, tls=cluster.tls) as new:
                            assert await new.api("look", "INFO")
                    await client.broker.nats.drop()
                    await asyncio.sleep(2)
                    stop.set()
                    words = await submitted
                assert [worker.end() for worker in running] == [0, 0]
            keeping.cancel()
    finally:
        cluster.kill()
    assert len(words) > 100
    assert ran(tmp_path) == Counter(words)


def without_tls(cluster: RenderedCluster) -> str:
    """Return the configuration of a release whose servers had neither TLS nor a password."""
    text = nats_config("nats.replicas=3", "nats.tls.enabled=false")
    text, found = re.subn(r"(?s)  authorization \{.*?\n  \}\n", "", text, count=1)
    assert found == 1
    for index, port in enumerate(cluster.route_ports):
        text = text.replace(f"$ROUTE_{index}", f"nats://127.0.0.1:{port}")
    return text


async def test_three_servers_without_tls_are_upgraded_one_by_one_and_keep_all_tasks(tmp_path: Path) -> None:
    cluster = RenderedCluster(tmp_path, "nats.replicas=3", "nats.tls.plaintext=allow")
    await cluster.prepare()
    before = without_tls(cluster)
    queue = a_task_queue(SHOP, QUEUE, worker={"concurrency": 4})
    try:
        for number in range(3):
            await cluster.start(number, config=before)

        def old(number: int) -> Broker:
            return Broker(
                cluster.urls[number].replace("tls://", "nats://"),
                name="old",
                connect_seconds=30,
                credentials=lambda: cluster.authority.streams.credentials("operator", None),
            )

        async def made() -> bool:
            try:
                async with old(0) as operator:
                    await ensure(operator, layout_of(queue, "tests"), 3)
            except BrokerError:
                return False
            return True

        await eventually(made, within=60)
        async with old(0) as operator:
            client = AsyncClient.over(operator, SHOP)
            await client.submit_many([call(QUEUE, "note", word=f"w-{number}") for number in range(50)])
        # As a StatefulSet does: the last one first, and the next as soon as that one takes clients.
        for number in (2, 1, 0):
            cluster.kill(number)
            await cluster.start(number)
        await a_queue(cluster, 3)
        async with old(1) as still_accepted:
            assert still_accepted.connected
        with workers(cluster.urls[0], queue, tmp_path, **await settings_of(cluster)) as (worker,):

            def done() -> bool:
                log = tmp_path / "drills.log"
                return log.exists() and len(log.read_text().splitlines()) >= 50

            await eventually(done, within=60)
            assert worker.end() == 0
        assert ran(tmp_path) == Counter(f"w-{number}" for number in range(50))
    finally:
        cluster.kill()


def readable(folder: Path) -> list[str]:
    """Return the files of all servers' disks in which the needle can be read."""
    stores = [str(path) for path in folder.glob("nats-*/data/jetstream")]
    assert stores
    done = subprocess.run(["grep", "-rlaF", NEEDLE, *stores], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout.splitlines()


async def test_streams_are_encrypted_when_turned_on_and_again_with_each_new_key(tmp_path: Path) -> None:
    plain = RenderedCluster(tmp_path)
    await plain.prepare()
    await plain.start()
    queue = await a_queue(plain, 1)

    async def submit(cluster: RenderedCluster, *numbers: int) -> None:
        producer = await cluster.credentials(Role.PRODUCER, SHOP, QUEUE)
        async with connect(cluster.urls[0], SHOP, credentials=producer, tls=cluster.tls) as client:
            for number in numbers:
                await client.submit(call(QUEUE, "note", word=f"{NEEDLE}-{number}"))

    await submit(plain, *range(20))
    assert readable(tmp_path), "without encryption it can be read"
    plain.kill()
    # The same volumes, with encryption, and then with a second key, and back with the first one.
    last = plain
    for round_, (key, cipher) in enumerate(((1, "chachapoly"), (2, "chachapoly"), (2, "aes"), (1, "aes")), 1):
        now = RenderedCluster(
            tmp_path,
            "nats.encryption.enabled=true",
            f"nats.encryption.key={key}",
            f"nats.encryption.cipher={cipher}",
        )
        now.secrets, now.keys, now.authority = last.secrets, last.keys, last.authority
        now.server_secret = last.server_secret
        await now.prepare(store_key=key)
        await now.start()
        async with now.operator() as operator:
            # As the operator does as soon as it is connected again.
            await ensure(operator, layout_of(queue, "tests"))
        await submit(now, *range(20 * round_, 20 * round_ + 20))
        assert readable(tmp_path) == [], (key, cipher)
        if round_ == 4:
            with workers(now.urls[0], queue, tmp_path, **await settings_of(now)) as (worker,):

                def done() -> bool:
                    log = tmp_path / "drills.log"
                    return log.exists() and len(log.read_text().splitlines()) >= 100

                await eventually(done, within=60)
                assert worker.end() == 0
            assert ran(tmp_path) == Counter(f"{NEEDLE}-{number}" for number in range(100))
            assert readable(tmp_path) == [], "nor records and results"
        now.kill()
        last = now
