"""When a producer learns that a queue is encrypted, or is no longer."""

import asyncio
from dataclasses import replace

import pytest

from galley.broker.encryption_rules import ASKED_AGAIN_SECONDS, EncryptionRules
from galley.broker.ensure import ensure
from galley.broker.errors import BrokerUnreachable
from galley.encryption import EncryptionRequired, QueueNotEncrypted
from tests.support.builders import an_address
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.encryption.keys import payloads
from tests.unit.galley_worker.bench import a_bench


@in_virtual_time
async def test_a_queue_that_becomes_encrypted_is_noticed_within_a_minute() -> None:
    async with a_bench() as bench:
        rules, address = EncryptionRules(bench.producer), an_address(of=bench.layout)
        assert not rules.settled(address)
        await rules.check(address, 5)
        assert rules.settled(address)
        await ensure(bench.producer, replace(bench.layout, encrypted=True))
        assert rules.settled(address)
        await asyncio.sleep(ASKED_AGAIN_SECONDS)
        assert not rules.settled(address)
        with pytest.raises(EncryptionRequired):
            await rules.check(address, 5)
        with pytest.raises(EncryptionRequired):
            await rules.check(address, 5)  # what was learned a moment ago is not asked again
        await ensure(bench.producer, bench.layout)
        await asyncio.sleep(2)
        await rules.check(address, 5)  # before a refusal it is


@in_virtual_time
async def test_keys_for_a_queue_that_has_none_are_refused() -> None:
    async with a_bench() as bench:
        bench.producer.payloads = payloads()
        rules, address = EncryptionRules(bench.producer), an_address(of=bench.layout)
        with pytest.raises(QueueNotEncrypted):
            await rules.check(address, 5)
        await ensure(bench.producer, replace(bench.layout, encrypted=True))
        await asyncio.sleep(2)
        await rules.check(address, 5)


@in_virtual_time
async def test_while_the_broker_does_not_answer_what_is_known_holds_and_else_nothing_is_sent() -> None:
    async with a_bench() as bench:
        known, address = EncryptionRules(bench.producer), an_address(of=bench.layout)
        await known.check(address, 5)
        bench.producer.line.lose(to_server=lambda subject: "STREAM.INFO" in subject)
        await asyncio.sleep(ASKED_AGAIN_SECONDS)
        await known.check(address, 5)
        assert known.settled(address)  # the next task does not wait for it again
        with pytest.raises(BrokerUnreachable):
            await EncryptionRules(bench.producer).check(address, 5)


@in_virtual_time
async def test_a_queue_that_is_not_there_is_left_to_the_publish() -> None:
    async with a_bench() as bench:
        await EncryptionRules(bench.producer).check(an_address(of=bench.layout, queue="nowhere"), 5)


@in_virtual_time
async def test_many_tasks_at_once_ask_once_and_each_has_its_own_patience() -> None:
    async with a_bench() as bench:
        asked: list[float] = []

        def lost(subject: str) -> bool:
            if "STREAM.INFO" in subject:
                asked.append(asyncio.get_running_loop().time())
            return bool(asked) and asked[0] + 8 > asked[-1] and "STREAM.INFO" in subject

        bench.producer.line.lose(to_server=lost)
        rules, address = EncryptionRules(bench.producer), an_address(of=bench.layout)
        checks = [asyncio.create_task(rules.check(address, patience)) for patience in (1, *([30] * 99))]
        ended = await asyncio.gather(*checks, return_exceptions=True)
        assert [type(each) for each in ended] == [BrokerUnreachable] + [type(None)] * 99
        assert rules.settled(address)
        assert len(asked) == 3  # unanswered, unanswered, and answered
