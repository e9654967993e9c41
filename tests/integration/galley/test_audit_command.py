"""`galley audit` shows who did what, and keeps apart what is known and what is claimed."""

import asyncio
import json

import pytest

from galley import AsyncClient
from galley.audit import Action, Entry, Writer
from galley.broker.audit import store
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.cli.main import main
from galley_local.nats_server import NatsServer
from tests.support.workers import a_task_queue
from tests.unit.galley.cli.a_terminal import a_terminal, out


@pytest.fixture
def written(nats_server: NatsServer, namespace: str) -> None:
    async def write() -> None:
        async with AsyncClient(nats_server.url, namespace) as client:
            await ensure(client.broker, layout_of(a_task_queue(namespace, "images"), "tests"))
            for queue, writer, entry in (
                ("images", Writer.GATEWAY, Entry(Action.CANCEL, "alice", "10.0.0.7", "t1")),
                ("images", Writer.OPERATOR, Entry(Action.EDIT, "", "kubectl")),
                ("texts", Writer.CLIENT, Entry(Action.REDRIVE, "bob\x1b[2J", "desk", count=317)),
            ):
                assert await store(client.broker, namespace, queue, writer, entry)

    asyncio.run(write())


@pytest.mark.usefixtures("written")
def test_lines_are_shown_by_queue_task_and_user(nats_server: NatsServer, namespace: str) -> None:
    def galley(*words: str) -> str:
        terminal = a_terminal()
        assert main([*words, "--server", nats_server.url, "-n", namespace], terminal) == 0
        return out(terminal)

    cancel, edit, redrive = galley("audit").splitlines()
    assert cancel.split("\t")[1:] == ["images", "cancel", "alice (http, 10.0.0.7)", "t1"]
    assert edit.split("\t")[2:4] == ["edit", "not recorded (kubectl, kubectl)"]
    assert redrive.split("\t")[3:] == [
        r"credentials of the manager (says it is bob\x1b[2J@desk)", "317 tasks",
    ]  # fmt: skip
    assert galley("audit", "texts", "--since", "1h").splitlines() == [redrive]
    assert galley("audit", "--task", "t1").splitlines() == [cancel]
    assert galley("audit", "--who", "bob") == ""
    galley("pause", "images")
    [line] = json.loads(galley("audit", "images", "-o", "json"))[2:]
    assert (line["action"], line["attested"], line["writer"]) == ("pause", False, "client")
