"""Tasks over HTTP, with a real broker and a real worker."""

import asyncio
import json

from galley.address import Kind, TaskAddress
from galley.broker.held import message_of
from galley.lanes import Lane
from tests.support.gateways import Served


async def test_a_task_is_submitted_waited_for_and_listed(api: Served) -> None:
    tasks = api.path("drills", "/tasks")
    submitted = await api.ask("POST", tasks, {"handler": "echo", "input": {"value": 7}, "id": "first"})
    assert submitted.status == 201
    assert submitted.headers["Location"] == f"/api/v1/namespaces/{api.namespace}/queues/drills/tasks/first"

    ended = await api.ask("GET", f"{tasks}/first/wait?seconds=20")
    assert (ended.status, ended.body["phase"], ended.body["result"]) == (200, "Succeeded", 7)

    looked = await api.ask("GET", f"{tasks}/first")
    assert looked.body == ended.body
    listed = await api.ask("GET", f"{tasks}?phase=succeeded&search=fir")
    assert [each["id"] for each in listed.body["tasks"]] == ["first"]


async def test_two_submits_of_one_key_at_once_are_one_task(api: Served) -> None:
    tasks = api.path("drills", "/tasks")
    body = {"handler": "echo", "input": {"value": 1}}
    answers = await asyncio.gather(
        *(api.ask("POST", tasks, body, Idempotency_Key="order 4711") for _ in range(8))
    )

    assert sorted(each.status for each in answers) == [200] * 7 + [201]
    assert len({each.body["id"] for each in answers}) == 1

    other = await api.ask("POST", tasks, {**body, "input": {"value": 2}}, Idempotency_Key="order 4711")
    assert (other.status, other.body["reason"]) == (409, "TaskConflict")


async def test_of_many_tasks_each_is_accepted_or_refused_for_itself(api: Served) -> None:
    body = {
        "tasks": [
            {"handler": "echo", "input": {"value": 1}},
            {"handler": "echo", "lane": "critical"},
            {"handler": "echo", "input": {"value": 3}},
        ]
    }
    answer = await api.ask("POST", api.path("drills", "/submit-many"), body)

    assert (answer.status, answer.body["submitted"], answer.body["refused"]) == (200, 2, 1)
    assert answer.body["tasks"][1]["problem"]["reason"] == "LaneNotEnabled"


async def test_a_wait_that_is_over_before_the_task_answers_where_it_is(api: Served) -> None:
    tasks = api.path("drills", "/tasks")
    soon = {"handler": "echo", "input": {"value": 1}, "notBefore": "2090-01-01T00:00:00Z", "id": "later"}
    await api.ask("POST", tasks, soon)

    answer = await api.ask("GET", f"{tasks}/later/wait?seconds=0.1")
    assert (answer.status, answer.body["phase"]) == (202, "Scheduled")

    cancelled = await api.ask("POST", f"{tasks}/later/cancel")
    assert cancelled.body == {"outcome": "cancelled before it ran"}


async def test_a_task_is_followed_until_it_has_ended(api: Served) -> None:
    tasks = api.path("drills", "/tasks")
    await api.ask("POST", tasks, {"handler": "echo", "input": {"value": "x"}, "id": "followed"})

    async with api.session.get(f"{tasks}/followed/events") as response:
        text = await response.text()

    name, data = text.strip().split("\n\n")[-1].split("\n", 1)
    assert name == "event: ended"
    assert json.loads(data.removeprefix("data: "))["result"] == "x"


async def test_problems_say_what_to_do(api: Served) -> None:
    missing = await api.ask("GET", api.path("drills", "/tasks/never"))
    assert missing.headers["Content-Type"] == "application/problem+json"
    assert (missing.status, missing.body["reason"]) == (404, "TaskNotFound")
    assert missing.body["hint"]

    unknown = await api.ask("POST", api.path("drills", "/tasks"), {"handler": "echo", "inputs": 1})
    assert (unknown.status, unknown.body["reason"]) == (400, "RequestInvalid")
    assert "inputs" in unknown.body["detail"]


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_task_belongs_to_the_trace_of_its_request(api: Served) -> None:
    broker, later = api.gateway.broker, "2090-01-01T00:00:00Z"
    tasks = api.path("drills", "/tasks")

    async def trace_of(task_id: str) -> str:
        address = TaskAddress(api.namespace, "drills", Lane.NORMAL, Kind.DIRECT, task_id)
        message = await message_of(broker, address)
        assert message is not None
        assert message.envelope is not None
        return message.envelope.trace

    new = {"handler": "echo", "notBefore": later}
    await api.ask("POST", tasks, {**new, "id": "traced"}, traceparent=TRACE)
    many = {"tasks": [{**new, "id": "one-of-many"}]}
    await api.ask("POST", api.path("drills", "/submit-many"), many, traceparent=TRACE)
    assert [await trace_of(each) for each in ("traced", "one-of-many")] == [TRACE, TRACE]
    # What is no trace is left out, and no request has that of another.
    wrong = ("", "x" * 5000, TRACE.upper(), TRACE + "0", "00-" + "0" * 32 + TRACE[35:], f"{TRACE},{TRACE}")
    for number, given in enumerate(wrong):
        answer = await api.ask("POST", tasks, {**new, "id": f"wrong-{number}"}, traceparent=given)
        assert (answer.status, await trace_of(f"wrong-{number}")) == (201, ""), given
