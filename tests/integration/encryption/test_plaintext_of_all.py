"""What workflows, batches, files, schedules and notes of an encrypted queue carry is nowhere in the clear.

And what SECURITY.md calls visible is. The same is done with a queue that is not encrypted: what can be seen.
"""

from datetime import UTC, datetime
from pathlib import Path

from galley import File, When, call, chain, connect
from galley.broker.connection import Broker
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.topic import Topic
from galley_local.nats_server import NatsServer
from tests.integration.encryption.handlers import several
from tests.integration.encryption.scene import QUEUE, Recorder, a_key, a_place, working, write_keys
from tests.integration.encryption.test_plaintext import FOLDER, wire

__all__ = ["wire"]

FAR = datetime(2098, 1, 1, tzinfo=UTC)
MARK = "5d1f77c0"
CARRIED = (
    f"first-{MARK}", f"STEP-first-{MARK}", f"PROGRESS-first-{MARK}", f"CHECKPOINT-first-{MARK}",
    f"member-{MARK}", f"MEMBER-member-{MARK}", f"file-{MARK}", f"large-{MARK}", f"tick-{MARK}",
    f"late-{MARK}", f"keyed-{MARK}", f"name-{MARK}",
)  # fmt: skip
"""What is never in the clear."""
NAMED = (f"label-{MARK}", f"key-{MARK}", f"id-{MARK}", f"event-{MARK}")
"""What is: labels, keys whose tasks take turns, ids, and events of topics."""
DIGESTED = f"unique-{MARK}"
"""A unique key, which is only stored as a digest anyway."""


async def all_kinds(
    server: NatsServer, recorder: Recorder, namespace: str, folder: Path, keys: Path | None
) -> None:
    """Give a queue something of each kind, by way of the recorder."""
    spec = {"worker": {"modules": ["handlers"]}, **({} if keys else {"encryption": None})}
    secret = folder / f"name-{MARK}.txt"
    secret.write_text(f"file-{MARK}")
    async with (
        a_place(server, namespace, keys, **spec) as (_, queue),
        connect(recorder.url, namespace, keys=keys) as client,
        Broker(server.url, name="maker") as maker,
    ):
        await TopicKeeper(maker, namespace, "tests").keep([Declared(Topic("orders"))])
        large = f"large-{MARK}" + "x" * 400_000
        await client.publish("orders", f"event-{MARK}")
        await client.schedules.create("nightly", call(QUEUE, "report", secret=f"tick-{MARK}"), "@yearly")
        late = call(QUEUE, "report", secret=f"late-{MARK}")
        await client.submit(late, When(not_before=FAR), task_id=f"id-{MARK}")
        with_key = call(QUEUE, "report", secret=f"keyed-{MARK}")
        keyed = await client.submit(with_key, key=f"key-{MARK}", labels={"of": f"label-{MARK}"})
        unique = await client.submit(call(QUEUE, "report", secret="u"), unique=f"unique-{MARK}")
        async with working(recorder.url, queue, folder, keys or "", GALLEY_IMPORT_PATHS=FOLDER):
            step = call(QUEUE, "report", secret=f"first-{MARK}")
            whole = await client.submit(chain(step, call(QUEUE, "report", secret="last")))
            assert await whole.result(within=30) == "STEP-last"
            assert await (await client.submit(several.call(f"member-{MARK}"))).result(within=30)
            read = await client.submit(call(QUEUE, "read", file=File(secret), text=large))
            assert await read.result(within=30) == f"file-{MARK}large-{MARK}" + "x" * 26
            assert await keyed.result(within=30)
            assert await unique.result(within=30)


def on_disk(store: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file())


def found(data: bytes) -> set[str]:
    return {mark for mark in (*CARRIED, *NAMED, DIGESTED) if mark.encode() in data}


async def test_what_a_task_carries_is_hidden_however_it_was_submitted(
    own_nats_server: NatsServer, wire: Recorder, tmp_path: Path
) -> None:
    store, keys = tmp_path / "nats", write_keys(tmp_path / "keys", "k1", k1=a_key())
    kept: set[str] = set()
    for namespace, of_it, seen in (("hidden", keys, {*NAMED}), ("open", None, {*CARRIED, *NAMED})):
        wire.heard.clear()
        (tmp_path / namespace).mkdir()
        await all_kinds(own_nats_server, wire, namespace, tmp_path / namespace, of_it)
        assert found(bytes(wire.heard)) == seen
        # The input of a task that has ended may be gone from the disk.
        kept = found(on_disk(store))
        assert kept <= seen
    assert kept >= {f"STEP-first-{MARK}", f"MEMBER-member-{MARK}", f"file-{MARK}", f"late-{MARK}"}
