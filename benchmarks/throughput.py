"""Tasks a second: submitting many, draining a backlog, and both at once, with each process's CPU time."""

import time

from benchmarks.comparison import Comparison, Run
from benchmarks.plan import Plan
from benchmarks.processor_time import Roles, by_role
from benchmarks.sides import GalleySide, RawSide, Side
from benchmarks.stage import Stage


class Throughput:
    """Measures both sides in turns."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self._stage = stage
        self._plan = plan

    async def warm_up(self, sides: tuple[Side, ...]) -> None:
        """Have each process do all it is measured at, so that nothing is measured for the first time."""
        for side in sides:
            for handler in ("noop", "anoop"):
                await self.drain_once(side, self._plan.warm_tasks, handler)

    async def submit(self, galley: GalleySide, raw: RawSide) -> Comparison:
        """Compare how fast many tasks are submitted, until the last acknowledgement."""
        comparison = Comparison("submit", "tasks/s")
        for _ in range(self._plan.runs):
            comparison.galley.append(await self._submit(galley))
            comparison.raw.append(await self._submit(raw))
        return comparison

    async def drain(self, galley: GalleySide, raw: RawSide, *, older: bool) -> dict[str, Comparison]:
        """Compare how fast a backlog of no-ops is done, plain and async, each against a raw run beside it.

        Args:
            galley: is measured.
            raw: is measured.
            older: whether the backlog was there before the worker: a new one is started for each run.
        """
        age = "older" if older else "younger"
        plain = Comparison(f"no-op, plain function, {age} backlog", "tasks/s")
        concurrent = Comparison(f"no-op, async function, {age} backlog", "tasks/s")
        for _ in range(self._plan.runs):
            plain.galley.append(await self.drain_once(galley, self._plan.tasks, "noop", older=older))
            between = await self.drain_once(raw, self._plan.tasks, "noop")
            concurrent.galley.append(await self.drain_once(galley, self._plan.tasks, "anoop", older=older))
            plain.raw.append(between)
            concurrent.raw.append(between)
        prefix = "older_" if older else ""
        return {f"{prefix}noop": plain, f"{prefix}anoop": concurrent}

    async def flow(self, galley: GalleySide, raw: RawSide, rate: float) -> Comparison:
        """Compare the throughput of tasks that arrive one by one, faster than either side can run them."""
        comparison = Comparison("submitted one by one, and run", "tasks/s")
        count = int(rate * self._plan.half_load_seconds)
        for seed in range(self._plan.runs):
            comparison.galley.append(await self._flow(galley, rate, count, seed))
            comparison.raw.append(await self._flow(raw, rate, count, seed))
        return comparison

    async def _flow(self, side: Side, rate: float, count: int, seed: int) -> Run:
        await self._stage.clear()
        await side.expect(count)
        roles: Roles = {"producer": (side.producer.pid,), **side.worker_roles(), **self._server()}
        before = by_role(roles)
        began = time.time()
        await side.producer.ask("arrive", count=count, rate=rate, seed=seed)
        ended = await self._stage.wait_until_done(side.queue, count)
        await side.settle()
        after = by_role({"producer": (side.producer.pid,), **side.worker_roles(), **self._server()})
        return Run(count / (ended - began), _each(before, after, count))

    async def _submit(self, side: Side) -> Run:
        await self._stage.clear()
        await self._stage.hold(side.queue)
        roles: Roles = {"producer": (side.producer.pid,), **self._server()}
        before = by_role(roles)
        answer = await side.producer.ask("submit", count=self._plan.tasks)
        after = by_role(roles)
        await self._stage.clear()
        await self._stage.release(side.queue)
        return Run(self._plan.tasks / answer["seconds"], _each(before, after, self._plan.tasks))

    async def drain_once(self, side: Side, count: int, handler: str, *, older: bool = False) -> Run:
        """Give an idle worker a backlog all at once, and measure until the last record is stored."""
        await self._stage.clear()
        await self._stage.hold(side.queue)
        await side.producer.ask("submit", count=count, handler=handler)
        if older:
            await side.renew()
        await side.expect(count)
        await self._stage.wait_for_pull(side.queue)
        roles: Roles = {**side.worker_roles(), **self._server()}
        before = by_role(roles)
        began = await self._stage.release(side.queue)
        ended = await self._stage.wait_until_done(side.queue, count)
        await side.settle()
        after = by_role({**side.worker_roles(), **self._server()})
        return Run(count / (ended - began), _each(before, after, count))

    def _server(self) -> Roles:
        pid = self._stage.server.pid
        assert pid is not None, "nats-server has ended"
        return {"nats-server": (pid,)}


def _each(before: dict[str, float], after: dict[str, float], count: int) -> dict[str, float]:
    return {role: (after[role] - before[role]) / count * 1e6 for role in after}
