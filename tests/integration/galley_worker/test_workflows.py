"""Workflows on a real server, with real workers."""

from typing import Any

import pytest

from galley import AsyncClient, Call, Graph, WorkflowFailed, call, chain, chord, group, previous
from galley.resources import TaskQueue
from tests.integration.galley_worker.conftest import StartWorkers


def echo(value: object) -> Call[Any]:
    return call("drills", "echo", value=value)


async def test_a_chain_a_chord_and_a_graph_end_with_their_results(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills, ("w1", "w2"))

    one = await client.submit(chain(echo(1), echo(previous), echo({"was": 2})))
    many = await client.submit(chord(group(echo(n) for n in range(250)), echo(previous)))
    graph = Graph()
    left = graph.add("left", echo({"name": "l", "list": [1, 2]}))
    graph.add("both", call("drills", "echo", value=left["list"][1]), after=["right"])
    graph.add("right", chain(echo(1), echo(previous)))
    drawn = await client.submit(graph)

    assert await one.result(within=20) == {"was": 2}
    assert await many.result(within=30) == list(range(250))
    assert await drawn.result(within=20) == {"both": 2}
    assert (await many.status()).progress == "251 of 251"


async def test_a_failure_ends_the_workflow_and_a_redrive_runs_the_rest(
    client: AsyncClient, drills: TaskQueue, start: StartWorkers
) -> None:
    await start(drills)
    flow = await client.submit(chain(echo(1), call("drills", "fail"), echo(previous)))
    with pytest.raises(WorkflowFailed, match="no luck"):
        await flow.result(within=20)
    status = await flow.status()
    assert (status.phase, status.failed_step, status.succeeded, status.failed) == ("Failed", "fail", 1, 1)

    again = await flow.redrive()
    with pytest.raises(WorkflowFailed, match="no luck"):
        await again.result(within=20)
    assert (await again.status()).succeeded == 1
    assert (await flow.redrive()).id == again.id
