"""arq with Redis: one event loop, sixteen jobs at once."""

import asyncio
from typing import Any

from adapter import BIN, STORE, keys, main
from arq import create_pool
from arq.connections import RedisSettings


async def work(_context: dict[str, Any], seconds: float) -> int:
    if seconds:
        await asyncio.sleep(seconds)
    return 1


class WorkerSettings:
    functions = (work,)
    redis_settings = RedisSettings.from_dsn(STORE or "redis://")
    max_jobs = 16
    job_timeout = 5
    keep_result = 3600
    poll_delay = 0.01


def submit(tasks: int, seconds: float) -> None:
    async def enqueue() -> None:
        pool = await create_pool(WorkerSettings.redis_settings)
        for _ in range(tasks):
            await pool.enqueue_job("work", seconds)

    asyncio.run(enqueue())


def run() -> None:
    main(submit, lambda: keys("arq:result:*"), [f"{BIN}/arq", "arq_redis.WorkerSettings"])
