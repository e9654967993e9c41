"""Web sockets work, and cost nothing where they are not used."""

import subprocess
import sys
from pathlib import Path

import pytest

from galley.broker.connection import Broker
from galley.errors import ServerInvalid
from galley_local.nats_binary import nats_server_binary
from galley_local.orphan_guard import dying_with_us
from tests.support.port import free_port


@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")  # in nats-py
async def test_a_client_connects_by_web_socket(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "nats.conf").write_text(
        f'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "{tmp_path}/data" }}\n'
        f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}\n'
    )
    command = dying_with_us(str(nats_server_binary()), "--config", str(tmp_path / "nats.conf"))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:  # noqa: ASYNC220 - ended below
        try:
            async with Broker(f"ws://127.0.0.1:{port}", name="test", connect_seconds=20) as broker:
                assert "memory" in await broker.api("look at the account", "INFO")
        finally:
            server.kill()


async def test_a_web_socket_without_aiohttp_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ServerInvalid, match="web sockets need the package aiohttp: pip install aiohttp"):
        async with Broker("ws://127.0.0.1:1", name="test"):
            pass


def test_nothing_loads_aiohttp_that_does_not_need_it() -> None:
    program = (
        "import sys, galley_local.dev, galley.cli.main, galley_worker.main;"
        "assert 'aiohttp' not in sys.modules;"
        "import aiohttp, nats.aio.transport; assert nats.aio.transport.aiohttp is None"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
