"""RQ with Redis: four workers that do not fork for each job."""

import time

from adapter import BIN, STORE, main
from redis import Redis
from rq import Queue
from rq.registry import FinishedJobRegistry

queue = Queue("rivals", connection=Redis.from_url(STORE))


def work(seconds: float) -> int:
    if seconds:
        time.sleep(seconds)
    return 1


def submit(tasks: int, seconds: float) -> None:
    for start in range(0, tasks, 1000):
        jobs = [
            Queue.prepare_data("rq_redis.work", [seconds], result_ttl=3600)
            for _ in range(min(1000, tasks - start))
        ]
        queue.enqueue_many(jobs)


def run() -> None:
    main(submit, lambda: FinishedJobRegistry(queue=queue).get_job_count(cleanup=False), [
        f"{BIN}/rq", "worker-pool", "rivals", "-n", "4", "-u", STORE, "-q",
        "-w", "rq.worker.SimpleWorker"])  # fmt: skip
