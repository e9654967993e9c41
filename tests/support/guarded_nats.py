"""A nats-server that asks everybody who he is, with the keys and the configuration the operator makes."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from galley.broker.connection import Broker
from galley.broker.permissions import Role
from galley_local.nats_binary import nats_server_binary
from galley_local.orphan_guard import dying_with_us
from galley_operator.credentials.account import Account
from galley_operator.credentials.queue_roles import Holder, credentials_of
from galley_operator.credentials.trust import CONFIG_KEY, made_keys
from tests.support.documents import free_port


class GuardedNats:
    """One server, and whoever is let in there."""

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
        (folder / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{folder / "data"}", max_file_store: 100TB }}\n'
            "include auth.conf\n"
        )
        self._process = self._start()

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
        self.account = Account.read(keys, "the test's keys")
        (self.folder / "auth.conf").write_text(keys[CONFIG_KEY])

    def restart_with_other_keys(self) -> None:
        """Kill it and start it again, as if the Secret with its keys had been lost and made anew."""
        self.kill()
        self._trust(made_keys(time.time()))
        self._process = self._start()

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()
        self._process.wait(10)

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
        path = self.folder / (name or f"{namespace}-{queue}-{role}.creds")
        text = credentials_of(self.account, Holder(role, namespace, queue), time.time(), valid_seconds)
        fresh = path.with_suffix(".fresh")
        fresh.write_text(text)
        fresh.replace(path)
        return path


@pytest.fixture(scope="session")
def guarded_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedNats]:
    """One such server for all tests that do it no harm; keep to your `namespace` there."""
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
