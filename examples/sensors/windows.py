"""Readings of sensors: windows of a minute for each device, and what to do with data that comes late.

The rows are in SQLite. A task may run twice, so each reading is stored once by its device and number, and
only a reading that is new is added to its window.
"""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from galley import Batch, task

DATABASE: Final = Path(os.environ.get("READINGS", Path(__file__).parent / "readings.db"))
WINDOW_SECONDS: Final = 60
LATENESS_SECONDS: Final = 120
"""How far behind the newest reading of its device a window stays open."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS readings (
    device TEXT, number INT, at INT, PRIMARY KEY (device, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS windows (
    device TEXT, start INT, count INT, total REAL, least REAL, most REAL, PRIMARY KEY (device, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS newest (device TEXT PRIMARY KEY, at INT);
CREATE TABLE IF NOT EXISTS late (device TEXT, number INT, at INT, celsius REAL);
"""


@dataclass
class Reading:
    """One measurement."""

    device: str
    number: int
    """Counts the readings of the device."""
    at: int
    """When it was taken, in seconds: not when it arrived."""
    celsius: float


@task(queue="readings", batch=Batch(500, wait_ms=20), store_result=False)
def store(readings: list[Reading]) -> None:
    """Add readings to the windows of their devices; what comes too late is kept apart."""
    with closing(connect()) as database, database:
        database.execute("BEGIN IMMEDIATE")
        newest = dict(database.execute("SELECT device, at FROM newest"))
        for reading in readings:
            row = reading.device, reading.number, reading.at
            if not database.execute("INSERT OR IGNORE INTO readings VALUES (?, ?, ?)", row).rowcount:
                continue  # of an attempt before
            newest[reading.device] = max(reading.at, newest.get(reading.device, 0))
            start = reading.at - reading.at % WINDOW_SECONDS
            if start + WINDOW_SECONDS + LATENESS_SECONDS <= newest[reading.device]:
                database.execute("INSERT INTO late VALUES (?, ?, ?, ?)", (*row, reading.celsius))
            else:
                _add(database, reading, start)
        database.executemany("INSERT OR REPLACE INTO newest VALUES (?, ?)", newest.items())


def _add(database: sqlite3.Connection, reading: Reading, start: int) -> None:
    celsius = reading.celsius
    database.execute(
        "INSERT INTO windows VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + 1,"
        " total = total + excluded.total,"
        " least = min(least, excluded.least), most = max(most, excluded.most)",
        (reading.device, start, celsius, celsius, celsius),
    )


def connect() -> sqlite3.Connection:
    """Open the database, with its tables."""
    database = sqlite3.connect(DATABASE, timeout=30)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(_TABLES)
    return database
