"""The commands as people run them: what they print, and how they end."""

import asyncio
import json
from pathlib import Path

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.publish import Publisher
from galley.broker.stream_kind import NOT_ARCHIVED, OF_NAMESPACE, StreamKind, name_of
from galley.cli.main import main
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue, an_address, an_envelope
from tests.unit.galley.cli.a_terminal import a_terminal
from tests.unit.galley.cli.a_terminal import err as err_of
from tests.unit.galley.cli.a_terminal import out as out_of

LAYOUT = a_queue("images", namespace="shop")


async def galley(folder: Path, server: NatsServer, *words: str) -> tuple[int, str, str]:
    """Run a command; returns its exit code and what it printed."""
    terminal = a_terminal(folder=folder, environ={"GALLEY_SERVER": server.url})
    code = await asyncio.to_thread(main, words, terminal)
    return code, out_of(terminal), err_of(terminal)


@pytest.fixture
async def server(own_nats_server: NatsServer, tmp_path: Path) -> NatsServer:
    async with Broker(own_nats_server.url, name="test") as broker:
        await ensure(broker, LAYOUT)
        for _ in range(5):
            await Publisher(broker).publish(an_address(of=LAYOUT), an_envelope())
    (tmp_path / "archives").mkdir()
    (tmp_path / "backup.key").write_bytes(b"k" * 32)
    return own_nats_server


OF_A_QUEUE = set(StreamKind) - OF_NAMESPACE
ARCHIVED = {*OF_A_QUEUE, StreamKind.AUDIT} - NOT_ARCHIVED


async def test_an_archive_is_taken_listed_and_verified(server: NatsServer, tmp_path: Path) -> None:
    code, out, err = await galley(tmp_path, server, "backup", "take", "archives", "--key-file", "backup.key")
    assert code == 0, err
    assert f": 5 messages of {len(ARCHIVED)} streams, 0 objects, " in out
    code, out, _ = await galley(tmp_path, server, "backup", "list", "archives", "-o", "json")
    [listed] = json.loads(out)
    assert (listed["complete"], listed["messages"], listed["streams"]) == (True, 5, len(ARCHIVED))
    code, out, _ = await galley(tmp_path, server, "backup", "list", "archives")
    assert out.split("\t")[2] == "yes"
    code, out, err = await galley(
        tmp_path, server, "backup", "verify", "archives", "--key-file", "backup.key", "-o", "json"
    )
    manifest = json.loads(out)
    assert {each["name"] for each in manifest["streams"]} == {
        name_of(kind, "shop", "" if kind in OF_NAMESPACE else "images") for kind in ARCHIVED
    }
    assert all(len(part["sha256"]) == 64 for part in manifest["parts"])


async def test_an_archive_without_its_end_is_listed_as_incomplete(server: NatsServer, tmp_path: Path) -> None:
    await galley(tmp_path, server, "backup", "take", "archives", "--key-file", "backup.key")
    [archive] = (tmp_path / "archives").glob("*.galley")
    archive.write_bytes(archive.read_bytes()[:-1])
    code, out, _ = await galley(tmp_path, server, "backup", "list", "archives")
    assert (code, out.split("\t")[2]) == (0, "no")
    code, _, err = await galley(
        tmp_path, server, "backup", "verify", "archives", archive.name, "--key-file", "backup.key"
    )
    assert code == 1
    assert "is damaged: it has" in err
    assert "hint: use another archive: `galley backup list" in err


@pytest.mark.parametrize(("words", "code", "says"), [
    (["backup", "take", "archives"], 2, "hint: name its file: --key-file FILE"),
    (["backup", "take", "archives", "--key-file", "none"], 2, "none is no key for archives: No such file"),
    (["backup", "take", "archives", "--keep", "0"], 2, "'0' is not a number of at least 1"),
    (["backup", "pack", "archives"], 2, "is not an action"),
    (["backup", "list", "gs://bucket"], 2, "it is neither a folder nor s3://"),
    (["restore", "archives", "--key-file", "backup.key"], 1, "there is no archive latest in"),
    (["restore", "archives", "--map", "old"], 2, "'old' is not OLD=NEW"),
    (["streams", "--auth-secret", "name"], 2, "'name' is not NAMESPACE/NAME"),
    (["streams", "--auth-secret", "a/b"], 2, "--auth-secret needs a cluster"),
])  # fmt: skip
async def test_a_command_that_cannot_be_done_says_why(
    nats_server: NatsServer, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    (tmp_path / "archives").mkdir()
    (tmp_path / "backup.key").write_bytes(b"k" * 32)
    ended, _, err = await galley(tmp_path, nats_server, *words)
    assert says in err
    assert ended == code


async def test_streams_are_listed_with_their_copies(server: NatsServer, tmp_path: Path) -> None:
    code, out, _ = await galley(tmp_path, server, "streams", "-n", "shop")
    assert code == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:3] for line in out.splitlines()}
    assert rows["GW_shop_images"] == ["5", "1"]
    own = {name_of(kind, "shop", "images") for kind in OF_A_QUEUE}
    assert set(rows) == own | {name_of(StreamKind.AUDIT, "shop")}
    code, _, err = await galley(tmp_path, server, "streams", "--replicas", "3")
    assert code == 1
    assert "replicas > 1 not supported in non-clustered mode" in err
