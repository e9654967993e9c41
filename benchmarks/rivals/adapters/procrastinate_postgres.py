"""procrastinate with PostgreSQL: sixteen jobs at once; it keeps that a job succeeded, and no result."""

import asyncio

import procrastinate
import psycopg
from adapter import BIN, STORE, main

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=STORE),
    worker_defaults={"update_heartbeat_interval": 2, "stalled_worker_timeout": 10},
)
_AT_ONCE = 1000


@app.task(name="work")
async def work(seconds: float) -> int:
    if seconds:
        await asyncio.sleep(seconds)
    return 1


@app.periodic(cron="* * * * * */5")
@app.task(name="retry stalled", queueing_lock="stalled", pass_context=True)
async def retry_stalled(_context: procrastinate.JobContext, timestamp: int) -> None:  # noqa: ARG001
    """Do what its documentation says about workers that were killed."""
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=10):
        await app.job_manager.retry_job(job)


def submit(tasks: int, seconds: float) -> None:
    async def send() -> None:
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            for first in range(0, tasks, _AT_ONCE):
                jobs = [{"seconds": seconds}] * min(_AT_ONCE, tasks - first)
                await work.batch_defer_async(*jobs)

    asyncio.run(send())


def count() -> int:
    done = "select count(*) from procrastinate_jobs where status = 'succeeded' and task_name = 'work'"
    with psycopg.connect(STORE) as connection:
        found = connection.execute(done).fetchone()
    return int(found[0]) if found else 0


def run() -> None:
    main(submit, count, [
        f"{BIN}/procrastinate", "--app", "procrastinate_postgres.app", "worker", "--concurrency", "16"])  # fmt: skip
