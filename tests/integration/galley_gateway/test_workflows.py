"""Workflows and topics over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from galley import AsyncClient
from galley import envelope as wire
from galley.broker import topology
from galley.broker.ensure import ensure, stream_info
from galley.broker.flow_values import Place
from galley.broker.flows import Flows
from galley.broker.layout import layout_of
from galley.broker.topic_keeper import Declared, TopicKeeper
from galley.envelope import Envelope, encode_input
from galley.record import Outcome
from galley.topic import Topic
from galley.workflow.plan import Node, chunked
from galley.workflow.state import Root
from galley_gateway.access import Right, User
from galley_gateway.errors import NotPermitted
from galley_local.nats_server import NatsServer
from tests.support.eventually import eventually
from tests.support.gateways import Served, served
from tests.support.workers import a_task_queue


class OneQueueAccess:
    """Admits everything on the queue `drills`, and nothing else."""

    login = True

    async def identify(self, token: str) -> User:
        return User(token)

    async def check(self, user: User, right: Right, namespace: str, queue: str = "") -> None:
        if queue != "drills":
            raise NotPermitted(user.name, right.verb, right.resource, namespace)


TWO: dict[str, Any] = {
    "id": "two", "labels": {"team": "billing"},
    "steps": [
        {"name": "first", "handler": "echo", "input": {"value": 7}},
        {"name": "then", "handler": "echo", "input": {"value": "${steps.first.result}"}},
    ],
}  # fmt: skip


async def ended(api: Served, path: str) -> str:
    async def phase() -> str:
        found = (await api.ask("GET", path)).body
        assert found["phase"] != "Running", found
        return str(found["phase"])

    return await eventually(phase, within=30)


async def test_a_workflow_is_submitted_once_looked_at_and_listed(api: Served) -> None:
    flows = api.path("drills", "/workflows")
    first, again = await api.ask("POST", flows, TWO), await api.ask("POST", flows, TWO)
    assert (first.status, again.status, again.body["existed"]) == (201, 200, True)
    assert first.headers["location"].endswith("/queues/drills/workflows/two")
    other = await api.ask("POST", flows, TWO | {"steps": TWO["steps"][:1]})
    assert (other.status, other.body["reason"]) == (409, "WorkflowConflict")
    assert await ended(api, f"{flows}/two") == "Succeeded"
    listed = (await api.ask("GET", flows)).body
    [found] = [each for each in listed["workflows"] if each["id"] == "two"]
    assert (found["steps"], found["succeeded"], found["labels"]) == (2, 2, {"team": "billing"})


async def test_what_failed_runs_again_as_a_new_workflow_and_what_runs_is_cancelled(api: Served) -> None:
    flows = api.path("drills", "/workflows")
    steps = [
        {"name": "good", "handler": "echo", "input": {"value": 1}},
        {"name": "bad", "handler": "fail", "input": {"message": "no"}, "retry": {"attempts": 1},
         "dependsOn": ["good"]},
        {"name": "never", "handler": "echo", "dependsOn": ["bad"], "input": {"value": 2}},
    ]  # fmt: skip
    await api.ask("POST", flows, {"id": "broken", "steps": steps})
    assert await ended(api, f"{flows}/broken") == "Failed"
    found = (await api.ask("GET", f"{flows}/broken")).body
    assert found["failedStep"] == "bad"
    assert [(each["name"], each["state"], each.get("after", [])) for each in found["graph"]] == [
        ("good", "Succeeded", []), ("bad", "Failed", ["good"]), ("never", "Skipped", ["bad"]),
    ]  # fmt: skip
    again = await api.ask("POST", f"{flows}/broken/redrive")
    assert again.status == 201
    assert await ended(api, f"{flows}/{again.body['id']}") == "Failed"
    assert (await api.ask("GET", f"{flows}/broken")).body["continuedBy"] == again.body["id"]

    await api.ask("POST", flows, {"id": "long", "steps": [
        {"name": "hold", "handler": "aecho", "input": {"seconds": 60}},
    ]})  # fmt: skip
    assert (await api.ask("POST", f"{flows}/long/cancel")).status == 200
    assert await ended(api, f"{flows}/long") == "Cancelled"
    late = await api.ask("POST", f"{flows}/{again.body['id']}x/cancel")
    assert (late.status, late.body["reason"]) == (404, "WorkflowNotFound")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"steps": []}, "Expected `array` of length >= 1"),
        ({"steps": [{"name": "a", "handler": "echo", "dependsOn": ["b"]}]}, "'b'"),
        ({"steps": [{"name": "a", "handler": "echo", "dependsOn": ["a"]}]}, "a"),
        ({"steps": [{"name": "a", "handler": "echo"}] * 2}, "two steps 'a'"),
        ({"steps": [{"name": "a", "handler": "echo", "queueName": "other"}]}, "none is for queue 'drills'"),
        ({"steps": [{"name": "a", "handler": "echo", "timeoutSeconds": 0}]}, "steps[0].timeoutSeconds"),
        ({"steps": [{"name": "a", "handler": "echo", "input": {"x": "${steps.no.result}"}}]}, "no"),
        ({"steps": [{"name": "a", "handler": "echo"}], "onFailure": "hope"}, "Invalid enum value"),
    ],
)  # fmt: skip
async def test_what_is_no_workflow_is_refused_with_the_place(
    api: Served, body: dict[str, object], says: str
) -> None:
    answer = await api.ask("POST", api.path("drills", "/workflows"), body)
    assert answer.status in {400, 422}
    assert says in answer.body["detail"], answer.body


async def test_a_workflow_needs_the_right_on_each_queue_it_has_steps_in(
    nats_server: NatsServer, api: Served
) -> None:
    namespace = api.namespace
    await ensure(api.gateway.broker, layout_of(a_task_queue(namespace, "theirs"), "tests"))
    steps = [
        {"name": "mine", "handler": "echo", "input": {"value": 1}},
        {"name": "theirs", "handler": "echo", "queueName": "theirs", "input": {"value": 1}},
    ]
    flows = api.path("drills", "/workflows")
    made = await api.ask("POST", flows, {"id": "mixed", "steps": steps})
    assert made.status == 201
    async with served(nats_server.url, namespace, OneQueueAccess()) as limited:
        own = limited.path("drills", "/workflows")
        token = {"Authorization": "Bearer someone"}
        refused = await limited.ask("POST", own, {"steps": steps}, **token)
        assert (refused.status, refused.body["reason"]) == (403, "NotPermitted")
        assert (await limited.ask("POST", own, {"steps": steps[:1]}, **token)).status == 201
        assert (await limited.ask("POST", f"{own}/mixed/cancel", **token)).status == 403
        for method, rest in (("GET", ""), ("GET", "/readings"), ("POST", "/readings/events")):
            url = f"{limited.address}/api/v1/namespaces/{namespace}/topics{rest}"
            body = {"data": 1} if method == "POST" else None
            assert (await limited.ask(method, url, body, **token)).status == 403
        assert (await api.ask("POST", f"{flows}/mixed/cancel")).status == 200
        assert await ended(api, f"{flows}/mixed") == "Cancelled"
        assert (await limited.ask("POST", f"{own}/mixed/redrive", **token)).status == 403
    assert (await api.ask("POST", f"{flows}/mixed/redrive")).status == 201


async def test_a_redrive_needs_the_right_on_queues_that_a_plan_hides(
    nats_server: NatsServer, api: Served
) -> None:
    """Who may submit to a queue writes roots and plans; one began where the list of steps does not look."""
    broker, namespace, now = api.gateway.broker, api.namespace, datetime.now(UTC)
    await ensure(broker, layout_of(a_task_queue(namespace, "others"), "tests"))
    task = Raw(wire.encode(Envelope("echo", now, input=encode_input("echo", {"value": 1}))))
    nodes = [Node("own", queue="drills", task=task), Node("hidden", queue="others", task=task)]
    (body,), first = chunked(nodes)
    flows, place = Flows(broker), Place(namespace, "drills", "forged")
    root = Root(
        "forged", 1, 2, first, 1, 0, now, now + timedelta(hours=1), marks="f",
        ended=Outcome.FAILED, ended_at=now, digest="x",
    )  # fmt: skip
    await flows.create(place, root, 600)
    await flows.write_chunk(place, 0, body, root, 600)
    async with served(nats_server.url, namespace, OneQueueAccess()) as limited:
        url, token = limited.path("drills", "/workflows/forged"), {"Authorization": "Bearer someone"}
        shown = await limited.ask("GET", url, **token)
        assert [step["queue"] for step in shown.body["graph"]] == ["drills"]
        refused = await limited.ask("POST", f"{url}/redrive", **token)
        assert (refused.status, refused.body.get("reason")) == (403, "NotPermitted")
    info = await stream_info(broker, topology.work_stream(namespace, "others"))
    assert info is not None
    assert info["state"]["messages"] == 0
    assert (await flows.root(place)) == root, "what is refused leaves the workflow as it was"


@pytest.fixture
async def topic(api: Served) -> str:
    keeper = TopicKeeper(api.gateway.broker, api.namespace, "tests")
    assert await keeper.keep([Declared(Topic("readings", retention_seconds=600), ())]) == []
    return f"{api.address}/api/v1/namespaces/{api.namespace}/topics"


async def test_events_are_published_and_topics_listed(api: Served, topic: str) -> None:
    one = await api.ask("POST", f"{topic}/readings/events", {"data": {"celsius": 81}, "id": "e1"})
    assert (one.status, one.body["topic"], one.body["id"]) == (201, "readings", "e1")
    event = {"specversion": "1.0", "id": "e2", "source": "/plant", "type": "hot", "data": 1, "region": "eu"}
    two = await api.ask(
        "POST", f"{topic}/readings/events", event, Content_Type="application/cloudevents+json"
    )
    assert (two.status, two.body["id"]) == (201, "e2")
    found = (await api.ask("GET", f"{topic}/readings")).body
    assert (found["events"], found["queues"], found["retentionSeconds"]) == (2, [], 600)
    assert [each["name"] for each in (await api.ask("GET", topic)).body["topics"]] == ["readings"]


async def test_what_is_no_event_or_no_topic_is_refused(api: Served, topic: str) -> None:
    events = f"{topic}/readings/events"
    cloud = {"Content_Type": "application/cloudevents+json"}
    assert (await api.ask("POST", f"{topic}/none/events", {"data": 1})).body["reason"] == "TopicNotFound"
    assert (await api.ask("GET", f"{topic}/none")).status == 404
    assert (await api.ask("GET", f"{topic}/NO.*")).status == 422
    assert (await api.ask("POST", events, {"attributes": {"Bad Name": 1}})).body["reason"] == "EventInvalid"
    assert (await api.ask("POST", events, {"specversion": "2"}, **cloud)).body["reason"] == "EventInvalid"
    assert (await api.ask("POST", events, [], **cloud)).body["reason"] == "EventInvalid"
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    assert (await api.ask("POST", events, {"data": deep}, **cloud)).body["reason"] == "RequestInvalid"
    assert (await api.ask("POST", events, "x", Content_Type="text/plain")).status == 400


async def test_a_cloudevent_in_headers_is_the_one_in_the_body(api: Served, topic: str) -> None:
    url, heads = (
        f"{topic}/readings/events",
        {"ce-specversion": "1.0", "ce-source": "/plant", "ce-type": "hot"},
    )
    before = (await api.ask("GET", f"{topic}/readings")).body["events"]
    deep = b"[" * 200 + b"]" * 200
    sent = [
        ("b1", "application/json", b'{"celsius": 81}', 201),
        ("b2", "text/plain; charset=utf-8", b"[" * 200, 201),  # a text, in which brackets count for nothing
        ("b3", "application/json", deep, 400),
        ("b4", "application/json", b"{", 422),
        ("b5", "image/png", b"x", 422),
        ("", "application/json", b"1", 422),
        ("caf%C3%A9", "application/json", b"1", 201),
    ]
    for name, kind, body, status in sent:
        headers = heads | {"ce-id": name, "ce-region": "eu", "Content-Type": kind}
        async with api.session.post(url, data=body, headers=headers) as answer:
            assert (answer.status, name) == (status, name), await answer.text()
            if status == 201:
                assert (await answer.json())["id"] == name.replace("%C3%A9", "é")
    again = {"specversion": "1.0", "id": "b1", "source": "/plant", "type": "hot", "data": {"celsius": 81}}
    structured = await api.ask("POST", url, again, Content_Type="application/cloudevents+json")
    assert structured.status == 201
    assert (await api.ask("GET", f"{topic}/readings")).body["events"] == before + 4
    events = AsyncClient.over(api.gateway.broker, api.namespace).topics.events("readings")
    both = [each.event async for each in events if each.event.id == "b1"]
    assert [(each.source, each.type, msgspec.json.decode(each.data)) for each in both] == [
        ("/plant", "hot", {"celsius": 81})
    ] * 2, "one event, which is listed as often as it is published"
    assert (await api.ask("POST", url, {"data": 1}, Ce_Specversion="1.0")).body["reason"] == "EventInvalid"


async def test_an_event_belongs_to_the_trace_of_its_request_unless_it_names_one(
    api: Served, topic: str
) -> None:
    url, event = f"{topic}/readings/events", {"specversion": "1.0", "source": "/t", "type": "hot"}
    of_request, of_event = (f"00-{word * 32}-{word * 16}-01" for word in "ab")
    structured = {"Content_Type": "application/cloudevents+json", "traceparent": of_request}
    binary = {f"ce_{name}": value for name, value in event.items()} | {"traceparent": of_request}
    sent = (
        ("t1", {"data": 1, "id": "t1"}, {"traceparent": of_request}),
        ("t2", {**event, "id": "t2"}, structured),
        ("t3", 1, {**binary, "ce_id": "t3"}),
        ("t4", {**event, "id": "t4", "traceparent": of_event}, structured),
        ("t5", 1, {**binary, "ce_id": "t5", "ce_traceparent": of_event}),
        ("t6", {"data": 1, "id": "t6"}, {"traceparent": "none"}),
    )
    for name, body, headers in sent:
        assert (await api.ask("POST", url, body, **headers)).status == 201, name
    found = AsyncClient.over(api.gateway.broker, api.namespace).topics.events("readings")
    traces = {each.event.id: each.event.traceparent async for each in found}
    told = [traces[name] for name, _, _ in sent]
    assert told == [of_request, of_request, of_request, of_event, of_event, ""]
