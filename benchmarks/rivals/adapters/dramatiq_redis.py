"""Dramatiq with Redis: two processes with eight threads each, results kept."""

import time

import dramatiq
from adapter import BIN, STORE, keys, main
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=STORE, heartbeat_timeout=5000)
broker.add_middleware(Results(backend=RedisBackend(url=STORE), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def work(seconds: float) -> int:
    if seconds:
        time.sleep(seconds)
    return 1


def submit(tasks: int, seconds: float) -> None:
    for _ in range(tasks):
        work.send(seconds)


def run() -> None:
    main(submit, lambda: keys("[0-9a-f]" * 32), [
        f"{BIN}/dramatiq", "dramatiq_redis", "-p", "2", "-t", "8"])  # fmt: skip
