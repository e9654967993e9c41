"""What is seldom between Galley and its broker: servers on their way up, and what goes between two looks."""

import asyncio
from typing import Any

import pytest
from msgspec import structs
from nats.errors import NoRespondersError

from galley.broker import schedules, topology
from galley.broker.errors import BrokerRefused, BrokerTooOld, BrokerUnreachable, NotAllowed
from galley.broker.follow import Follower
from galley.broker.missed_events import MissedEvents
from galley.broker.namespace_streams import topics_definition
from galley.broker.object_sweep import Sweep
from galley.broker.overview import Overview
from galley.broker.publish import Publisher
from galley.broker.server_check import check_jetstream
from galley.broker.snapshot import messages_from, owned_streams
from galley.broker.topic_keeper import TopicKeeper, code_body
from galley.record import Outcome, Record, State
from galley.topic import Subscribe
from tests.support.builders import an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.broker.test_objects import Collector, place, stored
from tests.unit.galley_worker.bench import Bench, a_bench

PLACE = ("default", "images")


def away(bench: Bench, seconds: float, word: str = "") -> None:
    """Have requests not arrive for a while."""
    bench.producer.line.lose(to_server=lambda subject: word in subject)
    asyncio.get_running_loop().call_later(seconds, bench.producer.line.lose)


def refusing(error: Exception) -> Any:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise error

    return refuse


@in_virtual_time
async def test_a_server_without_a_leader_yet_is_waited_for_and_one_without_jetstream_is_not() -> None:
    async with a_bench() as bench:
        line = bench.producer.line
        away(bench, 5)
        began = asyncio.get_running_loop().time()
        await check_jetstream(line, "nats", lambda _said: None)
        assert asyncio.get_running_loop().time() - began >= 5
        line.request = refusing(NoRespondersError())  # type: ignore[method-assign]
        with pytest.raises(BrokerTooOld, match="without JetStream"):
            await check_jetstream(line, "nats", lambda _said: None)


@in_virtual_time
async def test_a_backup_waits_for_a_broker_that_is_away() -> None:
    async with a_bench() as bench:
        await bench.submit()
        away(bench, 20)
        streams = await owned_streams(bench.producer)
        work = next(each for each in streams if each.name == topology.work_stream(*PLACE))
        away(bench, 20, "DIRECT.GET")
        assert [len(page) async for page in messages_from(bench.producer, work, 1)] == [1]
        replicated = structs.replace(work, config={**work.config, "num_replicas": 3})
        assert [len(page) async for page in messages_from(bench.producer, replicated, 1)] == [1]


@in_virtual_time
async def test_a_backup_gives_a_broker_up_that_is_away_for_a_minute() -> None:
    async with a_bench() as bench:
        away(bench, 600)
        with pytest.raises(BrokerUnreachable):
            await owned_streams(bench.producer)


@in_virtual_time
async def test_credentials_of_another_queue_are_told_by_the_subject_they_lack() -> None:
    async with a_bench() as bench:
        address = an_address(of=bench.layout)
        bench.producer.api = refusing(NotAllowed("$JS.API"))  # type: ignore[method-assign]
        with pytest.raises(NotAllowed, match=topology.task_subject(address)):
            await Publisher(bench.producer).publish(address, an_envelope())


@in_virtual_time
async def test_a_schedule_that_is_stored_again_and_again_is_not_said_to_be_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_bench() as bench:
        await schedules.remove(bench.producer, "default", "none", "nightly")

        async def there(*_: Any) -> object:
            return object()

        monkeypatch.setattr(schedules, "find", there)
        with pytest.raises(BrokerUnreachable, match="stored again and again"):
            await schedules.remove(bench.producer, *PLACE, "nightly")


@in_virtual_time
async def test_subscriptions_of_code_with_a_filter_that_is_none_are_told_and_keep_no_other() -> None:
    async with a_bench() as bench:
        broker = bench.producer
        config = topics_definition("default", "tests", 1, 1_000_000, ())
        await broker.api("make", f"STREAM.CREATE.{config['name']}", config)
        body = code_body({"bad": (Subscribe("up", filter="(("),), "good": (Subscribe("up"),)}, {})
        await broker.pipeline.send(topology.code_subscriptions_subject(*PLACE), body, b"")
        (problem,) = await TopicKeeper(broker, "default", "tests").keep([], implied=True)
        assert problem.startswith("handler bad of queue images: ")


@in_virtual_time
async def test_only_a_queue_that_has_no_consumer_has_missed_no_events() -> None:
    async with a_bench() as bench:
        missed = MissedEvents(bench.producer, "default")
        assert await missed._position("images") is None
        bench.producer.api = refusing(BrokerRefused("look", 10076, "broken"))  # type: ignore[method-assign]
        with pytest.raises(BrokerRefused, match="broken"):
            await missed._position("images")


@in_virtual_time
async def test_a_lane_that_is_removed_between_two_looks_holds_nothing() -> None:
    async with a_bench() as bench:
        await bench.submit()
        overview = Overview(bench.producer, "default", "images", asyncio.get_running_loop().time)
        (before,) = await overview.look()
        assert before.waiting == 1
        for key in [key for key in bench.server.consumers if key[1] == "normal"]:
            del bench.server.consumers[key]
        (after,) = await overview.look()
        assert after.running == 0


@in_virtual_time
async def test_what_is_no_task_keeps_no_object() -> None:
    async with a_bench() as bench:
        address, reference = await stored(bench)
        bench.put(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED))
        use = topology.use_subject(address, reference.digest, "input").replace(".sdk.", ".none.")
        await bench.producer.pipeline.send(use, b"", b"")
        swept = await Sweep(bench.producer, place(bench), Collector(bench).remove, bench.server.now).run()
        assert swept.leaving == 1


@in_virtual_time
async def test_records_are_followed_again_after_a_silence_that_no_one_told_of() -> None:
    async with a_bench() as bench:
        heard: list[str] = []
        follower = Follower(bench.producer, PLACE, lambda address, _: heard.append(address.id))
        following = bench.start(follower.run())
        await follower.started.wait()
        await bench.pass_time(1)
        bench.producer.line.lose(lambda _: True, lambda _: True)
        address = an_address(of=bench.layout)
        bench.put(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED))
        await bench.pass_time(120)
        assert heard == []
        bench.producer.line.lose()
        await eventually(lambda: heard == [address.id], within=60)
        following.cancel()
