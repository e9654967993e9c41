"""Progress, checkpoints and output of tasks, from a handler to the one who asks."""

import asyncio
import signal
from pathlib import Path

import pytest

from galley import AsyncClient, Phase, RetryPolicy, When, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.cli.main import main
from galley.note import Progress
from galley_local.nats_server import NatsServer
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.eventually import eventually
from tests.support.workers import a_task_queue, ensure_with_leases
from tests.unit.galley.cli.a_terminal import a_terminal, err, out

HANDLERS = """
import asyncio, logging, multiprocessing, os, threading, time
from pathlib import Path
import galley
from galley import task

def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.01)

@task
def pages(gate: str):
    me = galley.current_task()
    done = me.last_checkpoint or []
    print("begins with", done, flush=True)
    for page in range(1000):
        me.progress(page / 1000, f"page {page} of 1000")
    if me.attempt == 1:
        me.checkpoint([1, 2, 3])
        raise ValueError("stopped half way")
    thread = threading.Thread(target=lambda: galley.current_task().progress(0.5, "from a thread"))
    thread.start()
    thread.join()
    wait_for(gate)
    me.progress(1, "done")
    logging.getLogger("books").warning("closed", extra={"book": {"pages": 1000}, "by": Path("shelf")})
    return done

@task
async def turns(gate: str):
    galley.current_task().progress(text="no number")
    galley.current_task().checkpoint({"at": 7})
    print("waits")
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return galley.current_task().last_checkpoint

@task
def wrong():
    told = []
    me = galley.current_task()
    for bad in (lambda: me.progress(1.5), lambda: me.progress("a"), lambda: me.progress(float("nan")),
                lambda: me.progress(0.1, b"x"), lambda: me.checkpoint(object()),
                lambda: me.checkpoint("x" * 10_000_000)):
        try:
            bad()
        except galley.GalleyError as error:
            told.append(type(error).__name__)
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    child = os.fork()
    if not child:
        try:
            me.progress(0.5)
        except galley.AttemptOver as error:
            theirs.send(type(error).__name__)
        os._exit(0)
    told.append(ours.recv())
    os.waitpid(child, 0)
    return told
"""
ONCE_MORE = When(retry=RetryPolicy(attempts=2, backoff_seconds=0))


@pytest.fixture
async def queue(client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path) -> Path:
    """A queue with one worker; returns the folder for gates."""
    (tmp_path / "book_handlers.py").write_text(HANDLERS)
    queue = a_task_queue(namespace, "books", worker={"modules": ["book_handlers"], "concurrency": 2})
    await ensure(client.broker, layout_of(queue, "tests"))
    await start(queue, GALLEY_IMPORT_PATHS=str(tmp_path))
    return tmp_path


async def test_progress_checkpoint_and_output_reach_those_who_ask(
    client: AsyncClient, queue: Path, nats_server: NatsServer, namespace: str
) -> None:
    gate = queue / "gate"
    handle = await client.submit(call("books", "pages", gate=str(gate)), ONCE_MORE)
    other = await client.submit(call("books", "turns", gate=str(gate)))

    async def said() -> bool:
        found = await handle.progress()
        return found is not None and found.text == "from a thread"

    await eventually(said, within=20)
    status = await handle.status()
    assert status.phase is Phase.RUNNING
    assert isinstance(status.progress, Progress)
    assert (status.progress.fraction, status.progress.attempt) == (0.5, 2)
    following = asyncio.create_task(_all(handle.follow_logs()))
    gate.touch()

    assert await handle.result(within=20) == [1, 2, 3]
    assert await other.result(within=20) is None
    last = await handle.progress()
    assert last is not None
    assert str(last) == "100% done"
    told = await other.progress()
    assert told is not None
    assert (told.fraction, told.text) == (None, "no number")
    lines = await client.logs("books", handle.id)
    assert [(line.attempt, line.stream, line.text) for line in lines] == [
        (1, "stdout", "begins with []"), (2, "stdout", "begins with [1, 2, 3]"), (2, "log", "closed"),
    ]  # fmt: skip
    assert [line.fields for line in lines] == [{}, {}, {"book": {"pages": 1000}, "by": "shelf"}]
    assert await asyncio.wait_for(following, 20) == lines
    assert [line.text for line in await handle.logs(attempt=2)] == ["begins with [1, 2, 3]", "closed"]

    terminal = a_terminal()
    words = ["logs", f"books/{handle.id}", "--server", nats_server.url, "-n", namespace]
    assert await asyncio.to_thread(main, words, terminal) == 0
    last_line = 'closed book={"pages":1000} by="shelf"'
    assert out(terminal).splitlines() == ["begins with []", "begins with [1, 2, 3]", last_line]
    assert err(terminal).splitlines() == ["attempt 1 on worker w1:", "attempt 2 on worker w1:"]


async def _all(lines: object) -> list[object]:
    return [line async for line in lines]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("queue")
async def test_what_cannot_be_reported_is_an_error_in_the_handler(client: AsyncClient) -> None:
    handle = await client.submit(call("books", "wrong"))
    assert await handle.result(within=20) == [
        *["ProgressInvalid"] * 4, *["CheckpointInvalid"] * 2, "AttemptOver",
    ]  # fmt: skip
    assert await handle.progress() is None


async def test_a_worker_that_is_gone_leaves_output_and_checkpoint(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    (tmp_path / "book_handlers.py").write_text(HANDLERS)
    queue = a_task_queue(namespace, "books", worker={"modules": ["book_handlers"]})
    await ensure_with_leases(client.broker, queue, 2.0)
    environment = {"GALLEY_IMPORT_PATHS": str(tmp_path), "GALLEY_LEASE_SECONDS": "2"}
    first = (await start(queue, ["w1"], **environment))[0]
    gate = tmp_path / "gate"
    handle = await client.submit(call("books", "turns", gate=str(gate)))

    async def stored() -> bool:
        return bool(await handle.logs()) and await handle.progress() is not None

    await eventually(stored, within=20)
    first.process.send_signal(signal.SIGKILL)
    gate.touch()
    await start(queue, ["w2"], **environment)

    assert await handle.result(within=60) == {"at": 7}
    assert [(line.worker, line.text) for line in await handle.logs()] == [("w1", "waits"), ("w2", "waits")]
