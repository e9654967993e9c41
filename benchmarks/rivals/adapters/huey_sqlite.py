"""Huey with SQLite, four processes."""

import time

from adapter import BIN, STORE, main
from huey import SqliteHuey

huey = SqliteHuey("rivals", filename=f"{STORE}/huey.db")


@huey.task()
def work(seconds: float) -> int:
    if seconds:
        time.sleep(seconds)
    return 1


def submit(tasks: int, seconds: float) -> None:
    for _ in range(tasks):
        work(seconds)


def run() -> None:
    command = [f"{BIN}/huey_consumer", "huey_sqlite.huey", "-k", "process", "-w", "4", "-q"]
    main(submit, huey.result_count, command)
