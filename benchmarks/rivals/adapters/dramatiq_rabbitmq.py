"""Dramatiq with RabbitMQ: two processes with eight threads each; results are kept in Redis."""

import time

import dramatiq
from adapter import BIN, STORE, keys, main
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

RABBITMQ, _, REDIS = STORE.partition(" ")
broker = RabbitmqBroker(url=RABBITMQ, confirm_delivery=True)
broker.add_middleware(Results(backend=RedisBackend(url=REDIS), store_results=True))
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
    main(submit, lambda: keys("[0-9a-f]" * 32, REDIS), [
        f"{BIN}/dramatiq", "dramatiq_rabbitmq", "-p", "2", "-t", "8"])  # fmt: skip
