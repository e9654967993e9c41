"""Sends readings to a `galley dev` of its own and prints the windows: `python send.py [READINGS]`."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

HERE: Final = Path(__file__).parent
FOLDER: Final = tempfile.TemporaryDirectory()
os.environ["READINGS"] = str(Path(FOLDER.name, "readings.db"))

from windows import Reading, connect, store  # noqa: E402 - it reads the variable

from galley import Client  # noqa: E402

DEVICES: Final = 4
LATE_EVERY: Final = 100
LATE_SECONDS: Final = 250
WITHIN: Final = 120.0


def readings(count: int) -> Iterator[Reading]:
    """Yield a reading a second of each device; one in a hundred arrives minutes late."""
    for number in range(count // DEVICES):
        for device in range(DEVICES):
            late = number >= 2 * LATE_SECONDS and number % LATE_EVERY == 0
            yield Reading(
                f"d{device}", number, number - (LATE_SECONDS if late else 0), 20 + device + number % 5
            )


def send(client: Client, count: int) -> float:
    """Send readings, and return the seconds until all of them are stored."""
    client.submit(store.call(next(readings(count)))).wait(WITHIN)  # the first worker starts
    began = time.perf_counter()
    client.submit_many(store.call(reading) for reading in readings(count))
    with closing(connect()) as database:
        while (received := database.execute("SELECT count(*) FROM readings").fetchone()[0]) < count:
            if time.perf_counter() - began > WITHIN:
                raise RuntimeError(f"{received} of {count} readings after {WITHIN:g} s")
            Event().wait(0.1)
    return time.perf_counter() - began


def report(count: int) -> None:
    """Print what is in the database."""
    row = "SELECT count, total / count, least, most FROM windows WHERE device = 'd0' AND start = 60"
    with closing(connect()) as database:
        windows, counted = database.execute("SELECT count(*), sum(count) FROM windows").fetchone()
        (late,) = database.execute("SELECT count(*) FROM late").fetchone()
        print(f"{count} readings: {counted} in {windows} windows, {late} late")
        number, mean, least, most = database.execute(row).fetchone()
        print(f"d0, second minute: {number} readings, mean {mean:.1f}, {least:.0f} to {most:.0f}")


@contextmanager
def galley_dev() -> Iterator[None]:
    """Run `galley dev` for as long as the block."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("galley")), "dev", "queues.yaml", "--fresh"], cwd=HERE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "serving" in line:
                break
        else:
            raise RuntimeError(f"galley dev ended: {said}")
        Thread(target=process.stdout.read, daemon=True).start()
        yield
    finally:
        process.terminate()
        process.wait(WITHIN)


def processor_seconds() -> float:
    """Return the processor time of this process and of all that have ended below it."""
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    """Send them, and print what came of them."""
    os.chdir(HERE)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    with galley_dev(), Client() as client:
        seconds = send(client, count)
        report(count)
    print(f"took {seconds:.1f} s", flush=True)
    if len(sys.argv) > 1:
        rate, each = count / seconds, processor_seconds() / count
        print(
            f"{rate:.0f} readings a second; with start and stop, {each * 1e6:.0f} us of processor time each"
        )


if __name__ == "__main__":
    main()
