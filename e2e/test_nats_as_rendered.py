"""Servers of the rendered chart: three with accounts, TLS and encrypted streams, on loopback.

Certificates, their authority and the key of the streams are replaced while tasks run.
"""

import asyncio
import json
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as Nats

from e2e.rendered_chart import nats_config
from e2e.rendered_cluster import NAMESPACE, RenderedCluster
from galley import BrokerError, call, connect
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.broker.permissions import Role
from galley.client import AsyncClient
from galley.resources import TaskQueue
from galley_local.nats_binary import nats_server_binary
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.certificate import Times, issued, made_authority, utc
from galley_operator.credentials.certificate_keeper import CertificateKeeper
from galley_operator.credentials.key_secret import entries_of
from galley_operator.credentials.server_secret import NEW_AUTHORITY
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue, workers

pytestmark = pytest.mark.timeout(240)

SHOP, QUEUE = "shop", "drills"
NEEDLE = "needle-4c1f6f0e"


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[RenderedCluster]:
    cluster = RenderedCluster(tmp_path, "nats.replicas=3", "nats.encryption.enabled=true")
    await cluster.prepare(store_key=1)
    try:
        await cluster.start()
        yield cluster
    finally:
        cluster.kill()


async def a_queue(cluster: RenderedCluster, replicas: int) -> TaskQueue:
    """Make the streams of a queue, as soon as the servers have a leader."""
    queue = a_task_queue(SHOP, QUEUE, worker={"concurrency": 4}, retry={"attempts": 1})

    async def made() -> bool:
        try:
            async with cluster.operator() as operator:
                await ensure(operator, layout_of(queue, "tests"), replicas)
        except BrokerError:
            return False
        return True

    await eventually(made, within=60)
    return queue


async def settings_of(cluster: RenderedCluster) -> dict[str, str]:
    """Return the environment of a worker."""
    creds = await cluster.credentials(Role.WORKER, SHOP, QUEUE)
    return {"GALLEY_CREDENTIALS": str(creds), "GALLEY_TLS_CA": str(cluster.ca_file)}


async def submitting(client: AsyncClient, until: asyncio.Event, prefix: str = "w") -> list[str]:
    """Submit tasks until told to stop and return their words once all have succeeded."""
    words: list[str] = []
    results: list[asyncio.Task[Any]] = []
    async with asyncio.TaskGroup() as waiting:
        while not until.is_set():
            word = f"{prefix}-{len(words)}"
            handle = await client.submit(call(QUEUE, "note", word=word))
            words.append(word)
            results.append(waiting.create_task(handle.result(60)))
            await asyncio.sleep(0.02)
    assert [result.result() for result in results] == words
    return words


def ran(folder: Path) -> Counter[str]:
    return Counter(line.split()[1] for line in (folder / "drills.log").read_text().splitlines())


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


ROGUE = """
server_name: rogue
listen: 127.0.0.1:-1
jetstream: disabled
cluster {{ name: galley-nats, listen: 127.0.0.1:-1, no_advertise: true, {tls} {login} routes: [ {routes} ] }}
system_account: SYS
accounts {{ SYS {{ users: [{{user: s, password: s}}] }}, {account} {{ users: [{{user: a, password: a}}] }} }}
ports_file_dir: "{folder}"
"""


async def heard_by_a_rogue(
    cluster: RenderedCluster, folder: Path, *, tls: str = "", login: str = ""
) -> list[str]:
    """Run a server that tries to join, and return the subjects of tasks that it hears of one submitted."""
    folder.mkdir()  # noqa: ASYNC240 - it does not block
    routes = ", ".join(f"nats://{login}127.0.0.1:{port}" for port in cluster.route_ports)
    told = (
        f"authorization {{ user: {login.split(':', maxsplit=1)[0]}, password: {login.split(':')[1][:-1]} }},"
        if login
        else ""
    )
    account = cluster.authority.streams.public
    config = folder / "rogue.conf"
    config.write_text(ROGUE.format(tls=tls, login=told, routes=routes, account=account, folder=folder))
    with (folder / "log").open("wb") as log:
        rogue = subprocess.Popen(  # noqa: ASYNC220 - it does not block
            [nats_server_binary(), "--config", config], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    nats, heard = Nats(), list[str]()

    async def take(message: Any) -> None:
        heard.append(message.subject)

    def port() -> str:
        [found] = folder.glob("*.ports")
        return str(json.loads(found.read_text())["nats"][0])

    def listening() -> bool:
        try:
            return bool(port())
        except ValueError:
            return False

    try:
        await eventually(listening, within=20)
        await nats.connect(port().replace("nats://", "nats://a:a@"))
        await nats.subscribe("galley.>", cb=take)
        await nats.flush()
        await asyncio.sleep(1.5)  # a route that can be made is made within a second
        producer = await cluster.credentials(Role.PRODUCER, SHOP, QUEUE)
        async with connect(cluster.urls[0], SHOP, credentials=producer, tls=cluster.tls) as client:
            await client.submit(call(QUEUE, "note", word="secret"))
        await asyncio.sleep(0.5)
    finally:
        rogue.kill()
        rogue.wait(10)
        if nats.is_connected:
            await nats.close()
    return [subject for subject in heard if subject.startswith("galley.task.")]


async def test_a_server_that_is_not_ours_cannot_join_and_hears_nothing(
    three: RenderedCluster, tmp_path: Path
) -> None:
    await a_queue(three, 1)
    entries = entries_of(await three.secrets.get(SECRETS, NAMESPACE, "galley-nats-server"))
    password = f"galley:{entries['route.password']}@"
    foreign = issued(
        made_authority(utc(0), timedelta(days=36500)), ["127.0.0.1"], utc(0), timedelta(days=36500)
    )
    for name, text in (("foreign.crt", foreign.certificate), ("foreign.key", foreign.key)):
        (tmp_path / name).write_text(text)

    def tls(certificate: Path, key: Path) -> str:
        ca = three.ca_file
        return f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{ca}", verify: true }},'

    theirs = tls(tmp_path / "foreign.crt", tmp_path / "foreign.key")
    ours = tls(tmp_path / "server" / "tls.crt", tmp_path / "server" / "tls.key")
    for number, (encryption, login) in enumerate((
        ("", ""), ("", password), (theirs, password), (ours, ""), (ours, "galley:wrong@"),
    )):  # fmt: skip
        assert await heard_by_a_rogue(three, tmp_path / f"r{number}", tls=encryption, login=login) == [], (
            number
        )
    # With both it is one of ours: the proof that the rogue would have heard, as it did on an open port.
    assert await heard_by_a_rogue(three, tmp_path / "both", tls=ours, login=password)


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
