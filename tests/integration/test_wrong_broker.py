"""With a broker that Galley cannot use, each command says within seconds what it is and what to do."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import galley_local.nats_server
from galley import BrokerTooOld, connect
from galley_local.nats_binary import nats_server_binary
from galley_local.nats_server import NatsServer
from tests.integration.galley_local.dev_process import galley
from tests.support.command import Said
from tests.support.eventually import eventually
from tests.support.old_nats_server import VERSION, old_nats_server_binary
from tests.support.port import free_port
from tests.support.workers import a_task_queue, workers

TOO_OLD = f"is nats-server {VERSION}; Galley needs 2.12.2 or newer"
UNUSED = "nats://127.0.0.1:1"


@pytest.fixture
async def old_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NatsServer]:
    monkeypatch.setattr(galley_local.nats_server, "nats_server_binary", old_nats_server_binary)
    async with NatsServer(tmp_path / "nats") as server:
        yield server


async def worker_ends(server: str, folder: Path) -> tuple[int, str, str]:
    """Return the exit code of a worker that cannot work, and what its log says of it."""
    with workers(server, a_task_queue("default"), folder) as (worker,):
        code = await eventually(worker.process.poll, within=60)
        assert code is not None
        (complaint,) = worker.logged("worker cannot work")
    return code, complaint["error"], complaint["hint"]


def two_lines(said: Said) -> tuple[str, str]:
    what, hint = said.err.splitlines()
    assert said.out == ""
    return what.removeprefix("error: "), hint.removeprefix("hint: ")


async def test_a_producer_is_told_that_the_server_is_too_old(old_server: NatsServer) -> None:
    with pytest.raises(BrokerTooOld) as error:
        async with connect(old_server.url):
            pass
    assert str(error.value) == f"NATS at {old_server.url} {TOO_OLD}"


async def test_a_command_says_that_the_server_is_too_old(old_server: NatsServer, tmp_path: Path) -> None:
    said = await galley(tmp_path, "get", "queues", "--server", old_server.url)
    assert said.code == 4
    assert two_lines(said) == (
        f"NATS at {old_server.url} {TOO_OLD}",
        "run nats-server 2.12.2 or newer with JetStream enabled (-js)",
    )


async def test_a_worker_ends_and_says_that_the_server_is_too_old(
    old_server: NatsServer, tmp_path: Path
) -> None:
    code, error, hint = await worker_ends(old_server.url, tmp_path)
    assert (code, error) == (3, f"NATS at {old_server.url} {TOO_OLD}")
    assert hint.startswith("run nats-server 2.12.2 or newer")


@asynccontextmanager
async def plain_server(folder: Path, *options: str) -> AsyncIterator[str]:
    """Run a nats-server that is not set up for Galley; lends its host and port."""
    place, log = f"127.0.0.1:{free_port()}", folder / "log"
    log.touch()
    server = await asyncio.create_subprocess_exec(
        nats_server_binary(), "-a", "127.0.0.1", "-p", place.rpartition(":")[2], "-l", str(log), *options
    )
    try:
        await eventually(lambda: "Server is ready" in log.read_text(), within=30)
        yield place
    finally:
        server.kill()
        await server.wait()


async def test_a_server_without_jetstream_is_called_that(tmp_path: Path) -> None:
    async with plain_server(tmp_path) as place:
        said = await galley(tmp_path, "get", "queues", "--server", f"nats://{place}")
    assert said.code == 4
    assert "without JetStream; Galley needs 2.12.2 or newer" in two_lines(said)[0]


async def test_a_server_that_wants_a_password_is_not_called_unreachable(tmp_path: Path) -> None:
    async with plain_server(tmp_path, "--user", "ada", "--pass", "right") as place:
        said = await galley(tmp_path, "get", "queues", "--server", f"nats://ada:wrong@{place}")
    assert said.code == 1
    assert two_lines(said)[0].startswith(f"NATS at nats://{place} refused the connection: ")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def web_port() -> Iterator[int]:
    """A port where a web server listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield server.server_port
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("peer", ["silent_port", "web_port"])
async def test_a_program_that_is_no_nats_server_is_given_up_in_time(
    peer: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server = f"nats://127.0.0.1:{request.getfixturevalue(peer)}"
    async with asyncio.timeout(20):  # 5 s to connect, 1 s to close, and a busy machine
        said = await galley(tmp_path, "get", "queues", "--server", server)
    assert said.code == 4
    assert two_lines(said)[0].startswith(f"no answer from NATS at {server}: ")


async def test_a_worker_without_a_server_waits_for_it_and_says_so(tmp_path: Path) -> None:
    with workers(UNUSED, a_task_queue("default"), tmp_path) as (worker,):
        said = await eventually(lambda: worker.logged("waiting for the broker"), within=60)
        assert said[0]["error"].startswith(f"no answer from NATS at {UNUSED}: ")
        assert "GALLEY_SERVER" in said[0]["hint"]
        assert worker.end() == 0


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        ("nats://", "there is no host in it"),
        ("nats://127.0.0.1:99999", "Port out of range 0-65535"),
        ("http://127.0.0.1:4222", "'http' is not one of nats, tls, ws, wss"),
        ("nats://ada:secret@host:port", "Port could not be cast"),
    ],
)
async def test_what_is_no_address_is_said_at_once(server: str, problem: str, tmp_path: Path) -> None:
    said = await galley(tmp_path, "get", "queues", "--server", server)
    assert said.code == 2
    what, hint = two_lines(said)
    assert f"is not the address of a NATS server: {problem}" in what
    assert hint == "write it as nats://HOST:4222 (--server, GALLEY_SERVER)"
    assert "secret" not in said.err
