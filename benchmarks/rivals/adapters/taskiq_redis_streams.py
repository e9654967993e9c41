"""taskiq with Redis streams: two processes, acknowledged once the result is saved."""

import asyncio

from adapter import BIN, STORE, keys, main
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

STORED = STORE or "redis://"
broker = RedisStreamBroker(url=STORED, idle_timeout=5000).with_result_backend(
    RedisAsyncResultBackend(redis_url=STORED, prefix_str="result")
)


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


def run() -> None:
    main(submit, lambda: keys("result:*"), [
        f"{BIN}/taskiq", "worker", "taskiq_redis_streams:broker", "--workers", "2",
        "--ack-type", "when_saved", "--log-level", "ERROR"])  # fmt: skip
