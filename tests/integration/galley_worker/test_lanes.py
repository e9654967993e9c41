"""Higher lanes start first, and the lowest has its share all the same."""

from pathlib import Path

from galley import AsyncClient, Lane, When, call
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley.lanes import GUARANTEED_SHARE
from tests.integration.galley_worker.conftest import StartWorkers
from tests.support.workers import a_task_queue

LANES = (Lane.HIGH, Lane.NORMAL, Lane.LOW)


def starts(folder: Path) -> list[str]:
    return [line.split()[1].split("-")[0] for line in (folder / "drills.log").read_text().splitlines()]


async def test_300_tasks_in_three_lanes_on_one_slot_start_by_lane_with_the_guaranteed_shares(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 1})
    await ensure(client.broker, layout_of(queue, "tests"))
    handles = []
    for lane in reversed(LANES):
        calls = [call("drills", "note", word=f"{lane}-{n}") for n in range(100)]
        handles += await client.submit_many(calls, When(lane=lane))
    await start(queue)
    for handle in handles:
        await handle.result(within=60)

    order = starts(tmp_path)

    assert len(order) == 300
    # While all three wait, each lower lane has its share of the starts, no more and no less.
    first = order[: order.index("high") + 100]
    for lane in (Lane.NORMAL, Lane.LOW):
        share = first.count(lane) / len(first)
        assert abs(share - GUARANTEED_SHARE[lane]) < 0.04, (lane, share)
    last = {lane: len(order) - order[::-1].index(lane) for lane in LANES}
    assert last[Lane.HIGH] < last[Lane.NORMAL]


async def test_under_a_flood_of_the_highest_lane_the_lowest_waits_no_longer_than_its_bound(
    client: AsyncClient, namespace: str, start: StartWorkers, tmp_path: Path
) -> None:
    queue = a_task_queue(namespace, worker={"concurrency": 1}, lanes=["critical", "low"])
    await ensure(client.broker, layout_of(queue, "tests"))
    low = await client.submit_many(
        [call("drills", "note", word=f"low-{n}") for n in range(20)], When(lane=Lane.LOW)
    )
    await client.submit_many(
        [call("drills", "note", word=f"critical-{n}") for n in range(600)], When(lane=Lane.CRITICAL)
    )
    await start(queue)
    for handle in low:
        await handle.result(within=60)

    places = [place for place, lane in enumerate(starts(tmp_path)) if lane == "low"]

    bound = round(1 / GUARANTEED_SHARE[Lane.LOW])
    gaps = [after - before for before, after in zip([-1, *places], places, strict=False)]
    # A batch is planned ahead and asked lane by lane, which moves a start by less than one bound.
    assert max(gaps) <= 2 * bound, gaps
    assert 0.8 / bound <= len(places) / (places[-1] + 1) <= 1.2 / bound, places
