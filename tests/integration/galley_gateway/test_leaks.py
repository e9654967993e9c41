"""Nothing of a namespace is told to those without rights in it: by no status, text, event, count or time."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import pytest

from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.topic import Topic
from galley_gateway.access import Right, User
from galley_gateway.app import OPERATIONS
from galley_gateway.errors import NotIdentified, NotPermitted
from galley_gateway.pages import page
from galley_gateway.pages.content import PAGES
from galley_local.nats_server import NatsServer
from tests.support.builders import a_queue
from tests.support.gateways import Answer, Served, served

OWN, THEIRS, NONE = "own-room", "secret-room", "no-room"
EVIL: Final = "\"'><script>window.evil=1</script>"


class TenantAccess:
    """Lets the token `own` do everything in its namespace, until it is revoked."""

    login = True

    def __init__(self) -> None:
        self.revoked = False

    async def identify(self, token: str) -> User:
        if token not in {"own", EVIL}:
            raise NotIdentified("its token is not known")
        return User(token)

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        del queue
        if namespace != OWN or self.revoked:
            raise NotPermitted(user.name, right.verb, right.resource, namespace)


class Rooms(NamedTuple):
    gateway: Served
    access: TenantAccess

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request as the user of the own namespace."""
        given = {"Authorization": "Bearer own", "Cookie": "galley-token=own", **headers}
        return await self.gateway.ask(method, f"{self.gateway.address}{path}", body, **given)


@pytest.fixture
async def rooms(nats_server: NatsServer) -> AsyncIterator[Rooms]:
    """A gateway with two namespaces, each with a queue, a task, a schedule, a workflow and a topic."""
    access = TenantAccess()
    async with Broker(nats_server.url, name="test") as broker:
        for namespace, queue in ((OWN, "mine"), (THEIRS, "hidden-queue")):
            await ensure(broker, a_queue(queue, namespace=namespace))
            keeper = TopicKeeper(broker, namespace, "tests")
            topic = "hidden-topic" if namespace == THEIRS else "news"
            assert await keeper.keep([Declared(Topic(topic, retention_seconds=600), ())]) == []
    async with served(nats_server.url, THEIRS) as theirs:
        queue = theirs.path("hidden-queue")
        await theirs.ask("POST", f"{queue}/tasks", {"handler": "echo", "id": "hidden-task"})
        cron = {"task": {"handler": "echo"}, "repeat": {"cron": "@yearly"}}
        await theirs.ask("PUT", f"{queue}/schedules/hidden-schedule", cron)
        steps = [{"name": "one", "handler": "echo"}]
        await theirs.ask("POST", f"{queue}/workflows", {"id": "hidden-flow", "steps": steps})
    async with served(nats_server.url, OWN, access) as gateway:
        gateway.gateway.namespaces = ()  # all that have queues, as far as one may see them
        yield Rooms(gateway, access)


def _same(answer: Answer, *names: str) -> tuple[int, str, dict[str, str]]:
    """Return an answer without the names that were asked for."""
    text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    for name in names:
        text = text.replace(quote(name), "NAME").replace(name, "NAME")
    headers = {key: value for key, value in answer.headers.items() if key not in {"Date", "Content-Length"}}
    return answer.status, text, headers


async def test_what_is_there_and_what_is_not_are_refused_alike_and_without_a_look(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(namespace: str) -> Any:
        raise AssertionError(f"{namespace} was looked at before the right was checked")

    # An answer that needs no look takes as long for what is there as for what is not.
    monkeypatch.setattr(rooms.gateway.gateway, "client", looked)
    there = {"queue": "hidden-queue", "id": "hidden-task", "name": "hidden-schedule"}
    absent = {"queue": "no-queue", "id": "no-task", "name": "no-schedule"}
    for operation in OPERATIONS:
        body = {"handler": "echo"} if operation.takes is not None else None
        answers = [
            _same(
                await rooms.ask(
                    operation.method, operation.full_path.format(namespace=namespace, **place), body
                ),
                namespace, *place.values(),
            )
            for namespace, place in ((THEIRS, there), (THEIRS, absent), (NONE, absent))
        ]  # fmt: skip
        assert answers[0][0] == 403, operation.id
        assert answers[0] == answers[1] == answers[2], operation.id
    for shown in PAGES:
        for live in ("", "?live=1"):
            answers = [
                _same(
                    await rooms.ask("GET", f"/ui/{namespace}{shown.path}".format(**place) + live),
                    namespace, *place.values(),
                )
                for namespace, place in ((THEIRS, there), (THEIRS, absent), (NONE, absent))
            ]  # fmt: skip
            assert answers[0][0] == 403, shown.path
            assert answers[0] == answers[1] == answers[2], shown.path
    for name in ("hidden-task", "no-task"):
        assert (await rooms.ask("GET", f"/ui/{THEIRS}/find?id={name}")).status == 403


async def test_no_page_of_one_namespace_names_what_is_in_another(rooms: Rooms) -> None:
    place = {"queue": "mine", "id": "hidden-task"}
    paths = [f"/ui/{OWN}{shown.path}".format(**place) for shown in PAGES]
    paths += [f"/ui/{OWN}/queues/mine/workflows/hidden-flow", "/ui/", "/openapi.json"]
    paths += [f"/ui/{OWN}/topics/hidden-topic", f"/ui/{OWN}/find?id=hidden-task"]
    for path in paths:
        answer = await rooms.ask("GET", path)
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        for word in (THEIRS, "hidden-queue", "hidden-schedule"):
            assert word not in text, (path, word)
    for operation in OPERATIONS:
        if operation.method == "GET" and not operation.streams:
            path = operation.full_path.format(
                namespace=OWN, queue="mine", id="hidden-task", name="hidden-topic"
            )
            answer = await rooms.ask("GET", path + ("?seconds=0" if operation.waits else ""))
            assert answer.status in {200, 404}, path
            text = json.dumps(answer.body)
            assert THEIRS not in text, path
            assert "hidden-queue" not in text, path


async def test_a_right_that_is_taken_away_ends_what_is_open(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "LOOK_SECONDS", 0.05)
    url = f"{rooms.gateway.address}/ui/{OWN}/queues/mine?live=1"
    async with (
        asyncio.timeout(20),
        rooms.gateway.session.get(url, headers={"Cookie": "galley-token=own"}) as open_,
    ):
        found = b""
        while b"event: page" not in found:
            found += await open_.content.readany()
        rooms.access.revoked = True
        while b"event: problem" not in found:
            found += await open_.content.readany()
        rest = found[found.index(b"event: problem") :]
        while rest.count(b"event: problem") < 3:
            rest += await open_.content.readany()
        assert b"NotPermitted" in rest
        assert b"event: page" not in rest


HOSTILE: Final = (
    EVIL, "../../secret-room/queues", "%2e%2e", "a\r\nPUB x 1\r\nx", "a.>", "*", "x" * 3000, "\u202e\x00",
    "$JS.API.INFO",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
async def test_any_text_in_any_place_of_a_path_or_a_query_is_a_safe_answer(rooms: Rooms, text: str) -> None:
    word = quote(text, safe="")
    names = (
        "phase",
        "handler",
        "labels",
        "search",
        "continue",
        "reason",
        "queue",
        "task",
        "user",
        "id",
        "done",
        "next",
    )
    query = "&".join(f"{name}={word}" for name in names)
    paths = [
        f"/ui/{word}/queues",
        f"/ui/{OWN}/queues/{word}",
        f"/ui/{OWN}/topics/{word}",
        f"/ui/login?{query}",
    ]
    paths += [f"/ui/{OWN}/queues/mine/{kind}/{word}" for kind in ("tasks", "workflows")]
    paths += [f"/ui/{OWN}{shown.path}?{query}".format(queue="mine", id="x") for shown in PAGES]
    paths += [f"/ui/{OWN}/find?{query}"]
    paths += [
        f"/ui/{OWN}{shown.path}?{name}={word}".format(queue="mine", id="x")
        for shown in PAGES
        for name in names
    ]
    for operation in OPERATIONS:
        if operation.method == "GET" and not operation.streams:
            for place in ({"queue": word}, {"id": word, "name": word}):
                whole = {"namespace": OWN, "queue": "mine", "id": "x", "name": "x", **place}
                paths.append(operation.full_path.format(**whole) + ("?seconds=0" if operation.waits else ""))
            paths.append(
                operation.full_path.format(namespace=OWN, queue="mine", id="x", name="x") + f"?{query}"
            )
    for path in paths:
        answer = await rooms.ask("GET", path)
        # Neither a failure of ours nor of the broker, whatever was asked for.
        assert answer.status in {200, 303, 400, 403, 404, 422}, (path, answer)
        shown_text = answer.body if isinstance(answer.body, str) else ""
        assert "<script>window" not in shown_text, path
        assert THEIRS not in shown_text.replace(text, "").replace(word, ""), path


async def test_the_name_of_a_user_is_text(rooms: Rooms) -> None:
    headers = {"Cookie": f"galley-token={EVIL}"}
    answer = await rooms.gateway.ask("GET", f"{rooms.gateway.address}/ui/{OWN}/queues", **headers)
    assert "<script>window" not in answer.body
