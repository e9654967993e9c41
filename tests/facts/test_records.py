"""The records stream: one record a task, compare-and-set, life time, republished headers."""

from galley.broker import stream_config, topology
from galley.broker.topology import EXPECTED_SEQUENCE, TTL, QueueLayout
from tests.facts.jetstream import JetStream
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually


def fence(sequence: int) -> dict[str, str]:
    return {EXPECTED_SEQUENCE: str(sequence)}


async def test_a_record_replaces_the_one_whose_sequence_it_names(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    subject = topology.record_subject(an_address(of=queue))
    first = await jetstream.stored(subject, headers=fence(0))
    await jetstream.stored(subject, b"second", headers=fence(first))
    stream = topology.records_stream(queue.namespace, queue.queue)
    assert await jetstream.held(stream) == 1
    assert (await jetstream.get(stream, subject)).data == b"second"


async def test_a_stale_fence_is_refused_with_the_sequence_that_is_there(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    subject = topology.record_subject(an_address(of=queue))
    first = await jetstream.stored(subject, headers=fence(0))
    second = await jetstream.stored(subject, headers=fence(first))
    stale = await jetstream.publish(subject, headers=fence(first))
    assert stale.refusal == (10071, f"wrong last sequence: {second}")


async def test_a_record_with_a_life_time_goes_when_it_is_over(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    subject = topology.record_subject(an_address(of=queue))
    stream = topology.records_stream(queue.namespace, queue.queue)
    gone = await jetstream.stored(subject, headers={**fence(0), TTL: "3"})
    assert (await jetstream.publish(subject, headers=fence(0))).refusal == (
        10071, f"wrong last sequence: {gone}")  # fmt: skip

    async def expired() -> bool:
        return await jetstream.held(stream) == 0

    await eventually(expired, within=30)
    # A fence on the record that is gone fails and names 0; expecting nothing is accepted again.
    assert (await jetstream.publish(subject, headers=fence(gone))).refusal == (
        10071, "wrong last sequence: 0")  # fmt: skip
    await jetstream.stored(subject, headers=fence(0))


async def test_a_record_replaced_by_one_without_life_time_stays(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    mortal = topology.record_subject(an_address(of=queue))
    replaced = topology.record_subject(an_address(of=queue))
    stream = topology.records_stream(queue.namespace, queue.queue)
    await jetstream.stored(mortal, headers={TTL: "3"})
    first = await jetstream.stored(replaced, headers={TTL: "3"})
    await jetstream.stored(replaced, b"stays", headers=fence(first))

    async def mortal_is_gone() -> bool:
        return (await jetstream.get(stream, mortal)).headers == {
            "Status": "404", "Description": "Message Not Found"}  # fmt: skip

    await eventually(mortal_is_gone, within=30)
    assert (await jetstream.get(stream, replaced)).data == b"stays"


async def test_a_life_time_below_one_second_is_refused(jetstream: JetStream, queue: QueueLayout) -> None:
    subject = topology.record_subject(an_address(of=queue))
    assert (await jetstream.publish(subject, headers={TTL: "0.5"})).code == 10165


async def test_no_client_may_wipe_the_records_with_a_roll_up(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    subject = topology.record_subject(an_address(of=queue))
    refused = await jetstream.publish(subject, headers={"Nats-Rollup": "all"})
    assert refused.refusal == (10111, "rollup not permitted")


async def test_waiters_without_rights_on_the_stream_hear_that_a_record_changed(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    address = an_address(of=queue)
    heard = await jetstream.hear(topology.done_subject(address))
    stream = topology.records_stream(queue.namespace, queue.queue)
    first = await jetstream.stored(topology.record_subject(address), b"secret", fence(0))
    first_word = await heard.one()
    second = await jetstream.stored(topology.record_subject(address), b"secret", {**fence(first), TTL: "60"})
    second_word = await heard.one()
    assert first_word.subject == topology.done_subject(address)
    assert first_word.data == b""
    assert first_word.headers is not None
    assert second_word.headers is not None
    assert first_word.headers["Nats-Stream"] == stream
    assert first_word.headers["Nats-Subject"] == topology.record_subject(address)
    assert first_word.headers["Nats-Sequence"] == str(first)
    assert first_word.headers["Nats-Last-Sequence"] == "0"
    assert first_word.headers["Nats-Msg-Size"] == "6"
    assert second_word.headers["Nats-Sequence"] == str(second)
    assert second_word.headers["Nats-Last-Sequence"] == str(first)
    assert second_word.headers[TTL] == "60"


async def test_the_oldest_records_go_when_there_is_no_room(jetstream: JetStream, namespace: str) -> None:
    definition = stream_config.records_definition(a_queue(namespace=namespace), 1) | {"max_bytes": 3000}
    await jetstream.ok(f"STREAM.CREATE.{definition['name']}", definition)
    old, new = (topology.record_subject(an_address(namespace=namespace)) for _ in range(2))
    await jetstream.stored(old, bytes(2000))
    await jetstream.stored(new, bytes(2000))
    assert (await jetstream.get(definition["name"], old)).headers == {
        "Status": "404", "Description": "Message Not Found"}  # fmt: skip
