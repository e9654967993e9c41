"""Measure the operator's data path on a real API server: `python -m benchmarks.cluster` (about five minutes).

Declared tasks, from their making to Queued, beside the same client making the same objects and writing one
bare status each; then their way through a worker; then 20,000 of them at once. Needs the programs that
`make e2e/build` makes.
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

from e2e.api.scene import Scene, a_task
from galley_local.nats_server import NatsServer
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import TASKS
from testcluster.bare import BareCluster
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl

RESULTS = Path(__file__).parent / "cluster.json"
CRDS = Path(__file__).parent.parent / "crds"
AT_ONCE = 16
"""Requests of the client under way at once; more only wait in the API server."""

BARE_STATUS = {
    "observedGeneration": 1,
    "phase": "Queued",
    "queuedTime": "2026-01-01T00:00:00Z",
    "conditions": [
        {
            "type": "Succeeded",
            "status": "Unknown",
            "reason": "Queued",
            "message": "waits for a free worker",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
}


class Plan(NamedTuple):
    """How much is measured."""

    tasks: int
    rounds: int
    active: int


FULL = Plan(tasks=3000, rounds=5, active=20_000)
QUICK = Plan(tasks=200, rounds=1, active=1000)


class Stage:
    """One API server, one NATS, and a client."""

    def __init__(self, api: ApiServer, server: str, client: Cluster, folder: Path) -> None:
        self.api, self.server, self.client, self.folder = api, server, client, folder

    def scene(self) -> Scene:
        """Return a namespace of its own, with a folder for the logs of what runs there."""
        namespace = f"b{secrets.token_hex(4)}"
        self.api.kubectl("create", "namespace", namespace)
        folder = self.folder / namespace
        folder.mkdir()
        return Scene(self.api, self.server, namespace, folder)

    async def create(self, scene: Scene, count: int, *, patch: bool = False) -> None:
        """Make so many Tasks, and write a bare status into each if `patch`."""
        numbers = iter(range(count))

        async def one_after_the_other() -> None:
            for number in numbers:
                body = a_task(f"t{number:05}", input={"value": number})
                body["metadata"]["namespace"] = scene.namespace
                made = await self.client.create(TASKS, body)
                if patch:
                    metadata = made["metadata"]
                    await self.client.replace_status(
                        TASKS, scene.namespace, metadata["name"], metadata["resourceVersion"], BARE_STATUS
                    )

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(one_after_the_other())

    async def none_but(self, scene: Scene, *phases: str, within: float) -> None:
        """Return once all Tasks of a namespace are in one of these phases."""
        others = ",".join(f"status.phase!={phase}" for phase in phases)

        async def none() -> bool:
            async for page in self.client.pages(TASKS, scene.namespace, fields=others, limit=1):
                return not page
            return True

        await eventually(none, within=within, why=f"all {' or '.join(phases)}")


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """Start all that does not belong to Galley's operator."""
    cluster = BareCluster(folder / "cluster", control_plane_only=True, audit=True)
    nats = NatsServer(folder / "nats", max_store_bytes=1024**4)
    cluster.up()
    try:
        await nats.start()
        kubectl = Kubectl(cluster)
        kubectl("apply", "--server-side", "-f", str(CRDS))
        kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
        async with Cluster(load_config(cluster.kubeconfig)) as client:
            yield Stage(ApiServer(cluster, kubectl), nats.url, client, folder)
    finally:
        nats.kill()
        cluster.down()


async def bare(stage: Stage, plan: Plan) -> float:
    """Return the seconds that bare creates with one bare status each take."""
    scene = stage.scene()
    began = time.monotonic()
    await stage.create(scene, plan.tasks, patch=True)
    return time.monotonic() - began


async def burst(stage: Stage, plan: Plan) -> dict[str, float]:
    """Return what it takes to have as many Tasks Queued."""
    scene = stage.scene()
    await scene.queue()
    with scene.data_path() as path:
        await eventually(lambda: path.ready, within=60)
        before, _ = path.cost()
        began = time.monotonic()
        await stage.create(scene, plan.tasks)
        created = time.monotonic() - began
        await stage.none_but(scene, "Queued", within=300)
        return {
            "created_seconds": created,
            "queued_seconds": time.monotonic() - began,
            "queued_cpu_ms": (path.cost()[0] - before) / plan.tasks * 1000,
        }


async def life(stage: Stage, plan: Plan) -> dict[str, float]:
    """Return what as many Tasks cost that are first Queued, all of them, and then done by a worker."""
    scene = stage.scene()
    queue = await scene.queue()
    with scene.data_path() as path:
        await eventually(lambda: path.ready, within=60)
        before, _ = path.cost()
        await stage.create(scene, plan.tasks)
        await stage.none_but(scene, "Queued", within=300)
        with scene.workers(queue):
            await stage.none_but(scene, "Succeeded", within=300)
        done, _ = path.cost()
    writes = scene.status_writes()
    assert len(writes) == plan.tasks
    return {
        "cpu_ms": (done - before) / plan.tasks * 1000,
        "writes": sum(writes.values()) / plan.tasks,
        "most_writes": max(writes.values()),
    }


async def many(stage: Stage, plan: Plan) -> dict[str, float]:
    """Return what it takes to know very many Tasks that wait."""
    scene = stage.scene()
    await scene.queue(limits={"backlog": 10 * plan.active})
    with scene.data_path() as path:
        await eventually(lambda: path.ready, within=60)
        await stage.create(scene, plan.active)
        await stage.none_but(scene, "Queued", within=600)
        _, resident = path.cost()
        path.kill()
        began = time.monotonic()
        path.restart()
        await eventually(lambda: path.ready, within=60)
        seen = time.monotonic() - began
        scene.apply(a_task("new"))
        await stage.none_but(scene, "Queued", within=60)
        return {
            "rss_mb": resident / 1e6,
            "restart_seen_seconds": seen,
            "restart_queued_seconds": time.monotonic() - began,
            "restart_rss_mb": path.cost()[1] / 1e6,
        }


async def measure(plan: Plan, console: Console) -> dict[str, Any]:
    """Measure all there is."""
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder:
        async with staged(Path(folder)) as stage:
            await bare(stage, QUICK)
            bare_seconds, runs = [await bare(stage, plan)], []
            for number in range(plan.rounds):
                console.print(f"round {number + 1} of {plan.rounds}", style="dim")
                runs.append(await burst(stage, plan))
                bare_seconds.append(await bare(stage, plan))
            console.print("a whole life", style="dim")
            lives = await life(stage, plan)
            console.print(f"{plan.active} active tasks", style="dim")
            crowd = await many(stage, plan)
    # Each burst stands between two bare runs, so that a busy moment of the machine hits both sides.
    beside = [(before + after) / 2 for before, after in pairwise(bare_seconds)]
    ratios = [run["queued_seconds"] / seconds for run, seconds in zip(runs, beside, strict=True)]
    return {
        "ratio": [round(ratio, 3) for ratio in ratios],
        "bare_seconds": [round(seconds, 2) for seconds in bare_seconds],
        "bursts": [_rounded(run) for run in runs],
        "life": _rounded(lives),
        "active": {"tasks": plan.active, **_rounded(crowd)},
    }


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in figures.items()}


def show(figures: dict[str, Any], plan: Plan, console: Console) -> bool:
    """Print the figures with their aims; returns whether all aims are met."""
    runs, lives = figures["bursts"], figures["life"]
    lines = [
        ("queued / bare create and status", median(figures["ratio"]), 1.2, ""),
        ("operator CPU until queued", median(run["queued_cpu_ms"] for run in runs), 0.5, "ms a task"),
        ("operator CPU, whole life", lives["cpu_ms"], None, "ms a task"),
        ("status writes, most of one task", lives["most_writes"], 2, ""),
        (f"memory, {plan.active} active tasks", figures["active"]["rss_mb"], 120, "MB"),
        ("new task queued after a restart", figures["active"]["restart_queued_seconds"], None, "s"),
    ]
    table = Table("figure", "measured", "aim", "", title=f"{plan.tasks} declared tasks, {plan.rounds} rounds")
    for name, value, aim, unit in lines:
        told = "" if aim is None else f"<= {aim:g} {'' if value <= aim else 'MISSED'}"
        table.add_row(name, f"{value:.2f}", told, unit)
    console.print(table)
    return all(aim is None or value <= aim for _, value, aim, _ in lines)


def main() -> int:
    """Measure, print the table, write the JSON; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half a minute, for a look whether it runs")
    parser.add_argument("--output", type=Path, help="the JSON file (default: benchmarks/cluster.json; no file"
                        " if --quick)")  # fmt: skip
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    console = Console(width=None if sys.stdout.isatty() else 140)
    about = {
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": os.getloadavg(),
        "plan": plan._asdict(),
    }
    figures = asyncio.run(measure(plan, console))
    met = show(figures, plan, console)
    output = options.output or (None if options.quick else RESULTS)
    if output is not None:
        document = {**about, "load_after": os.getloadavg(), **figures}
        output.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
