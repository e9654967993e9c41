"""One who has every right on the broker and no key: what they write is refused, and costs that task alone."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Raw
from msgspec.structs import replace

from galley import TaskFailed, call
from galley import record as record_wire
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.held import message_of
from galley.broker.lean_client import header_block
from galley.broker.records import Records
from galley.encryption import DecryptionKeyMissing, PayloadAltered, PlaintextRefused
from galley.envelope import FIRST
from galley_local.nats_server import NatsServer
from tests.integration.encryption.scene import QUEUE, a_key, a_place, working, write_keys

FORGERIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "moved": (lambda body: body, "PayloadAltered"),
    "handler": (lambda body: body.replace(b'"echo"', b'"note"'), "PayloadAltered"),
    "flipped": (lambda body: body[:-9] + bytes([body[-9] ^ 1]) + body[-8:], "PayloadAltered"),
    "cut": (lambda body: body[:-12] + b'"}', "PayloadAltered"),
    "format": (lambda body: body.replace(b"g1.k1.", b"g7.k1."), "PayloadAltered"),
    "key": (lambda body: body.replace(b"g1.k1.", b"g1.k9."), "DecryptionKeyMissing"),
    "wrapped": (lambda body: body.replace(b"g1.k1.", b"g1.k1.AAAA"), "PayloadAltered"),
    "reordered": (lambda body: body[:-1] + b',"deadline":null}', "PayloadAltered"),
    "empty": (lambda body: json.dumps({**json.loads(body), "sealed": ""}).encode(), "EnvelopeInvalid"),
    "plain": (
        lambda body: json.dumps(
            {k: v for k, v in json.loads(body).items() if k not in {"sealed", "v"}}
        ).encode(),
        "PlaintextRefused",
    ),
}


async def body_of(broker: Broker, address: TaskAddress) -> bytes:
    message = await message_of(broker, address)
    assert message is not None
    got = await broker.api("read", f"STREAM.MSG.GET.{message.stream}", {"seq": message.sequence})
    return base64.b64decode(got["message"]["data"])


async def test_what_one_without_the_key_writes_fails_alone_and_says_why(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys", "k1", k1=a_key())
    async with (
        a_place(nats_server, namespace, keys) as (client, queue),
        Broker(nats_server.url, name="attacker") as attacker,
    ):
        victim = await client.submit(call(QUEUE, "echo", value="mine"), task_id="victim")
        body = await body_of(attacker, victim.address)
        for name, (forge, _) in FORGERIES.items():
            address = replace(victim.address, id=name)
            headers = header_block({topology.EXPECTED_SEQUENCE: "0", topology.FLAGS_HEADER: FIRST.encode()})
            answer = await attacker.pipeline.send(topology.task_subject(address), forge(body), headers)
            assert (await answer).stored
        patience = {"GALLEY_UNKNOWN_HANDLER_SECONDS": "0"}
        async with working(nats_server.url, queue, tmp_path, keys, **patience) as worker:
            assert await victim.result(within=20) == "mine"
            reasons = {}
            for name in FORGERIES:
                with pytest.raises(TaskFailed) as failed:
                    await client.handle(QUEUE, name).result(within=20)
                reasons[name] = failed.value.why
            assert reasons == {name: reason for name, (_, reason) in FORGERIES.items()}
            after = await client.submit(call(QUEUE, "echo", value="after"))
            assert await after.result(within=20) == "after"
            assert worker.process.poll() is None
            assert len(worker.logged("worker ready")) == 1

        records = Records(attacker)
        one, other = [await records.read(handle.address) for handle in (victim, after)]
        assert one is not None
        assert other is not None

        async def forged(**changes: object) -> None:
            present = await records.read(victim.address)
            assert present is not None
            ack = await records.write(victim.address, replace(one.record, **changes), present.sequence)
            assert ack.stored

        await forged(sealed=other.record.sealed)
        with pytest.raises(PayloadAltered, match="the outcome of task drills/victim was altered"):
            await victim.result(within=30)
        await forged(v=record_wire.VERSION, sealed="", result=Raw(b'"theirs"'))
        with pytest.raises(PlaintextRefused, match="the outcome of task drills/victim is not encrypted"):
            await victim.result(within=30)
        await forged(sealed=one.record.sealed.replace("g1.k1.", "g1.k9."))
        with pytest.raises(DecryptionKeyMissing, match="encrypted with key 'k9'; keys at hand: k1"):
            await victim.result(within=30)
        await forged()
        assert await victim.result(within=30) == "mine"
