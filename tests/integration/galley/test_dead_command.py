"""`galley dead` does what it says on a real broker, and refuses what cannot be meant."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from msgspec import Raw

from galley import AsyncClient
from galley import envelope as wire
from galley.address import Kind, TaskAddress
from galley.broker.dead_letters import bury
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.cli.main import main
from galley.dead_letter import DeadLetter
from galley.envelope import Envelope
from galley.history import EndedBy, History, PastAttempt
from galley.lanes import Lane
from galley.record import Failure
from galley_local.nats_server import NatsServer
from tests.support.workers import a_task_queue
from tests.unit.galley.cli.a_terminal import a_terminal, err, out

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
PAST = PastAttempt(
    1, EndedBy.ERROR, "HandlerRaised", "no \x1b[2J", "w1", NOW, NOW, "Traceback\nValueError: no"
)


@pytest.fixture
def letters(nats_server: NatsServer, namespace: str) -> None:
    async def put() -> None:
        async with AsyncClient(nats_server.url, namespace) as client:
            await ensure(client.broker, layout_of(a_task_queue(namespace, "images"), "tests"))
            for name, handler in (("one", "resize"), ("two", "resize"), ("three", "blur")):
                envelope = Envelope(handler, NOW, input=Raw(b'{"path":"a.png"}'))
                letter = DeadLetter(
                    Failure("AttemptsExhausted", "it failed", "ValueError: no"), NOW, "w1", 3, "normal",
                    History(3, attempts=(PAST,)), Raw(wire.encode(envelope)),
                )  # fmt: skip
                address = TaskAddress(namespace, "images", Lane.NORMAL, Kind.DIRECT, name)
                assert (await bury(client.broker, address, letter)).stored

    asyncio.run(put())


def galley(server: NatsServer, namespace: str, *words: str) -> tuple[int, str, str]:
    terminal = a_terminal()
    code = main(["dead", *words, "--server", server.url, "-n", namespace], terminal)
    return code, out(terminal), err(terminal)


@pytest.mark.usefixtures("letters")
def test_dead_letters_are_listed_shown_edited_dropped_and_redriven(
    nats_server: NatsServer, namespace: str
) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        return galley(nats_server, namespace, *words)

    code, said, _ = run("list", "images", "--handler", "resize")
    assert code == 0
    assert [line.split("\t")[1] for line in said.splitlines()] == ["one", "two"]
    assert run("list", "images", "--younger-than", "60")[1] == ""
    code, said, _ = run("show", "images/one")
    assert "Reason:     AttemptsExhausted" in said
    assert "    ValueError: no" in said
    assert "\x1b" not in said
    code, said, _ = run("show", "images/one", "-o", "json")
    assert json.loads(said)["input"] == {"path": "a.png"}
    code, said, _ = run("edit", "images/one", "--input", '{"path": "b.png"}')
    assert (code, said) == (0, "task/one: edited; galley dead redrive images/one runs it\n")
    assert json.loads(run("show", "images/one", "-o", "json")[1])["input"] == {"path": "b.png"}
    assert run("redrive", "images/one")[:2] == (0, "task/one: queued again\n")
    would = run("drop", "images", "--all", "--handler", "blur", "--dry-run")
    assert would[:2] == (0, "would drop 1 dead letter of queue images for good\n")
    would = run("drop", "images/three", "--dry-run")
    assert would[:2] == (0, "task/three: would be dropped\n")
    assert run("drop", "images/gone", "--dry-run")[0] == 1
    code, _, told = run("drop", "images", "--all", "--handler", "blur")
    assert code == 2
    assert "drop 1 dead letter of queue images for good: not done" in told
    assert "add --yes" in told
    dropped = run("drop", "images", "--all", "--handler", "blur", "--yes")
    assert dropped[:2] == (0, "queue/images: 1 dropped\n")
    assert run("drop", "images/three")[0] == 1
    would = run("redrive", "images", "--all", "--dry-run")
    assert would[:2] == (0, "would queue 1 dead letter of queue images again\n")
    would = run("redrive", "images/two", "--dry-run")
    assert would[:2] == (0, "task/two: would be queued again\n")
    would = run("redrive", "images", "--all", "--handler", "blur", "--dry-run")
    assert would[:2] == (0, "would queue no dead letters of queue images again\n")
    code, _, told = run("redrive", "images", "--all", "--rate", "100")
    assert code == 2
    assert "queue 1 dead letter of queue images again, at most 100 a second: not done" in told
    assert "add --yes" in told
    redriven = run("redrive", "images", "--all", "--rate", "100", "--yes")
    assert redriven[:2] == (0, "queue/images: 1 queued again\n")
    assert run("list", "images")[:2] == (0, "")


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("redrive", "images"), "'images' is a whole queue"),
        (("drop", "images", "--all", "--yes", "--dry-run"), "not allowed with argument --yes"),
        (("list", "images", "--dry-run"), "--yes and --dry-run are for redrive and drop"),
        (("drop", "images"), "add --all for all its dead letters that fit"),
        (("show", "images"), "'images' names no dead letter"),
        (("edit", "images/one"), "nothing is to be edited"),
        (("edit", "images/one", "images/two", "--handler", "x"), "only one dead letter can be edited"),
        (("edit", "images/one", "--input", "{no"), "the input is not JSON"),
        (("list", "images", "--older-than", "long"), "'long' is not an age"),
        (("drop", "images/one", "--rate", "3"), "--rate is for redrive"),
        (("show", "images/one", "--input", "3"), "--input is for edit"),
        (("redrive", "images", "--all", "--rate", "0"), "use a number that is more than 0"),
        (("redrive", "images/gone"), "keeps no dead letter of a task 'gone'"),
        (("list", "no-such-queue"), "no-such-queue"),
        (("show", "no-such-queue/gone"), "there is no queue 'no-such-queue'"),
        (("redrive", "no-such-queue/gone"), "there is no queue 'no-such-queue'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    nats_server: NatsServer, namespace: str, words: tuple[str, ...], says: str
) -> None:
    code, _, told = galley(nats_server, namespace, *words)
    assert code != 0
    assert says in told
    assert len(told.splitlines()) == 2, told
