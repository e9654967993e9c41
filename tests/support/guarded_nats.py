"""A nats-server that requires credentials, with the keys and the configuration the operator makes."""

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from galley.broker.account_directory import AccountDirectory
from galley.broker.connection import Broker
from galley.broker.permissions import Role, backup_permissions, gateway_permissions
from galley_local.nats_binary import nats_server_binary
from galley_local.orphan_guard import dying_with_us
from galley_operator.credentials.authority import Authority
from galley_operator.credentials.queue_roles import Holder, credentials_of
from galley_operator.credentials.registrar import Registrar
from galley_operator.credentials.trust import CONFIG_KEY, made_keys
from tests.support.eventually import eventually
from tests.support.port import free_port


class GuardedNats:
    """One server, and the credentials for it."""

    def __init__(self, folder: Path, keys: dict[str, str] | None = None, port: int | None = None) -> None:
        """Start it.

        Args:
            folder: for its configuration, data and log.
            keys: as in the operator's Secret; new ones by default.
            port: a free one by default.
        """
        self.folder = folder
        self.port = port or free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._trust(keys or made_keys(time.time()))
        self._configure()
        self._process = self._start()

    def _configure(self) -> None:
        """Write its configuration, in which `auth.conf` is what the operator has made."""
        (self.folder / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / "data"}", max_file_store: 100TB }}\n'
            "include auth.conf\n"
            f'resolver: {{ type: full, dir: "{self.folder / "accounts"}", '
            'allow_delete: true, interval: "2m" }\n'
        )

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                dying_with_us(str(nats_server_binary()), "--config", str(self.folder / "nats.conf")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _trust(self, keys: dict[str, str]) -> None:
        authority = Authority.read(keys, "the test's keys")
        assert authority is not None
        self.authority, self.account = authority, authority.streams
        self._registered: set[tuple[str, str]] = set()
        (self.folder / "auth.conf").write_text(keys[CONFIG_KEY])

    def restart_with_other_keys(self) -> None:
        """Kill it and start it again, as if the Secret with its keys had been lost and made again."""
        self.kill()
        self._trust(made_keys(time.time()))
        self._process = self._start()

    def restart(self) -> None:
        """Kill it and start it again with the data it has."""
        self.kill()
        self._process = self._start()

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait(30)

    @property
    def pid(self) -> int:
        """The process it is."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "log").read_text()

    def operator(self, **options: Any) -> Broker:
        """Return the operator's connection, not yet opened; it waits for a server that starts."""
        return Broker(
            self.url,
            name="operator",
            connect_seconds=10,
            credentials=lambda: self.account.credentials("operator", None),
            **options,
        )

    def write_creds(
        self, role: Role, namespace: str, queue: str, valid_seconds: float = 3600, name: str = ""
    ) -> Path:
        """Write credentials as a mounted Secret does, all at once, and return the file."""
        self._register(namespace, queue)
        path = self.folder / (name or f"{namespace}-{queue}-{role}.creds")
        holder = Holder(role, namespace, queue)
        text = credentials_of(self.authority.account_of(holder), holder, time.time(), valid_seconds)
        fresh = path.with_suffix(".fresh")
        fresh.write_text(text)
        fresh.replace(path)
        return path

    async def write_backup_creds(self) -> Path:
        """Write credentials of `galley backup`, and return the file."""
        async with self.directory() as directory:
            registrar = Registrar(self.authority, directory)
            await registrar.ensure_streams()
            await registrar.ensure_backup()
        path = self.folder / "backup.creds"
        account = self.authority.backup_account()
        path.write_text(account.credentials("galley backup", backup_permissions(), valid_seconds=3600))
        return path

    def write_gateway_creds(self) -> Path:
        """Write credentials of the gateway, and return the file."""
        path = self.folder / "gateway.creds"
        path.write_text(self.account.credentials("galley gateway", gateway_permissions(), valid_seconds=3600))
        return path

    def directory(self) -> AccountDirectory:
        """Return a connection to the directory of accounts, not yet opened."""
        system = self.authority.system
        return AccountDirectory(self.url, lambda: system.credentials("operator", None), connect_seconds=10)

    def _register(self, namespace: str, queue: str) -> None:
        """Have the accounts of a queue, as the operator does before it writes the Secrets."""
        if (namespace, queue) in self._registered:
            return

        async def register() -> None:
            await eventually(self._answers, within=30)
            async with self.directory() as directory:
                await Registrar(self.authority, directory).ensure(namespace, queue)

        failed: list[Exception] = []

        def run() -> None:
            try:
                asyncio.run(register())
            except Exception as error:
                failed.append(error)

        # In a thread, since the caller may be in an event loop of its own.
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
        if failed:
            raise failed[0]
        self._registered.add((namespace, queue))

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def guarded_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNats]:
    """One such server for the tests of a file that do it no harm; keep to your `namespace` there."""
    server = GuardedNats(tmp_path_factory.mktemp("guarded"))
    yield server
    server.kill()


@pytest.fixture
def own_guarded_nats(tmp_path: Path) -> Iterator[GuardedNats]:
    """Such a server of this test alone."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    server = GuardedNats(folder)
    yield server
    server.kill()
