"""A cluster that is not complete says that it has no JetStream, or says nothing: the client asks again."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from galley import BrokerUnreachable
from galley.broker import server_check
from galley.broker.connection import Broker
from galley_local.nats_binary import nats_server_binary
from tests.support.eventually import eventually

PLAIN = """
listen: "127.0.0.1:-1"
ports_file_dir: "{folder}"
"""
NOT_ENABLED = (
    PLAIN
    + """
jetstream {{ store_dir: "{folder}/store" }}
accounts {{ A: {{ users: [{{user: a, password: a}}] }} }}
no_auth_user: a
"""
)


@contextmanager
def server(folder: Path, config: str) -> Iterator[None]:
    """Run a nats-server with a configuration."""
    file = folder / "nats.conf"
    file.write_text(config.format(folder=folder))
    with subprocess.Popen([nats_server_binary(), "-c", file], stderr=subprocess.DEVNULL) as running:
        yield
        running.kill()


async def url(folder: Path) -> str:
    def found() -> list[Path]:
        return [path for path in folder.glob("nats-server_*.ports") if path.read_text().endswith("}")]

    await eventually(found, within=30)
    return "nats://" + found()[0].read_text().split("nats://")[1].split('"')[0]


async def test_the_client_asks_again_and_then_says_why(tmp_path: Path) -> None:
    with server(tmp_path, NOT_ENABLED):
        address = await url(tmp_path)
        with pytest.raises(BrokerUnreachable, match="JetStream not enabled for account"):
            async with Broker(address, name="test", connect_seconds=1):
                pass


@pytest.mark.parametrize(
    "first", [None, b'{"error": {"code": 503, "err_code": 10008}}'], ids=["silent", "no leader"]
)
async def test_the_client_asks_again_if_there_is_no_answer_or_no_leader(
    first: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_check, "_INFO_SECONDS", 0.1)
    asked = 0

    async def answer_the_second(message: Msg) -> None:
        nonlocal asked
        asked += 1
        if answer := first if asked == 1 else b"{}":
            await message.respond(answer)

    with server(tmp_path, PLAIN):
        async with await nats.connect(await url(tmp_path)) as api:
            await api.subscribe("$JS.API.INFO", cb=answer_the_second)
            await api.flush()
            async with Broker(await url(tmp_path), name="test", connect_seconds=10):
                assert asked == 2


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with server(tmp_path, PLAIN):
        async with await nats.connect(await url(tmp_path)) as api:
            await api.subscribe("$JS.API.INFO")
            await api.flush()
            with pytest.raises(BrokerUnreachable):
                async with Broker(await url(tmp_path), name="test", connect_seconds=0.5):
                    pass
