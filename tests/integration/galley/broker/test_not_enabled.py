"""An account without JetStream: a cluster says so until it is complete, so the client asks again."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from galley import BrokerUnreachable
from galley.broker.connection import Broker
from galley_local.nats_binary import nats_server_binary
from tests.support.eventually import eventually

CONFIG = """
listen: "127.0.0.1:-1"
ports_file_dir: "{folder}"
jetstream {{ store_dir: "{folder}/store" }}
accounts {{ A: {{ users: [{{user: a, password: a}}] }} }}
no_auth_user: a
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    config = tmp_path / "nats.conf"
    config.write_text(CONFIG.format(folder=tmp_path))
    with subprocess.Popen([nats_server_binary(), "-c", config], stderr=subprocess.DEVNULL) as running:
        yield running
        running.kill()


async def url(folder: Path) -> str:
    def found() -> list[Path]:
        return [path for path in folder.glob("nats-server_*.ports") if path.read_text().endswith("}")]

    await eventually(found, within=10)
    return "nats://" + found()[0].read_text().split("nats://")[1].split('"')[0]


async def test_the_client_asks_again_and_then_says_why(
    tmp_path: Path, server: subprocess.Popen[bytes]
) -> None:
    address = await url(tmp_path)
    with pytest.raises(BrokerUnreachable, match="JetStream not enabled for account"):
        async with Broker(address, name="test", connect_seconds=1):
            pass
