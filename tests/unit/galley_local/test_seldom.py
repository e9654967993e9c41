"""What seldom goes wrong around `galley dev`, and what it says or does then."""

import asyncio
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from galley import dev_file
from galley.broker.errors import BrokerUnreachable
from galley.record import Outcome, Record, State
from galley_local import module, topics, workers_in_tests
from galley_local.board import TaskBoard
from galley_local.declared_work import DeclaredWork
from galley_local.display import EventLines
from galley_local.errors import FilesUnusable, FolderUnusable
from galley_local.jetstream_probe import jetstream_answers
from galley_local.module import _discover, _relative, check_not_hidden
from galley_local.plan import Plan, read_plan
from galley_local.project import Project
from galley_local.seat import Seat
from galley_local.topics import LocalTopics
from galley_local.warm_start import WarmStarter
from galley_local.worker_process import WorkerPlace
from galley_operator.fleet.fleet import WorkerPhase
from tests.support.eventually import eventually
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley.resources.test_workflow import manifest, read
from tests.unit.galley_worker.bench import Bench, a_bench


async def test_a_server_that_breaks_the_connection_does_not_answer() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER: a reset
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert not await asyncio.wait_for(jetstream_answers(port), 60)
    assert not await asyncio.wait_for(jetstream_answers(port), 60)


def test_a_module_that_was_loaded_in_an_unusual_way_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unusual.py").write_text("")
    monkeypatch.setitem(sys.modules, "unusual", ModuleType("unusual"))
    check_not_hidden("here", "unusual", [tmp_path])


def test_a_file_that_is_no_python_has_no_relative_imports(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from .b import c")
    (tmp_path / "b.py").write_text("from (")
    assert [_relative(tmp_path / name) for name in ("a.py", "b.py", "none.py")] == [True, False, False]


@pytest.mark.parametrize(
    ("body", "seconds", "says"),
    [
        ("import os; os._exit(3)", 60, "ended the process that imported it"),
        ("import time; time.sleep(600)", 0.1, "does not import within 0.1 s"),
    ],
)
async def test_a_module_that_does_not_import_is_told(
    body: str, seconds: float, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IMPORT_SECONDS", seconds)
    file = tmp_path / "tasks.py"
    file.write_text(body)
    with pytest.raises(FilesUnusable, match=says):
        await _discover(file, file, "tasks", (tmp_path,))


async def test_an_import_that_is_not_waited_for_is_ended_whatever_the_module_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    file = tmp_path / "tasks.py"
    file.write_text(
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '600'], stdout=1)\n"
        f"print(child.pid, file=open({str(started)!r}, 'w'), flush=True)\n"
        "time.sleep(600)\n"
    )
    importing = asyncio.create_task(_discover(file, file, "tasks", (tmp_path,)))
    await eventually(lambda: started.exists() and started.read_text().endswith("\n"), within=60)
    importing.cancel()
    try:
        await asyncio.wait([importing], timeout=60)
        assert importing.cancelled()
    finally:
        os.kill(int(started.read_text()), signal.SIGKILL)


async def test_a_file_that_cannot_be_read_is_not_advised(tmp_path: Path) -> None:
    (tmp_path / "a.py").mkdir()
    (tmp_path / "b.py").write_text("@task\ndef do() -> None: ...\n")
    with pytest.raises(FilesUnusable, match="has no manifests") as told:
        await read_plan([tmp_path], tmp_path)
    assert told.value.hint == f"name its files with handlers: galley dev {tmp_path / 'b.py'}"


def test_a_folder_in_which_commands_find_no_server_keeps_none_from_running(tmp_path: Path) -> None:
    project = Project(tmp_path)
    dev_file.path_in(tmp_path).mkdir(parents=True)
    project.announce("nats://127.0.0.1:4222", "default")
    assert dev_file.nearest(tmp_path) is None


async def test_a_worker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    place = WorkerPlace(tmp_path, (), tmp_path / "queue.json", tmp_path, "nats", "default", WarmStarter())
    seat = Seat("w1", place, told.append, slots=1, grace_seconds=0)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    running = asyncio.create_task(seat.run())
    await eventually(lambda: len(told) >= 2, within=20)
    assert set(told) == {"worker w1 cannot be started: No such file or directory"}
    assert (seat.view().phase, seat.failures) == (WorkerPhase.FAILED, len(told))
    seat.remove()
    await asyncio.wait_for(running, 20)


@in_virtual_time
async def test_a_workflow_that_an_earlier_run_had_otherwise_is_told() -> None:
    async with a_bench() as bench:
        plan = Plan()
        submitted = DeclaredWork(plan, bench.producer, a_board(bench), EventLines(lambda _: None))
        step = {"name": "only", "queueName": bench.layout.queue}
        plan.workflows = [read(manifest(step | {"handler": "resize"}))]
        await submitted.submit()
        plan.workflows = [read(manifest(step | {"handler": "crop"}))]
        with pytest.raises(FilesUnusable, match="queue 'images' has another workflow 'order'") as told:
            await submitted.submit()
        assert told.value.hint == "give the workflow another name, or forget earlier runs: --fresh"


def test_a_folder_that_takes_no_key_is_told(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.own.mkdir(parents=True, exist_ok=True)
    (project.own / "signing").write_text("a file in its place")
    with pytest.raises(FolderUnusable, match="signing"):
        project.signing_key("hook")


def test_a_worker_of_tests_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_in_tests, "_STOP_SECONDS", 0.05)
    stubborn = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-Sc", stubborn], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        workers_in_tests._end(running)
        assert running.returncode == -9


@in_virtual_time
async def test_topics_are_kept_again_once_the_broker_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_bench() as bench:
        said: list[str] = []
        local = LocalTopics(bench.producer, "default", said.append)
        kept, keep = 0, local.keep

        async def counted() -> None:
            nonlocal kept
            kept += 1
            if kept == 1:
                raise BrokerUnreachable("nats", "away")
            await keep()

        monkeypatch.setattr(local, "keep", counted)
        running = asyncio.create_task(local.run())
        await asyncio.sleep(2.5 * topics._LOOK_SECONDS)
        assert kept == 2
        assert caplog.messages == ["topics not kept"]
        running.cancel()


@in_virtual_time
async def test_the_board_reads_again_what_it_could_not_and_passes_over_what_it_cannot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_bench() as bench:
        board, address = a_board(bench), await bench.submit()
        bench.put(address, Record(State.DONE, 1, outcome=Outcome.SUCCEEDED))
        board.declare(address)
        bench.producer.line.lose(to_server=lambda _subject: True)
        await board.look()
        assert board.open_tasks() == [address]
        assert await board._ask(address) is None
        bench.producer.line.lose()
        await board.look()
        assert board.open_tasks() == []
        broken = await bench.submit()
        subject = f"galley.result.default.images.sdk.{broken.id}"
        await bench.producer.pipeline.send(subject, b"\xff", b"")
        assert await board._read(broken) is None
        assert "record not readable" in caplog.messages


def a_board(bench: Bench) -> TaskBoard:
    return TaskBoard(bench.producer, {("default", "images"): cast("Any", ())})
