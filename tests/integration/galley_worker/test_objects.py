"""Large inputs, large results and files, with a real nats-server and real workers."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from galley import AsyncClient, File, FileChanged, RetryPolicy, TaskFailed, TaskNotFound, When
from galley.broker import topology
from galley.broker.objects import PART, StreamObjects
from galley.cli.main import main
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.handlers import artifacts
from tests.unit.galley.cli.a_terminal import a_terminal, err, out


@pytest.fixture
def queue(drills: TaskQueue) -> TaskQueue:
    """The queue of the drills, with the handlers of this file."""
    worker = drills.spec.worker.model_copy(update={"modules": ("artifacts",)})
    return drills.model_copy(update={"spec": drills.spec.model_copy(update={"worker": worker})})


async def subjects(client: AsyncClient, verb: str) -> list[str]:
    name = topology.object_stream(client.namespace, "drills")
    pattern = topology.objects_of_queue(client.namespace, "drills", f"{verb}.>")
    info = await client.broker.api("look", f"STREAM.INFO.{name}", {"subjects_filter": pattern})
    return sorted(info["state"].get("subjects") or ())


async def test_five_megabytes_go_in_and_come_out(
    client: AsyncClient, queue: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(queue, GALLEY_CACHE=str(tmp_path / "cache"))
    text = "abcde" * 1024**2
    handle = await client.submit(artifacts.reverse.call(text))
    assert await handle.result(within=30) == text[::-1]
    assert len(await subjects(client, "whole")) == 2
    # The same input again is stored once, and so is the same result.
    again = await client.submit_many([artifacts.reverse.call(text) for _ in range(3)])
    assert [await each.result(within=30) for each in again] == [text[::-1]] * 3
    assert len(await subjects(client, "whole")) == 2
    assert len(await subjects(client, "use")) == 8


async def test_a_file_reaches_the_handler_and_another_comes_back(
    client: AsyncClient, queue: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(queue, GALLEY_CACHE=str(tmp_path / "cache"))
    source = tmp_path / "page.bin"
    source.write_bytes(bytes(range(256)) * 5000)
    handle = await client.submit(artifacts.measure.call(File(source), label="a"))
    found = await handle.result(within=30)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert found == {"name": "page.bin", "size": 1_280_000, "digest": digest, "label": "a"}
    made = await (await client.submit(artifacts.produce.call(3 * 1024**2 + 5))).result(within=30)
    assert (made.name, made.size) == ("made.bin", 3 * 1024**2 + 5)
    target = await client.download(made, tmp_path / "here.bin")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == made.digest
    # A file of a result is the input of the next task, and is not uploaded again.
    parts = len(await subjects(client, "part"))
    assert (await (await client.submit(artifacts.measure.call(made))).result(within=30))[
        "digest"
    ] == made.digest
    [back] = await (await client.submit(artifacts.same.call([made]))).result(within=30)
    assert back == made
    assert len(await subjects(client, "part")) == parts


async def test_a_file_that_is_gone_when_the_handler_returned_fails_with_the_reason(
    client: AsyncClient, queue: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(queue, GALLEY_CACHE=str(tmp_path / "cache"))
    handle = await client.submit(artifacts.gone.call(), When(retry=RetryPolicy(attempts=1)))
    with pytest.raises(TaskFailed, match=r"gone\.txt") as failed:
        await handle.result(within=30)
    assert "temporary folder" in str(failed.value)


async def test_the_commands_take_and_give_files(
    client: AsyncClient, queue: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(queue, GALLEY_CACHE=str(tmp_path / "cache"))
    source = tmp_path / "page.bin"
    source.write_bytes(b"page" * 1000)

    async def galley(*words: str) -> tuple[int, str, str]:
        terminal = a_terminal()
        place = ["--server", client.broker.server, "-n", client.namespace]
        code = await asyncio.to_thread(main, [*words, *place], terminal)
        return code, out(terminal), err(terminal)

    code, said, problem = await galley(
        "submit", "drills", "measure", "--file", f"file={source}", "--id", "page", "--wait", "30"
    )
    assert (code, json.loads(said)["size"]) == (0, 4000), problem
    code, said, _ = await galley("submit", "drills", "same", "--file", f"files={source}", "--wait", "30")
    assert code != 0  # one file is no list of them
    code, put, problem = await galley("files", "put", "drills", str(source))
    assert code == 0, problem
    code, said, problem = await galley("submit", "drills", "measure", f'{{"file": {put}}}', "--wait", "30")
    assert (code, json.loads(said)["name"]) == (0, "page.bin"), problem
    manifest = tmp_path / "task.yaml"
    manifest.write_text(
        "apiVersion: galley.dev/v1alpha1\nkind: Task\nmetadata: {name: declared}\n"
        f"spec: {{queueName: drills, handler: measure, input: {{file: {put.strip()}}}}}\n"
    )
    code, _, problem = await galley("apply", "-f", str(manifest))
    assert code == 0, problem
    code, said, problem = await galley("result", "drills/declared", "--within", "30")
    assert (code, json.loads(said)["size"]) == (0, 4000), problem
    for queue_name, keep, problem in (
        ("drills", "31d", "2678400 s is not"),
        ("none", "1h", "no queue 'none'"),
    ):
        code, _, said = await galley("files", "put", queue_name, str(source), "--keep", keep)
        assert (code != 0, problem in said) == (True, True), said
    await galley("submit", "drills", "produce", '{"size": 5000}', "--id", "made", "--wait", "30")
    code, said, _ = await galley("result", "drills/made")
    assert json.loads(said)["file"] == "made.bin"
    code, _, said = await galley("result", "drills/made", "--output", str(tmp_path / "made"))
    assert (code, (tmp_path / "made").stat().st_size) == (0, 5000), said
    text = json.dumps({"text": "abc" * 200_000})
    (tmp_path / "input.json").write_text(text)
    await client.submit(artifacts.reverse.call("abc" * 200_000), task_id="long")
    code, _, said = await galley("result", "drills/long", "--output", str(tmp_path / "long.json"))
    assert json.loads((tmp_path / "long.json").read_text()) == "cba" * 200_000
    code, said, _ = await galley("show", "drills/long")
    assert "Result:    600002 bytes; `galley result drills/long` prints it" in said
    code, said, _ = await galley("show", "drills/long", "-o", "json")
    assert json.loads(said)["resultBytes"] == 600_002
    for words, problem in (
        (["--file", "file"], "is not NAME=PATH"),
        (["[1]", "--file", f"file={source}"], "no object"),
        (["--file", f"file={tmp_path / 'none'}"], "cannot be read: No such file"),
    ):
        code, _, said = await galley("submit", "drills", "measure", *words)
        assert problem in said
        assert code != 0
    code, _, said = await galley("result", "drills/long", "--output", str(tmp_path / "no" / "file"))
    assert "cannot be read" in said


async def test_what_waits_shows_where_its_large_input_is(client: AsyncClient, queue: TaskQueue) -> None:
    assert queue.metadata.name == "drills"
    handle = await client.submit(artifacts.reverse.call("abc" * 200_000))
    shown = json.loads(bytes((await handle.status()).input))
    assert shown["galley.stored"]["size"] == 600_011


async def test_a_result_that_is_not_to_be_stored_is_not(
    client: AsyncClient, queue: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(queue, GALLEY_CACHE=str(tmp_path / "cache"))
    for handler in (artifacts.discard, artifacts.adiscard):
        handle = await client.submit(handler.call(1))
        assert await handle.result(within=30) is None


async def test_equal_cached_tasks_at_the_same_time_run_once_and_a_failure_is_not_kept(
    client: AsyncClient, queue: TaskQueue, start: StartWorkers, tmp_path: Path
) -> None:
    await start(queue, ("w1", "w2"), GALLEY_CACHE=str(tmp_path / "cache"))
    call = artifacts.slowly.call(str(tmp_path / "count"))
    handles = await client.submit_many([call] * 20)
    handles += await asyncio.gather(*(client.submit(call) for _ in range(20)))
    assert {await handle.result(within=30) for handle in handles} == {1}
    failing = artifacts.slowly.call(str(tmp_path / "failures"), fails=1)
    with pytest.raises(TaskFailed):
        await (await client.submit(failing)).result(within=30)
    assert await (await client.submit(failing)).result(within=30) == 2
    again = await client.submit(failing)
    assert (again.existed, await again.result(within=30)) == (True, 2)


async def test_a_file_that_changes_while_its_task_is_submitted_submits_nothing(
    client: AsyncClient, queue: TaskQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "growing.bin"
    path.write_bytes(b"x" * 2 * PART)
    room = StreamObjects.check_room

    async def check_and_change(*arguments: Any) -> None:
        await room(*arguments)
        path.write_bytes(b"y" * 3 * PART)  # it was read once by now, for its digest

    monkeypatch.setattr(StreamObjects, "check_room", check_and_change)
    with pytest.raises(FileChanged, match=r"growing.bin changed while it was read") as changed:
        await client.submit(artifacts.measure.call(File(path)), task_id="mine")
    assert "rename it when it is complete" in changed.value.hint
    with pytest.raises(TaskNotFound):
        await client.handle(queue.metadata.name, "mine").status()
    # The same task can be submitted once the file is complete.
    monkeypatch.undo()
    assert not (await client.submit(artifacts.measure.call(File(path)), task_id="mine")).existed
