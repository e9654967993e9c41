"""The writer, and a server on a real socket that refuses as it is told: an API server does so only rarely."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import ClusterConfig
from galley_operator.faults import Faults
from galley_operator.status.writer import StatusWriter
from galley_operator.status.written_status import WrittenStatus
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks
from tests.support.eventually import eventually
from tests.unit.galley_operator.intake.tasks import an_active_task


class Server:
    """Notes each status it is sent, and refuses the first ones as it was told."""

    def __init__(self, *refusals: tuple[int, str], uid: str = "u1", unread: int = 0) -> None:
        self.written: list[tuple[str, str, str]] = []
        """Name, version and phase of each patch, refused ones included."""
        self.bodies: list[dict[str, Any]] = []
        self.under_way = self.most_under_way = self.connections = 0
        self._refusals = list(refusals)
        self._uid = uid
        self._unread = unread
        """Reads that are refused with it, if it is not 0; once."""
        self._version = 100

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path = head.split(" ")[:2]
                lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                body = await reader.readexactly(int(lengths[0].split(":")[1])) if lengths else b""
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                await asyncio.sleep(0.001)
                self.under_way -= 1
                writer.write(self._answer(method, path, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.connections -= 1

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        self._version += 1
        metadata = {"uid": self._uid, "resourceVersion": str(self._version)}
        if method == "GET" and self._unread:
            code, self._unread = self._unread, 0
            return _reply(code, {"kind": "Status", "code": code, "message": "no", "details": {"name": "one"}})
        if method == "GET":
            return _reply(200, {"metadata": metadata})
        version, written = (step["value"] for step in json.loads(body))
        self.bodies.append(written)
        self.written.append((path.split("/")[-2], version, written["phase"]))
        if self._refusals:
            code, more = self._refusals.pop(0)
            return _reply(
                code, {"kind": "Status", "code": code, "message": "no", "details": {"name": "one"}}, more
            )
        return _reply(200, {"metadata": metadata})


def _reply(code: int, body: object, more: str = "") -> bytes:
    content = json.dumps(body).encode()
    return f"HTTP/1.1 {code} X\r\n{more}Content-Length: {len(content)}\r\n\r\n".encode() + content


TASKS = ActiveTasks()


def a_known_task(**changes: Any) -> ActiveTask:
    """Return a Task that was just seen, and no other of its name."""
    task = an_active_task(**changes)
    if (known := TASKS.get(task.key)) is not None:
        TASKS.gone(task.key, known)
    TASKS.changed(task.key, task, listed=False)
    return task


@asynccontextmanager
async def writing(server: Server) -> AsyncIterator[StatusWriter]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening, Cluster(ClusterConfig(url, None)) as cluster:
        writer = StatusWriter(cluster, TASKS, Faults())
        running = asyncio.create_task(writer.run())
        try:
            yield writer
        finally:
            running.cancel()
            await asyncio.wait([running])
    await eventually(lambda: server.connections == 0, within=5)


def a_status(phase: str, **more: Any) -> WrittenStatus:
    final = phase in ("Succeeded", "Failed", "Cancelled")
    return WrittenStatus({"phase": phase, **more}, hash((phase, str(more))), final)


def some_tasks(count: int) -> list[ActiveTask]:
    return [a_known_task(name=f"t{number}", uid=f"u{number}") for number in range(count)]


async def all_written(writer: StatusWriter) -> None:
    await eventually(lambda: len(writer) == 0, within=10)


async def test_of_what_comes_in_a_short_time_only_the_last_is_written() -> None:
    server, task = Server(), a_known_task()
    async with writing(server) as writer:
        for phase in ("Queued", "Running", "Succeeded"):
            writer.offer(task, a_status(phase), 0.05)
        await all_written(writer)
    assert server.written == [("one", "7", "Succeeded")]
    known = TASKS.get(task.key)
    assert known is not None
    assert known.version == "101"


async def test_a_later_status_is_written_at_the_time_of_the_one_it_replaces() -> None:
    server, task = Server(), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Queued"), 0.05)
        writer.offer(task, a_status("Running"), 1000)
        await all_written(writer)
    assert server.written == [("one", "7", "Running")]


async def test_an_end_does_not_wait_for_the_time_of_what_it_replaces() -> None:
    server, task = Server(), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Running"), 1000)
        writer.offer(task, a_status("Succeeded"), 0.0)
        await all_written(writer)
    assert server.written == [("one", "7", "Succeeded")]


async def test_nothing_replaces_an_end() -> None:
    server, task = Server(), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Succeeded"), 0.05)
        writer.offer(task, a_status("Queued"), 0.0)
        await all_written(writer)
    assert server.written == [("one", "7", "Succeeded")]


async def test_what_stands_there_is_not_written_again() -> None:
    server, task = Server(), a_known_task()
    async with writing(server) as writer:
        for _ in range(2):
            writer.offer(task, a_status("Queued"), 0.0)
            await all_written(writer)
        assert (writer.written, writer.skipped) == (1, 1)
    assert len(server.written) == 1


async def test_the_next_status_is_written_against_the_version_of_the_last() -> None:
    server, task = Server(), a_known_task()
    async with writing(server) as writer:
        for phase in ("Queued", "Succeeded"):
            writer.offer(task, a_status(phase), 0.0)
            await all_written(writer)
    assert server.written == [("one", "7", "Queued"), ("one", "101", "Succeeded")]


async def test_a_server_without_room_is_asked_again_when_it_said() -> None:
    server, task = Server((429, "Retry-After: 1\r\n")), a_known_task()
    async with writing(server) as writer:
        began = asyncio.get_running_loop().time()
        writer.offer(task, a_status("Queued"), 0.0)
        await all_written(writer)
        assert asyncio.get_running_loop().time() - began >= 1.0
    assert len(server.written) == 2


async def test_no_more_are_under_way_at_once_than_the_window_has_room_for() -> None:
    server = Server()
    async with writing(server) as writer:
        for task in some_tasks(100):
            writer.offer(task, a_status("Queued"), 0.0)
        await all_written(writer)
    assert len(server.written) == 100
    assert server.most_under_way <= 16


async def test_a_task_that_is_gone_is_left_alone() -> None:
    server, task = Server((404, "")), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Queued"), 0.0)
        await all_written(writer)
    assert len(server.written) == 1


async def test_a_task_that_changed_is_read_and_written_again() -> None:
    server, task = Server((409, "")), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Queued"), 0.0)
        await all_written(writer)
    assert [version for _, version, _ in server.written] == ["7", "102"]


async def test_a_task_that_changed_and_cannot_be_read_is_tried_again() -> None:
    server, task = Server((409, ""), (409, ""), unread=503), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Queued"), 0.0)
        await all_written(writer)
    assert [version for _, version, _ in server.written] == ["7", "7", "104"]


async def test_a_task_that_changed_and_is_gone_by_then_is_left_alone() -> None:
    server, task = Server((409, ""), unread=404), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Queued"), 0.0)
        await all_written(writer)
    assert len(server.written) == 1


async def test_nothing_is_written_into_another_task_of_that_name() -> None:
    server, task = Server((409, ""), uid="another"), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Succeeded"), 0.0)
        await all_written(writer)
    assert len(server.written) == 1


async def test_a_status_the_server_does_not_take_is_written_without_its_result() -> None:
    server, task = Server((422, "")), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Succeeded", result=b"[1]"), 0.0)
        await all_written(writer)
    assert "result" not in server.bodies[1]
    assert server.bodies[1]["resultBytes"] == 3


async def test_a_server_that_fails_is_tried_again() -> None:
    server, task = Server((500, ""), (503, "")), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Queued"), 0.0)
        await all_written(writer)
    assert len(server.written) == 3


async def test_what_waits_is_written_at_once_before_the_end() -> None:
    server = Server()
    async with writing(server) as writer:
        for task in some_tasks(20):
            writer.offer(task, a_status("Running"), 1000)
        assert await writer.flush(5)
    assert len(server.written) == 20


async def test_what_is_not_written_in_time_before_the_end_is_said() -> None:
    stuck = asyncio.Event()
    server = Server()
    async with writing(server) as writer:
        write = writer._write

        async def late(entry: Any) -> None:
            await stuck.wait()
            await write(entry)

        writer._write = late  # type: ignore[method-assign]
        writer.offer(a_known_task(), a_status("Running"), 1000)
        assert not await writer.flush(0.05)
        stuck.set()
        assert await writer.flush(60)
    assert len(server.written) == 1


async def test_a_task_that_was_deleted_is_written_no_more() -> None:
    server, task = Server(), a_known_task()
    async with writing(server) as writer:
        writer.offer(task, a_status("Running"), 0.02)
        writer.forget(task.uid)
        other = a_known_task(name="two", uid="u2")
        writer.offer(other, a_status("Queued"), 0.05)
        await all_written(writer)
    assert server.written == [("two", "7", "Queued")]


async def test_a_status_the_server_never_takes_as_a_whole_is_written_with_its_phase_alone() -> None:
    server, task = Server((422, ""), (422, "")), a_known_task()
    async with writing(server) as writer:
        condition = {"type": "Succeeded", "status": "False", "reason": "?", "message": "m"}
        writer.offer(task, a_status("Failed", conditions=[condition], error={"reason": "?"}), 0.0)
        await all_written(writer)
    assert "error" in server.bodies[1]
    assert "error" not in server.bodies[2]
    assert server.bodies[2]["phase"] == server.bodies[2]["conditions"][0]["reason"] == "Failed"


async def test_an_unexpected_error_costs_one_status_and_is_counted_and_tried_again() -> None:
    server, one, two = Server(), a_known_task(), a_known_task(name="two", uid="u2")
    seen: list[str] = []
    async with writing(server) as writer:
        writer._faults = Faults(seen.append)
        broken = a_status("Queued")
        broken.body["phase"] = object()  # cannot be written as JSON
        writer.offer(one, broken, 0.0)
        writer.offer(two, a_status("Queued"), 0.0)
        await eventually(lambda: server.written == [("two", "7", "Queued")], within=5)
        await eventually(lambda: len(seen) >= 2, within=5)
        writer.forget(one.uid)
        await all_written(writer)
    assert set(seen) == {"status written"}
