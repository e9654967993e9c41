"""Log lines: what they say, whichever way they are written."""

import asyncio
import io
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from galley.faults import Faults
from galley.logs import log_as_json, log_often, switch_level_by_signal, tracebacks
from tests.support.eventually import eventually

log = logging.getLogger("galley.tests")
KEYS = {"task": "a1", "attempt": 2, "lane": "normal"}


@pytest.fixture
def output() -> Iterator[io.TextIOWrapper]:
    """Where all logs of this test go, one JSON object a line."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.TextIOWrapper(io.BytesIO())
    log_as_json("INFO", stream, worker="w1")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(output: io.TextIOWrapper) -> list[dict[str, Any]]:
    assert isinstance(output.buffer, io.BytesIO)
    return [json.loads(line) for line in output.buffer.getvalue().splitlines()]


def test_a_line_says_when_how_bad_what_and_about_what(output: io.TextIOWrapper) -> None:
    log.warning("task %s", "lost", extra=KEYS)
    [line] = lines(output)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "event": "task lost", "worker": "w1", **KEYS}


def test_a_line_logged_often_is_the_line_of_a_record(output: io.TextIOWrapper) -> None:
    log.info("attempt settled", extra=KEYS)
    log_often(log, logging.INFO, "attempt settled", KEYS)
    record, short = lines(output)
    assert list(short) == list(record)
    assert short | {"time": ""} == record | {"time": ""}


async def test_lines_logged_often_are_written_together_once_the_event_loop_has_its_turn(
    tmp_path: Path, output: io.TextIOWrapper
) -> None:
    file = tmp_path / "log"
    with io.TextIOWrapper(file.open("wb", buffering=0)) as stream:
        log_as_json("INFO", stream)
        for _ in range(2):
            log_often(log, logging.INFO, "attempt settled", KEYS)
        assert not file.read_bytes()
        await asyncio.sleep(0)
        assert file.read_bytes().count(b"attempt settled") == 2
        log_often(log, logging.INFO, "attempt settled", KEYS)
        log.info("worker drained")
        told = [json.loads(line)["event"] for line in file.read_bytes().splitlines()]
    assert told == ["attempt settled"] * 3 + ["worker drained"]
    assert lines(output) == []


def test_a_line_below_the_level_is_not_written(output: io.TextIOWrapper) -> None:
    log_often(log, logging.DEBUG, "attempt started", KEYS)
    assert lines(output) == []


def test_where_others_listen_a_line_logged_often_reaches_them_all(
    output: io.TextIOWrapper, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger().addHandler(caplog.handler)
    log_often(log, logging.INFO, "attempt settled", KEYS)
    assert caplog.messages == ["attempt settled"]
    assert [line["event"] for line in lines(output)] == ["attempt settled"]


def test_a_traceback_stands_in_the_line_of_its_error(output: io.TextIOWrapper) -> None:
    try:
        int("a picture")
    except ValueError:
        log.exception("handler failed")
    [line] = lines(output)
    assert line["traceback"].endswith("ValueError: invalid literal for int() with base 10: 'a picture'")


def test_errors_with_a_traceback_are_counted_by_who_logged_them(output: io.TextIOWrapper) -> None:
    log.error("this was expected")
    log.warning("so was this", exc_info=ValueError("no"))
    assert not tracebacks()
    logging.getLogger("asyncio").error("a timer raised", exc_info=ValueError("no"))
    assert dict(tracebacks()) == {"asyncio": 1}
    Faults().caught("leases", ValueError("no"))
    assert dict(tracebacks()) == {"asyncio": 1, "leases": 1}


def test_a_line_that_cannot_be_written_does_not_end_what_it_tells_of(
    output: io.TextIOWrapper, capsys: pytest.CaptureFixture[str]
) -> None:
    output.buffer.close()
    log_often(log, logging.INFO, "attempt settled", KEYS)
    assert "Message: 'lines not written'" in capsys.readouterr().err


async def test_a_signal_switches_to_debug_and_the_next_one_back(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.root.level
    logging.root.setLevel(logging.INFO)
    loop = asyncio.get_running_loop()
    try:
        told: list[bool] = []
        switch_level_by_signal(told.append)
        os.kill(os.getpid(), signal.SIGUSR1)
        await eventually(lambda: logging.root.level == logging.DEBUG, within=5)
        os.kill(os.getpid(), signal.SIGUSR1)
        await eventually(lambda: logging.root.level == logging.INFO, within=5)
        assert [record.__dict__["to"] for record in caplog.records] == ["DEBUG", "INFO"]
        assert told == [True, False]
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
        logging.root.setLevel(before)
