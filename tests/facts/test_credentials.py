"""Permissions and life of a user, as the server enforces them and the library takes it."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from galley.broker import topology
from galley.broker.creds_file import read_creds
from galley.broker.permissions import Role
from galley.broker.topology import SCHEDULE, SCHEDULE_TARGET, QueueLayout
from tests.facts.jetstream import JetStream
from tests.support.builders import a_queue, an_address
from tests.support.eventually import eventually
from tests.support.guarded_nats import GuardedNats


class Errors(list[str]):
    """What the server complained of."""

    async def take(self, error: Exception) -> None:
        self.append(str(error))


@pytest.fixture
def errors() -> Errors:
    return Errors()


@pytest.fixture
def mine(namespace: str) -> QueueLayout:
    return a_queue("mine", namespace=namespace)


@pytest.fixture
def theirs(namespace: str) -> QueueLayout:
    """Another queue of the same namespace, with which records and dead letters are shared."""
    return a_queue("theirs", namespace=namespace)


async def opened(path: Path, server: GuardedNats, errors: Errors) -> JetStream:
    options = {"user_credentials": str(path), "inbox_prefix": read_creds(path).inbox.encode()}
    return await JetStream.connect(server.url, error_cb=errors.take, **options)


@pytest.fixture
async def worker(
    guarded_nats: GuardedNats, mine: QueueLayout, theirs: QueueLayout, errors: Errors
) -> AsyncIterator[JetStream]:
    """A worker of the queue `mine`; both queues are there."""
    async with guarded_nats.operator() as operator:
        for layout in (mine, theirs):
            await JetStream(operator.nats).create_queue(layout)
    path = guarded_nats.write_creds(Role.WORKER, mine.namespace, mine.queue)
    async with await opened(path, guarded_nats, errors) as connected:
        yield connected


async def heard_out(jetstream: JetStream) -> None:
    """Return when the server has said what it has to say to all that was sent before."""
    await jetstream.ok("INFO")


async def test_a_publish_that_is_not_allowed_is_answered_with_its_subject_and_the_connection_goes_on(
    worker: JetStream, theirs: QueueLayout, errors: Errors
) -> None:
    subject = topology.record_subject(an_address(of=theirs))
    await worker.client.publish(subject, b"{}")
    await heard_out(worker)
    assert errors == [f'nats: permissions violation for publish to "{subject}"'.lower()]
    assert worker.client.is_connected


async def test_reads_by_subject_of_a_shared_stream_are_told_apart(
    guarded_nats: GuardedNats, worker: JetStream, mine: QueueLayout, theirs: QueueLayout, errors: Errors
) -> None:
    own, other = (topology.record_subject(an_address(of=layout)) for layout in (mine, theirs))
    async with guarded_nats.operator() as operator:
        for subject in (own, other):
            await JetStream(operator.nats).stored(subject, b"secret")
    stream = topology.records_stream(mine.namespace, mine.queue)
    assert (await worker.get(stream, own)).data == b"secret"
    heard = await worker.hear(worker.client.new_inbox())
    await worker.client.publish(f"$JS.API.DIRECT.GET.{stream}.{other}", b"", heard._subscription.subject)
    await heard_out(worker)
    assert "permissions violation" in errors[-1]
    assert heard.waiting == 0


async def test_an_acknowledgement_goes_to_a_subject_that_begins_with_the_stream(
    guarded_nats: GuardedNats, worker: JetStream, mine: QueueLayout, errors: Errors
) -> None:
    async with guarded_nats.operator() as operator:
        await JetStream(operator.nats).stored(topology.task_subject(an_address(of=mine)))
    stream = topology.work_stream(mine.namespace, mine.queue)
    message = await worker.next(stream)
    assert message.reply.startswith(f"$JS.ACK.{stream}.normal.")
    await worker.acknowledge(message)
    assert errors == []


async def test_a_request_is_answered_from_another_account(
    guarded_nats: GuardedNats, worker: JetStream, mine: QueueLayout, errors: Errors
) -> None:
    requests = await worker.hear(topology.control_subject(mine.namespace, mine.queue, "ping"))
    path = guarded_nats.write_creds(Role.PRODUCER, mine.namespace, mine.queue)
    answer_to = topology.answer_subject(mine.namespace, mine.queue, "abc")
    async with guarded_nats.operator() as operator, await opened(path, guarded_nats, errors) as producer:
        for asking in (JetStream(operator.nats), producer):
            answers = await asking.hear(answer_to)
            await asking.client.publish(
                topology.control_subject(mine.namespace, mine.queue, "ping"), b"", answer_to
            )
            request = await requests.one()
            assert request.reply == answer_to
            await worker.client.publish(request.reply, b"here")
            assert (await answers.one()).data == b"here"
    assert errors == []


async def test_no_other_role_hears_the_inbox_of_another_role(
    guarded_nats: GuardedNats, worker: JetStream, mine: QueueLayout, errors: Errors
) -> None:
    for subject in ("_INBOX.>", f"_INBOX.producer.{mine.namespace}.{mine.queue}.>", ">"):
        await worker.hear(subject)
    await heard_out(worker)
    assert ["subscription" in error for error in errors] == [True] * 3, errors


async def test_a_schedule_reaches_no_subject_outside_its_stream(
    worker: JetStream, mine: QueueLayout, theirs: QueueLayout
) -> None:
    address = an_address(of=mine)
    moment = (datetime.now(UTC) + timedelta(seconds=1)).isoformat(timespec="milliseconds")
    headers = {
        SCHEDULE: f"@at {moment.removesuffix('+00:00')}Z",
        SCHEDULE_TARGET: topology.due_subject(an_address(of=theirs)),
    }
    answer = await worker.publish(topology.again_subject(address), b"{}", headers)
    assert answer.code == 10190, answer


async def test_the_server_ends_a_connection_the_second_its_credentials_end(
    guarded_nats: GuardedNats, mine: QueueLayout, errors: Errors
) -> None:
    path = guarded_nats.write_creds(Role.WORKER, mine.namespace, mine.queue, valid_seconds=2)
    end = read_creds(path).claims.exp
    async with await opened(path, guarded_nats, errors) as connected:
        guarded_nats.write_creds(Role.WORKER, mine.namespace, mine.queue)
        await eventually(lambda: connected.client.is_closed, within=30, why="the library closes for good")
        assert -1 <= time.time() - end < 3
    assert "authentication expired" in str(connected.client.last_error)
