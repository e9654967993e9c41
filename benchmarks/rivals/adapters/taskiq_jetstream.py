"""taskiq with NATS JetStream: two processes, acknowledged once the result is saved."""

import asyncio

import nats
from adapter import BIN, STORE, main
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError
from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker

broker = PullBasedJetStreamBroker(
    STORE or "nats://localhost", pull_consume_batch=100, pull_consume_timeout=1.0,
    consumer_config=ConsumerConfig(durable_name="taskiq_durable", ack_wait=5.0),
).with_result_backend(NATSObjectStoreResultBackend(STORE or "nats://localhost"))  # fmt: skip


@broker.task
async def work(seconds: float) -> int:
    if seconds:
        await asyncio.sleep(seconds)
    return 1


def submit(tasks: int, seconds: float) -> None:
    async def send() -> None:
        await broker.startup()
        for _ in range(tasks):
            await work.kiq(seconds)
        await broker.shutdown()

    asyncio.run(send())


def count() -> int:
    async def look() -> int:
        client = await nats.connect(STORE)
        try:
            stream = "OBJ_taskiq_results"
            info = await client.jetstream().stream_info(stream, subjects_filter="$O.taskiq_results.M.>")
        except NotFoundError:
            return 0
        finally:
            await client.close()
        return len(info.state.subjects or {})

    return asyncio.run(look())


def run() -> None:
    main(submit, count, [
        f"{BIN}/taskiq", "worker", "taskiq_jetstream:broker", "--workers", "2",
        "--ack-type", "when_saved", "--log-level", "ERROR"])  # fmt: skip
