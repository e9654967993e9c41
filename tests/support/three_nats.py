"""Three nats-servers that form a cluster, with accounts, configured as the chart does."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galley.broker.connection import Broker
from galley.broker.errors import BrokerError
from galley.broker.listing import all_streams
from galley_local.nats_binary import nats_server_binary
from galley_local.orphan_guard import dying_with_us
from galley_operator.credentials.authority import Authority
from galley_operator.credentials.trust import CONFIG_KEY, made_keys
from tests.support.port import free_port


class ThreeNats:
    """The servers 0, 1 and 2, each with a disk of its own; none runs at first."""

    def __init__(self, folder: Path) -> None:
        self._folder, keys = folder, made_keys(time.time())
        authority = Authority.read(keys, "the test's keys")
        assert authority is not None
        self._account, self._trust = authority.streams, keys[CONFIG_KEY]
        self._ports = [free_port() for _ in range(3)]
        self._routes = [free_port() for _ in range(3)]
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *numbers: int, alone: bool = False) -> None:
        """Start servers; `alone` is without a cluster, as a chart with one replica does."""
        for number in numbers:
            place = self._folder / f"nats-{number}"
            place.mkdir(exist_ok=True)
            (place / "auth.conf").write_text(self._trust)
            (place / "nats.conf").write_text(self._config(number, place, alone=alone))
            with (place / "log").open("ab") as log:
                self._running[number] = subprocess.Popen(
                    dying_with_us(str(nats_server_binary()), "--config", str(place / "nats.conf")),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip

    def kill(self, *numbers: int) -> None:
        """End servers without a word."""
        for number in numbers:
            process = self._running.pop(number)
            process.kill()
            process.wait(30)

    def lose_disk(self, number: int) -> None:
        """Delete what a server that does not run has stored."""
        shutil.rmtree(self._folder / f"nats-{number}" / "data")

    def close(self) -> None:
        """End all that run."""
        self.kill(*self._running)

    def url(self, number: int) -> str:
        """Return the address of a server."""
        return f"nats://127.0.0.1:{self._ports[number]}"

    def broker(self, number: int = 0) -> Broker:
        """Return a connection with all rights to a server, not yet opened."""
        return Broker(
            self.url(number), name="test", connect_seconds=30,
            credentials=lambda: self._account.credentials("test", None),
        )  # fmt: skip

    def _config(self, number: int, place: Path, *, alone: bool) -> str:
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        cluster = (
            f'cluster {{ name: galley-nats, listen: "127.0.0.1:{self._routes[number]}", no_advertise: true, '
            f"routes: [{routes}] }}\n"
        )
        return (
            f'server_name: galley-nats-{number}\nlisten: "127.0.0.1:{self._ports[number]}"\n'
            "max_payload: 1MB\nping_interval: 10s\nping_max: 2\n"
            f'jetstream {{ store_dir: "{place / "data"}", max_file_store: 100TB, max_memory_store: 0, '
            f"sync_interval: 1s }}\n{'' if alone else cluster}include auth.conf\n"
            f'resolver: {{ type: full, dir: "{place / "data" / "accounts"}", allow_delete: true, '
            'interval: "2m" }\n'
        )


@contextmanager
def three_nats(folder: Path) -> Iterator[ThreeNats]:
    """Yield three servers, none of which runs yet; those that run at the end are killed."""
    servers = ThreeNats(folder)
    try:
        yield servers
    finally:
        servers.close()


async def formed(broker: Broker) -> bool:
    """Whether each server takes streams, which those that start together do a moment after the first does.

    On a cluster, a pod of NATS is not ready before.
    """
    probe = {"name": "probe", "subjects": ["probe"], "num_replicas": 3}
    try:
        await broker.api("create probe", "STREAM.CREATE.probe", probe)
        await broker.api("delete probe", "STREAM.DELETE.probe")
    except BrokerError:
        return False
    return True


async def streams_of(broker: Broker) -> list[dict[str, Any]]:
    """Return what the servers say of each stream."""
    return [each async for each in all_streams(broker)]


async def in_step(broker: Broker, replicas: int, streams: int) -> bool:
    """Whether there are so many streams, each with a leader and followers that have all of it.

    Followers can have all of it before the leader counts on them ("waiting for peer set to settle"); if it is
    lost then, the stream has no leader until it is back.
    """
    try:
        async with asyncio.timeout(5):
            found = await streams_of(broker)
    except (BrokerError, TimeoutError):
        return False
    assert len(found) == streams, [each["config"]["name"] for each in found]
    for each in found:
        cluster = each.get("cluster") or {}
        followers = cluster.get("replicas") or []
        assert cluster.get("leader"), each["config"]["name"]
        assert len(followers) == replicas - 1, cluster
        if (cluster.get("desired") or {}).get("status"):
            return False
        assert all(one["current"] and not one.get("offline") for one in followers), cluster
    return True
