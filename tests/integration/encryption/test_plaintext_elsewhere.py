"""Neither the gateway, which has no keys, nor a backup makes readable what a queue encrypts."""

import json
from pathlib import Path

from galley import When, call, connect
from galley.backup.archive import parts_of
from galley.backup.destination import destination_at
from galley.backup.take import take_backup
from galley.broker.connection import Broker
from galley_local.nats_server import NatsServer
from tests.integration.encryption.scene import QUEUE, Recorder, a_key, a_place, working, write_keys
from tests.integration.encryption.test_plaintext import FOLDER, wire
from tests.integration.encryption.test_plaintext_of_all import FAR
from tests.support.backups import KEY
from tests.support.gateways import served
from tests.support.s3 import BUCKET, s3_server

__all__ = ["wire"]

MARK = "e07fb5519a"


async def fill(recorder: Recorder, namespace: str, keys: Path | None) -> None:
    """Have a task wait, one end well, and one badly."""
    async with connect(recorder.url, namespace, keys=keys) as client:
        await client.submit(
            call(QUEUE, "keep", secret=f"LATER-{MARK}"), When(not_before=FAR), task_id="later"
        )
        ended = await client.submit(call(QUEUE, "report", secret=f"INPUT-{MARK}"), task_id="ended")
        assert await ended.result(within=30)
        failed = await client.submit(call(QUEUE, "tell", secret=MARK), task_id="failed")
        await failed.wait(within=30)


async def in_archive(server: NatsServer, namespace: str, place: str, environ: dict[str, str]) -> bytes:
    """Return what one who has the key of backups, and none of the queue, reads of an archive."""
    destination = destination_at(place, environ)
    async with Broker(server.url, name="backup") as broker:
        summary, _ = await take_backup(broker, destination, KEY, namespaces=[namespace])
    stored = b"".join([piece async for piece in destination.read(summary.name)])
    assert MARK.encode() not in stored
    found = b""
    async for part in parts_of(destination.read(summary.name), [KEY], summary.name):
        found += part.content
    return found


async def test_an_archive_has_nothing_of_an_encrypted_queue_in_the_clear_even_for_those_with_its_key(
    own_nats_server: NatsServer, wire: Recorder, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    with s3_server() as s3:
        s3.make_bucket()
        for namespace, of_it, place in (("hidden", keys, f"s3://{BUCKET}/x"), ("open", None, str(tmp_path))):
            folder = tmp_path / namespace
            folder.mkdir()
            spec = {"worker": {"modules": ["handlers"]}, **({} if of_it else {"encryption": None})}
            async with (
                a_place(own_nats_server, namespace, of_it, **spec) as (_, queue),
                working(own_nats_server.url, queue, folder, of_it or "", GALLEY_IMPORT_PATHS=FOLDER),
            ):
                await fill(wire, namespace, of_it)
            read = await in_archive(own_nats_server, namespace, place, s3.environment)
            assert (MARK.encode() in read) is (of_it is None)


async def test_a_submit_over_http_to_an_encrypted_queue_reaches_no_broker(
    own_nats_server: NatsServer, wire: Recorder, tmp_path: Path
) -> None:
    """The gateway has no keys of queues. What it is given must not be passed on in the clear."""
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    new = {"handler": "keep", "input": {"secret": MARK}, "id": "one"}
    many = {"tasks": [new, {**new, "id": "two", "notBefore": "2098-01-01T00:00:00Z"}]}
    step = {"name": "first", "handler": "keep", "input": {"secret": MARK}}
    schedule = {"task": {"handler": "keep", "input": {"secret": MARK}}, "repeat": {"cron": "@yearly"}}
    async with (
        a_place(own_nats_server, "hidden", keys),
        a_place(own_nats_server, "open", None, encryption=None),
        served(wire.url, "hidden") as hidden,
        served(wire.url, "open") as plain,
    ):
        for gateway, refused in ((hidden, True), (plain, False)):
            wire.heard.clear()
            for method, rest, body in (
                ("POST", "/tasks", new), ("POST", "/submit-many", many),
                ("POST", "/workflows", {"id": "flow", "steps": [step]}),
                ("PUT", "/schedules/nightly", schedule),
            ):  # fmt: skip
                answer = await gateway.ask(method, gateway.path(QUEUE, rest), body)
                told = json.dumps(answer.body)
                assert ("EncryptionRequired" in told) is refused, (rest, answer)
            assert (MARK.encode() in wire.heard) is not refused
