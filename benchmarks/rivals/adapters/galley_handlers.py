"""The handler of Galley's adapter, alone, as each child imports it."""

import time

from galley import task


@task(queue="rivals")
def work(seconds: float) -> int:
    if seconds:
        time.sleep(seconds)
    return 1
