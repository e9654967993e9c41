import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nats
import psutil
import pytest

from galley_local.errors import (
    ServerDidNotStart,
    ServerFolderInUse,
    ServerNotInstalled,
    ServerPortInUse,
)
from galley_local.jetstream_probe import jetstream_answers
from galley_local.nats_binary import nats_server_binary
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.port import free_port
from tests.support.servers import ROOM

_RUN_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from galley_local.nats_server import NatsServer

async def main():
    server = NatsServer(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def store_one_message(url: str) -> None:
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name="kept", subjects=["kept"])
    await stream.publish("kept", b"still here")
    await client.close()


async def stored_messages(url: str) -> int:
    client = await nats.connect(url)
    info = await client.jetstream().stream_info("kept")
    await client.close()
    return info.state.messages


async def test_jetstream_answers_once_the_server_is_started(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        assert await jetstream_answers(server.port)
    assert not server.running
    assert not await jetstream_answers(server.port)


async def test_the_binary_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert nats_server_binary().name == "nats-server"


async def test_without_a_binary_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [])  # no distribution is found
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerNotInstalled) as caught:
        await NatsServer(tmp_path / "nats").start()
    assert caught.value.hint == "pip install galley-tasks[local]"


async def test_what_was_stored_survives_a_stop_and_a_new_server_object(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        await store_one_message(server.url)
    async with NatsServer(tmp_path) as server:
        assert await stored_messages(server.url) == 1


async def test_a_killed_server_comes_back_on_its_port_with_its_data(own_nats_server: NatsServer) -> None:
    await store_one_message(own_nats_server.url)
    url, pid = own_nats_server.url, own_nats_server.pid
    own_nats_server.kill()
    assert not own_nats_server.running
    await own_nats_server.start()
    assert own_nats_server.url == url
    assert own_nats_server.pid != pid
    assert await stored_messages(url) == 1


async def test_a_frozen_server_does_not_answer_until_it_is_thawed(own_nats_server: NatsServer) -> None:
    own_nats_server.freeze()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(jetstream_answers(own_nats_server.port), 0.2)
    own_nats_server.thaw()
    assert await asyncio.wait_for(jetstream_answers(own_nats_server.port), 30)


async def test_a_frozen_server_can_be_stopped(own_nats_server: NatsServer) -> None:
    own_nats_server.freeze()
    await own_nats_server.stop(within=5)
    assert "Server Exiting" in own_nats_server.log_file.read_text()


async def test_stop_kills_a_server_that_takes_too_long(own_nats_server: NatsServer) -> None:
    assert own_nats_server.pid is not None
    process = psutil.Process(own_nats_server.pid)
    await own_nats_server.stop(within=0)
    assert not process.is_running()


async def test_starting_a_running_server_changes_nothing(own_nats_server: NatsServer) -> None:
    pid = own_nats_server.pid
    await own_nats_server.start()
    assert own_nats_server.pid == pid


async def test_it_listens_on_the_port_it_is_given(tmp_path: Path) -> None:
    port = free_port()
    async with NatsServer(tmp_path, port=port) as server:
        assert server.url == f"nats://127.0.0.1:{port}"
        assert await jetstream_answers(port)


async def test_a_port_in_use_is_told_even_if_a_nats_server_answers_there(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    second = NatsServer(tmp_path / "second", port=own_nats_server.port)
    with pytest.raises(ServerPortInUse, match=str(own_nats_server.port)):
        await second.start()
    assert not second.running


async def test_a_restart_waits_while_its_port_is_taken_for_a_moment(own_nats_server: NatsServer) -> None:
    own_nats_server.kill()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", own_nats_server.port))
        squatter.listen()
        start = asyncio.create_task(own_nats_server.start())
        await eventually(lambda: "already in use" in own_nats_server.log_file.read_text(), within=30)
        assert not start.done()
    await asyncio.wait_for(start, 30)
    assert await jetstream_answers(own_nats_server.port)


async def test_a_folder_in_use_is_told_with_the_process_that_uses_it(own_nats_server: NatsServer) -> None:
    with pytest.raises(ServerFolderInUse, match=f"process {own_nats_server.pid}\n"):
        await NatsServer(own_nats_server.folder).start()


async def test_a_start_that_is_refused_leaves_the_one_in_progress_its_ports(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        ports = list((tmp_path / "ports").iterdir())
        assert [file.name for file in ports] == [f"nats-server_{server.pid}.ports"]
        with pytest.raises(ServerFolderInUse):
            await NatsServer(tmp_path).start()
        assert ports[0].exists()


async def test_a_failed_start_quotes_the_last_lines_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "jetstream").write_text("a file where the store should be")
    with pytest.raises(ServerDidNotStart, match="storage directory is not a directory") as caught:
        await NatsServer(tmp_path).start()
    assert caught.value.last_lines
    assert str(tmp_path / "nats-server.log") in caught.value.hint


async def test_a_start_that_takes_too_long_leaves_no_process(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, start_seconds=0.001)
    with pytest.raises(ServerDidNotStart, match=r"did not answer within 0\.001 s"):
        await server.start()
    assert not server.running


async def test_monitoring_is_off_unless_asked_for(own_nats_server: NatsServer, tmp_path: Path) -> None:
    assert own_nats_server.monitoring_url is None
    async with NatsServer(tmp_path / "watched", monitoring=True) as watched:
        assert watched.monitoring_url is not None
        host, _, port = watched.monitoring_url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.close()


async def test_messages_up_to_the_limit_given_are_taken(tmp_path: Path) -> None:
    async with NatsServer(tmp_path, max_payload=4096, max_store_bytes=ROOM) as server:
        client = await nats.connect(server.url)
        assert client.max_payload == 4096
        await client.close()


async def test_a_folder_with_quotes_and_spaces_works(tmp_path: Path) -> None:
    folder = tmp_path / 'a "project" \\ $HOME'
    async with NatsServer(folder) as server:
        await store_one_message(server.url)
        assert (folder / "jetstream").is_dir()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
async def test_the_server_dies_with_its_parent(tmp_path: Path, by: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _RUN_AND_WAIT, str(tmp_path), stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    server = psutil.Process(int(await asyncio.wait_for(parent.stdout.readline(), 30)))
    parent.send_signal(by)
    await parent.communicate()
    await eventually(lambda: not server.is_running() or server.status() == "zombie", within=30)


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(own_nats_server: NatsServer) -> None:
    """A terminal sends SIGINT to the foreground process group, and a session has groups of its own."""
    assert own_nats_server.pid is not None
    assert os.getsid(own_nats_server.pid) != os.getsid(0)
    assert os.getpgid(own_nats_server.pid) == own_nats_server.pid
