"""Reading without consuming: records by subject, listings, and the figures a scaler decides on."""

from datetime import UTC, datetime, timedelta

from galley.address import Kind
from galley.broker import topology
from galley.broker.topology import SCHEDULE, SCHEDULE_TARGET, QueueLayout
from galley.lanes import Lane
from tests.facts.jetstream import JetStream
from tests.support.builders import an_address


async def test_a_record_is_read_by_its_subject_with_its_sequence(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    subject = topology.record_subject(an_address(of=queue))
    sequence = await jetstream.stored(subject, b"record", {"Galley": "v=1"})
    message = await jetstream.get(topology.records_stream(queue.namespace, queue.queue), subject)
    assert message.data == b"record"
    assert message.headers is not None
    assert message.headers["Nats-Sequence"] == str(sequence)
    assert message.headers["Nats-Subject"] == subject
    assert message.headers["Galley"] == "v=1"


async def test_a_record_that_is_not_there_reads_as_404(jetstream: JetStream, queue: QueueLayout) -> None:
    subject = topology.record_subject(an_address(of=queue))
    message = await jetstream.get(topology.records_stream(queue.namespace, queue.queue), subject)
    assert message.headers == {"Status": "404", "Description": "Message Not Found"}


async def test_records_are_listed_page_by_page_in_the_order_of_their_last_change(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    stream = topology.records_stream(queue.namespace, queue.queue)
    subjects = [topology.record_subject(an_address(of=queue)) for _ in range(5)]
    for subject in subjects:
        await jetstream.stored(subject)
    await jetstream.stored(subjects[0], b"changed")  # now the youngest
    pattern = f"galley.result.{queue.namespace}.*.*.*"
    first, end_of_first = await jetstream.get_many(stream, {"seq": 1, "next_by_subj": pattern, "batch": 3})
    after = int((first[-1].headers or {})["Nats-Sequence"]) + 1
    second, end_of_second = await jetstream.get_many(
        stream, {"seq": after, "next_by_subj": pattern, "batch": 3}
    )
    found = [(message.headers or {})["Nats-Subject"] for message in first + second]
    assert found == [*subjects[1:], subjects[0]]
    assert (end_of_first["Status"], end_of_first["Description"]) == ("204", "EOB")
    assert end_of_first["Nats-Num-Pending"] == "2"
    assert (end_of_second["Status"], end_of_second["Nats-Num-Pending"]) == ("204", "0")


async def test_a_listing_that_finds_nothing_ends_with_404(jetstream: JetStream, queue: QueueLayout) -> None:
    found, end = await jetstream.get_many(
        topology.records_stream(queue.namespace, queue.queue),
        {"seq": 1, "next_by_subj": f"galley.result.{queue.namespace}.*.*.*", "batch": 3},
    )
    assert (found, end["Status"]) == ([], "404")


async def test_the_last_record_of_many_subjects_comes_in_one_request_by_pattern(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    mine = [topology.record_subject(an_address(of=queue)) for _ in range(3)]
    declared = topology.record_subject(an_address(of=queue, kind=Kind.DECLARED))
    for subject in [*mine, declared]:
        await jetstream.stored(subject)
    found, end = await jetstream.get_many(
        topology.records_stream(queue.namespace, queue.queue),
        {"multi_last": [f"galley.result.{queue.namespace}.{queue.queue}.sdk.*"]},
    )
    assert [(message.headers or {})["Nats-Subject"] for message in found] == mine
    assert end["Status"] == "204"


async def test_more_than_1024_subjects_are_too_many_for_one_request_by_pattern(
    jetstream: JetStream, queue: QueueLayout
) -> None:
    """Why records are listed by sequence."""
    for _ in range(1025):
        await jetstream.client.publish(topology.record_subject(an_address(of=queue)), b"{}")
    await jetstream.stored(topology.record_subject(an_address(of=queue)))
    _, end = await jetstream.get_many(
        topology.records_stream(queue.namespace, queue.queue),
        {"multi_last": [f"galley.result.{queue.namespace}.>"]},
    )
    assert (end["Status"], end["Description"]) == ("413", "Too Many Results")


async def test_a_filtered_stream_info_lists_each_subject_with_its_count(
    jetstream: JetStream, queue: QueueLayout, later: str
) -> None:
    address, other = an_address(of=queue), an_address(of=queue, lane=Lane.LOW)
    for one in (address, other):
        headers = {SCHEDULE: "@at 2099-01-01T00:00:00Z", SCHEDULE_TARGET: topology.due_subject(one)}
        await jetstream.stored(topology.schedule_subject(one), headers=headers)
    pattern = f"galley.schedule.{queue.namespace}.{queue.queue}.{Lane.NORMAL}.>"
    info = await jetstream.ok(f"STREAM.INFO.{later}", {"subjects_filter": pattern})
    assert info["state"]["subjects"] == {topology.schedule_subject(address): 1}


async def test_a_lane_tells_waiting_and_running_tasks_apart(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    for _ in range(3):
        await jetstream.stored(topology.task_subject(an_address(of=queue)))
    await jetstream.next(work)
    info = await jetstream.consumer(work)
    assert (info["num_pending"], info["num_ack_pending"]) == (2, 1)


async def test_a_task_given_back_counts_as_running_until_it_is_handed_out_again(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    await jetstream.stored(topology.task_subject(an_address(of=queue)))
    await jetstream.acknowledge(await jetstream.next(work), b"-NAK")
    info = await jetstream.consumer(work)
    assert (info["num_pending"], info["num_ack_pending"]) == (0, 1)


async def test_the_oldest_waiting_task_of_a_lane_is_read_with_its_time(
    jetstream: JetStream, queue: QueueLayout, work: str
) -> None:
    running, oldest = an_address(of=queue), an_address(of=queue)
    for address in (running, oldest, an_address(of=queue)):
        await jetstream.stored(topology.task_subject(address))
    await jetstream.next(work)
    after = (await jetstream.consumer(work))["delivered"]["stream_seq"] + 1
    pattern = f"galley.task.{queue.namespace}.{queue.queue}.{Lane.NORMAL}.>"
    found, _ = await jetstream.get_many(work, {"seq": after, "next_by_subj": pattern, "batch": 1})
    headers = found[0].headers or {}
    assert headers["Nats-Subject"] == topology.task_subject(oldest)
    age = datetime.now(UTC) - datetime.fromisoformat(headers["Nats-Time-Stamp"])
    assert timedelta(0) <= age < timedelta(seconds=10)


async def test_one_listing_tells_the_figures_of_all_streams_of_a_queue(
    jetstream: JetStream, queue: QueueLayout, work: str, later: str
) -> None:
    await jetstream.stored(topology.task_subject(an_address(of=queue)))
    listing = await jetstream.ok("STREAM.LIST", {"subject": f"galley.*.{queue.namespace}.{queue.queue}.>"})
    held = {stream["config"]["name"]: stream["state"]["messages"] for stream in listing["streams"]}
    assert held[work] == 1
    assert held[later] == 0
    assert listing["limit"] == 256
