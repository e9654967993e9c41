"""A server that is not of the chart cannot join the servers that are."""

import asyncio
import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as Nats

from e2e.rendered_cluster import NAMESPACE, RenderedCluster
from e2e.rendered_queue import QUEUE, SHOP, a_queue
from galley import call, connect
from galley.broker.permissions import Role
from galley_local.nats_binary import nats_server_binary
from galley_operator.cluster.resource import SECRETS
from galley_operator.credentials.certificate import issued, made_authority, utc
from galley_operator.credentials.key_secret import entries_of
from tests.support.eventually import eventually

ROGUE = """
server_name: rogue
listen: 127.0.0.1:-1
jetstream: disabled
cluster {{ name: galley-nats, listen: 127.0.0.1:-1, no_advertise: true, {tls} {login} routes: [ {routes} ] }}
system_account: SYS
accounts {{ SYS {{ users: [{{user: s, password: s}}] }}, {account} {{ users: [{{user: a, password: a}}] }} }}
ports_file_dir: "{folder}"
"""

pytestmark = pytest.mark.timeout(240)


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
