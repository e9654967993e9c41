"""Commands against a real server. `galley dev` has tests of its own."""

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from galley.broker.connection import Broker
from galley.broker.control import Pause, Supply, answering_supply
from galley.broker.ensure import ensure
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.calls import call
from galley.cli.main import OWN_COMMANDS, load, main
from galley.client import AsyncClient
from galley.topic import Subscription, Topic
from galley.workflow.shape import chain
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.command import run_command
from tests.unit.galley.cli.a_terminal import a_terminal, err

REPOSITORY = Path(__file__).resolve().parents[3]
EXAMPLES = [
    pytest.param(example, id=f"{command.name}-{number}")
    for command in map(load, OWN_COMMANDS)
    for number, example in enumerate(command.examples)
]


@pytest.fixture
async def client(own_nats_server: NatsServer, namespace: str) -> AsyncIterator[AsyncClient]:
    # To start a server takes less than to make two queues beside those of all other tests.
    async with Broker(own_nats_server.url, name="test") as broker:
        for queue in ("images", "texts"):
            await ensure(broker, a_queue(queue, namespace=namespace, backlog=100_000))
        yield AsyncClient.over(broker, namespace)


async def shell(line: str, client: AsyncClient) -> tuple[int, str, str]:
    """Run a line; one with a pipe is left to a real shell."""
    environ = {**os.environ, "GALLEY_SERVER": client.broker.server, "GALLEY_NAMESPACE": client.namespace}
    if "|" not in line:
        said = await run_command(shlex.split(line)[1:], REPOSITORY, environ)
        return said.code, said.out, said.err
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_shell(
        line, cwd=REPOSITORY, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def submit(client: AsyncClient, queue: str, *ids: str) -> None:
    for task_id in ids:
        await client.submit(call(queue, "noop"), task_id=task_id)


@pytest.mark.parametrize("example", EXAMPLES)
async def test_each_example_of_the_help_works(example: str, client: AsyncClient, tmp_path: Path) -> None:
    if "workflow" in example:
        workflow = await client.workflows.submit(
            chain(call("texts", "count"), call("texts", "sum")), id="order-42"
        )
        if "redrive" in example:
            await workflow.cancel()
    elif "publish" in example or "topic" in example:
        topics = TopicKeeper(client.broker, client.namespace, a_queue("images").install)
        await topics.keep([Declared(Topic("orders"), (Subscription("mail-send", "images", "noop"),))])
        event = tmp_path / "event.json"
        event.write_text('{"specversion": "1.0", "id": "7", "source": "/shop", "type": "placed"}')
        example = example.replace("event.json", str(event))
    elif "files put" in example:
        await submit(client, "images")
        (tmp_path / "hills.jpg").write_bytes(b"hills")
        example = example.replace("input/hills.jpg", str(tmp_path / "hills.jpg"))
    elif "apply" not in example:
        await submit(client, "images", "thumbnail-hills", "thumbnail-stars", "thumbnail-of-a-poem")
        await submit(client, "texts", "summary")
    # There is no worker here: waiting can only time out, which says that the rest of the line was right.
    waits = "--wait" in example or "--within" in example
    code, _, err = await shell(re.sub("(--wait|--within) 30", r"\1 0.1", example), client)
    # Nor does anything serve the queues, which the doctor finds.
    expected = 124 if waits else 1 if "doctor" in example else 0
    assert code == expected, err


async def test_why_says_what_scales_a_queue_says_of_it(client: AsyncClient) -> None:
    answers = [
        Supply(scaling="2 workers: 9 waiting", workers={"ready": 1, "present": 2}),
        Supply("no such image", "0 workers: nothing waits or runs"),
        Supply(),
        Supply("no such image", "1 worker", {"desired": 1}),
        Supply(scaling="1 worker", scaling_problem="another client set the replicas"),
    ]
    async with answering_supply(client.broker, client.namespace, "images", lambda *_: answers.pop(0)):
        assert await shell("galley why images", client) == (
            0,
            "images: 2 workers: 9 waiting (1 of 2 ready)\n",
            "",
        )
        _, out, _ = await shell("galley why images", client)
        assert out == "images: 0 workers: nothing waits or runs\nimages: no such image\n"
        _, out, _ = await shell("galley why images", client)
        assert out == "images: nothing has been decided yet\n"
        _, out, _ = await shell("galley why images -o json", client)
        assert json.loads(out) == {
            "queue": "images", "reason": "1 worker", "problem": "no such image", "workers": {"desired": 1},
            "pausedBy": [],
        }  # fmt: skip
        _, out, _ = await shell("galley why images", client)
        assert out == "images: 1 worker\nimages: another client set the replicas\n"
    _, out, _ = await shell("galley why images", client)
    assert "nothing scales it" in out
    _, out, _ = await shell("galley why images -o json", client)
    assert "nothing scales it" in json.loads(out)["reason"]


async def test_what_pauses_a_queue_is_named_first_and_all_of_it(client: AsyncClient) -> None:
    said = "spec.paused is true, so no task is started"
    supply = Supply(
        said, "0 workers: 1 waiting", paused_by={Pause.MANIFEST: said, Pause.COMMAND: "as it was"}
    )
    await client.queues.pause("images")
    code, out, _ = await shell("galley why images", client)
    assert out.splitlines()[0].startswith("images: `galley pause` holds it")
    async with answering_supply(client.broker, client.namespace, "images", lambda *_: supply):
        _, out, _ = await shell("galley why images", client)
        first, second, third = out.splitlines()
        assert "`galley resume` ends that" in first
        assert (second, third) == (f"images: {said}", "images: 0 workers: 1 waiting")
        _, out, _ = await shell("galley get queues images -o json", client)
        assert json.loads(out)[0]["pausedBy"] == ["manifest", "command"]
        _, out, _ = await shell("galley get queues -o table", client)
        assert "manifest, command" in out
        code, out, err = await shell("galley resume images", client)
        assert (code, out) == (0, "queue/images: resumed\n")
        assert err == f"queue/images: its tasks are still not started: {said}\n"
    assert await shell("galley resume images", client) == (0, "queue/images: resumed\n", "")
    _, out, _ = await shell("galley get queues -o table", client)
    assert "PAUSED BY" not in out


async def test_a_reader_that_has_seen_enough_is_no_error(client: AsyncClient) -> None:
    await submit(client, "images", *(f"task-{number}" for number in range(20)))
    _, out, err = await shell("galley get tasks -o name | head -n 1", client)
    assert (out.count("\n"), err) == (1, ""), err


async def test_an_id_in_two_queues_has_to_be_told_apart(client: AsyncClient) -> None:
    await submit(client, "images", "twin")
    await submit(client, "texts", "twin")
    code, _, err = await shell("galley show twin", client)
    assert code == 2
    assert "'twin' is a task of the queues images and texts" in err
    code, out, _ = await shell("galley show texts/twin -o json", client)
    assert (code, json.loads(out)["queue"]) == (0, "texts")


async def test_show_draws_a_workflow_by_its_id(client: AsyncClient) -> None:
    for queue in ("images", "texts"):
        await submit(client, queue)
    await client.workflows.submit(chain(call("images", "one"), call("images", "two")), id="order")
    code, out, _ = await shell("galley show order", client)
    assert (code, out.splitlines()[-2:]) == (0, ["  . one  Waiting", "  .   two  Waiting  after one"])
    code, out, _ = await shell("galley show images/order -o json", client)
    assert [step["name"] for step in json.loads(out)["graph"]] == ["one", "two"]
    await client.workflows.submit(chain(call("texts", "one"), call("texts", "two")), id="order")
    code, _, err = await shell("galley show order", client)
    assert (code, "'order' is a workflow of the queues images and texts" in err) == (2, True), err
    code, _, err = await shell("galley show texts/none", client)
    assert (code, "none" in err) == (1, True), err


async def test_cancel_goes_on_after_an_unknown_task(client: AsyncClient) -> None:
    await submit(client, "images", "one", "two")
    code, out, err = await shell("galley cancel one missing two", client)
    assert code == 1
    assert out == "task/one: cancelled before it ran\ntask/two: cancelled before it ran\n"
    assert "has a task 'missing'" in err
    assert (await client.handle("images", "two").status()).phase == "Cancelled"


async def test_an_id_of_ones_own_makes_one_task_of_two_submissions(client: AsyncClient) -> None:
    for told in ("", "task images/mine exists already; it is not submitted again\n"):
        code, out, err = await shell("galley submit images noop --id mine", client)
        assert (code, out, err) == (0, "mine\n", told)
    for other in ("images other", "images noop '{\"n\": 1}'"):
        code, out, err = await shell(f"galley submit {other} --id mine", client)
        assert (code, out) == (3, "")
        assert "queue 'images' has a task 'mine' already, with another" in err
    _, out, _ = await shell("galley get tasks images -o name", client)
    assert out == "images/mine\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("galley submit nowhere noop", "there is no queue 'nowhere'"),
        ("galley submit images noop --lane critical", "queue 'images' has no lane"),
        ("galley get tasks nowhere", "there is no queue 'nowhere'"),
    ],
)
async def test_what_a_queue_refuses_is_code_3(line: str, problem: str, client: AsyncClient) -> None:
    code, out, err = await shell(line, client)
    assert (code, out) == (3, "")
    assert problem in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "galley show some-task",
            1,
            "error: there are no queues in namespace 'empty'\nhint: `galley dev FILE...` ",
        ),
        ("galley cancel some-task", 1, "error: there are no queues in namespace 'empty'\nhint: "),
        ("galley show images/some-task", 3, "error: there is no queue 'images' in namespace 'empty'\nhint: "),
        ("galley submit images noop", 3, "error: there is no queue 'images' in namespace 'empty'\nhint: "),
        ("galley apply -f examples/folder/tasks.yaml", 3, "error: there is no queue 'images' in namespace"),
        ("galley get tasks -o name", 0, ""),
    ],
)
async def test_where_there_is_no_queue_yet_each_command_says_so(
    line: str, code: int, said: str, client: AsyncClient
) -> None:
    seen = await shell(f"{line} -n empty", client)
    assert (seen[0], seen[1]) == (code, "")
    assert seen[2].startswith(said)
    assert len(seen[2].splitlines()) == (2 if code else 0)


async def test_apply_submits_nothing_when_one_of_its_queues_does_not_exist(
    client: AsyncClient, tmp_path: Path
) -> None:
    manifest = tmp_path / "new.yaml"
    manifest.write_text("apiVersion: galley.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: unheard-of}\n")
    code, out, err = await shell(f"galley apply -f {manifest}", client)
    assert (code, out) == (3, "")
    assert f"hint: run it: galley dev {manifest}" in err


async def test_apply_submits_nothing_when_one_of_its_topics_does_not_exist(
    client: AsyncClient, tmp_path: Path
) -> None:
    manifest = tmp_path / "both.yaml"
    manifest.write_text(
        "apiVersion: galley.dev/v1alpha1\nkind: Task\nmetadata: {name: one}\n"
        "spec: {queueName: images, handler: noop}\n---\n"
        "apiVersion: galley.dev/v1alpha1\nkind: Topic\nmetadata: {name: orders}\n"
    )
    code, out, err = await shell(f"galley apply -f {manifest}", client)
    assert code != 0
    assert (out, f"namespace '{client.namespace}' has no topic 'orders'" in err) == ("", True)
    topics = TopicKeeper(client.broker, client.namespace, a_queue("images").install)
    await topics.keep([Declared(Topic("orders"))])
    code, out, _ = await shell(f"galley apply -f {manifest}", client)
    assert (code, out.splitlines()[-1]) == (0, "task/one created")


async def test_apply_refuses_a_queue_whose_streams_differ_from_its_file(
    client: AsyncClient, tmp_path: Path
) -> None:
    manifest = tmp_path / "queue.yaml"
    text = "apiVersion: galley.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: images}\nspec: {%s}\n"
    manifest.write_text(text % "")
    same = "taskqueue/images not applied: on a cluster that is for kubectl apply\n"
    assert await shell(f"galley apply -f {manifest}", client) == (0, same, "")
    manifest.write_text(text % "lanes: [low], limits: {backlog: 5}")
    code, out, err = await shell(f"galley apply -f {manifest}", client)
    assert (code, out) == (3, "")
    assert "otherwise than it is served: spec.lanes, spec.limits.backlog; nothing was submitted" in err
    assert f"hint: change it on the cluster: kubectl apply -f {manifest}" in err


async def test_applying_twice_is_applying_once(client: AsyncClient, tmp_path: Path) -> None:
    manifest = tmp_path / "task.yaml"
    manifest.write_text(
        "apiVersion: galley.dev/v1alpha1\nkind: Task\nmetadata: {name: one}\n"
        "spec: {queueName: images, handler: noop}\n"
    )
    assert await shell(f"galley apply -f {manifest}", client) == (0, "task/one created\n", "")
    assert await shell(f"galley apply -f {manifest}", client) == (0, "task/one unchanged\n", "")


async def test_applying_a_cancelled_task_again_says_why_nothing_runs(
    client: AsyncClient, tmp_path: Path
) -> None:
    manifest = tmp_path / "task.yaml"
    manifest.write_text(
        "apiVersion: galley.dev/v1alpha1\nkind: Task\nmetadata: {name: gone}\n"
        "spec: {queueName: images, handler: noop}\n"
    )
    await shell(f"galley apply -f {manifest}", client)
    await shell("galley cancel gone", client)
    code, out, err = await shell(f"galley apply -f {manifest}", client)
    assert (code, out) == (0, "task/gone unchanged: it had been cancelled\n")
    assert "give it another name" in err


async def publish_record(client: AsyncClient, task: str, body: bytes) -> None:
    """Store bytes as the record of a task, as a program with a fault might."""
    subject = f"galley.result.{client.namespace}.images.{task}"
    stored = await client.broker.nats.request(subject, body, timeout=5)
    assert b"seq" in stored.data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"state":"run"}',
        b'{"state":"done","attempt":1,"startedAt":"2026-01-01T00:00:00"}',
    ],
)
async def test_a_record_that_cannot_be_read_does_not_hide_the_other_tasks(
    body: bytes, client: AsyncClient
) -> None:
    await submit(client, "images", "one")
    await publish_record(client, "sdk.broken", body)
    await publish_record(client, "nonsense.odd", body)
    code, out, err = await shell("galley get tasks images -o name", client)
    assert (code, out, err) == (0, "images/one\n", "")
    code, out, err = await shell("galley show images/broken", client)
    assert (code, out) == (2, "")
    assert err.startswith("error: not a task: a record that cannot be read")
    assert len(err.splitlines()) == 2


async def test_a_waiting_task_is_shown_with_input_due_time_and_deadline(client: AsyncClient) -> None:
    given = """'{"path": "a.png", "evil": "\\u001b[2J"}'"""
    line = f"galley submit images noop {given} --id soon --delay 60 --deadline 90"
    assert (await shell(line, client))[0] == 0
    _, out, _ = await shell("galley get tasks images -o json", client)
    (document,) = json.loads(out)
    assert document["phase"] == "Scheduled"
    assert document["input"] == {"path": "a.png", "evil": "\x1b[2J"}
    assert document["submittedAt"] < document["dueAt"] < document["deadline"]
    _, out, _ = await shell("galley show soon -o json", client)
    assert json.loads(out) == document
    _, out, _ = await shell("galley get tasks -o wide", client)
    assert [document["dueAt"], "a.png"] == [out.split("\t")[8], json.loads(out.split("\t")[-1])["path"]]
    _, out, _ = await shell("galley show soon", client)
    assert f"Due:       {document['dueAt']}" in out
    assert f"Deadline:  {document['deadline']}" in out
    assert 'Input:\n  {\n    "path": "a.png",' in out


async def test_a_server_that_does_not_answer_is_code_4() -> None:
    terminal = a_terminal()
    assert await asyncio.to_thread(main, ["get", "queues", "--server", "nats://127.0.0.1:1"], terminal) == 4
    assert err(terminal).startswith("error: no answer from NATS at nats://127.0.0.1:1")
    assert len(err(terminal).splitlines()) == 2
