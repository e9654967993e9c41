"""From submit to start: how long a task waits for its handler to begin on a worker that has room."""

from statistics import quantiles

from benchmarks.comparison import Comparison, Run
from benchmarks.plan import Plan
from benchmarks.sides import GalleySide, RawSide, Side
from benchmarks.stage import NotDone, Stage


class Latency:
    """Measures both sides in turns, at the same rate."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self._stage = stage
        self._plan = plan

    async def at_rate(
        self, galley: GalleySide, raw: RawSide, rate: float, count: int
    ) -> tuple[Comparison, Comparison]:
        """Return medians and 99th percentiles, in milliseconds, at `rate` tasks a second."""
        half, late = (Comparison(f"submit to start, p{part}, {rate:.0f}/s", "ms") for part in (50, 99))
        for side in (
            galley,
            raw,
        ):  # the first calls of a handler measure how long it takes
            await self._run(side, rate, max(1, count // 4), self._plan.runs)
        for seed in range(self._plan.runs):
            for side, medians, tails in ((galley, half.galley, late.galley), (raw, half.raw, late.raw)):
                median, tail = await self._run(side, rate, count, seed)
                medians.append(median)
                tails.append(tail)
        return half, late

    async def _run(self, side: Side, rate: float, count: int, seed: int) -> tuple[Run, Run]:
        await self._stage.clear()
        await side.expect(count)
        answer = await side.producer.ask("arrive", count=count, rate=rate, seed=seed)
        await self._stage.wait_until_done(side.queue, count)
        await side.settle()
        waits = [nanoseconds / 1e6 for nanoseconds in await self._stage.results(side.queue)]
        if len(waits) != count:
            raise NotDone(f"{len(waits)} results for {count} tasks of {side.queue}")
        more = {"tasks": float(count), "most": max(waits), "late_p99": answer["late_p99"] * 1000}
        return Run(_part(waits, 50), more=more), Run(_part(waits, 99), more=more)


def _part(values: list[float], part: int) -> float:
    return quantiles(values, n=100, method="inclusive")[part - 1]
