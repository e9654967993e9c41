"""Celery with Redis: four processes, acknowledged late."""

import time

from adapter import BIN, STORE, keys, main
from celery import Celery

app = Celery("celery_redis", broker=STORE, backend=STORE)
app.conf.update(
    task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=16,
    broker_transport_options={"visibility_timeout": 10}, broker_connection_retry_on_startup=True,
)  # fmt: skip


@app.task
def work(seconds: float) -> int:
    if seconds:
        time.sleep(seconds)
    return 1


def submit(tasks: int, seconds: float) -> None:
    for _ in range(tasks):
        work.delay(seconds)


def run() -> None:
    main(submit, lambda: keys("celery-task-meta-*"), [
        f"{BIN}/celery", "-A", "celery_redis", "worker", "-c", "4", "-l", "ERROR",
        "--without-gossip", "--without-mingle", "--without-heartbeat"])  # fmt: skip
