"""Each alert is provoked by what it is about: `make alerts` prints which fired.

A real operator, API server, broker, workers and Prometheus; of the chart's rules, times alone are shortened.
"""

import asyncio
import re
import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.api.operator_process import OperatorProcess
from e2e.api.scene import Scene, a_task
from e2e.api.test_monitoring import RULES, Prometheus, watching
from galley import AsyncClient, call
from galley_local.nats_server import NatsServer
from tests.support.api_server import ApiServer
from tests.support.eventually import eventually
from tests.support.port import free_port

pytestmark = pytest.mark.timeout(900)

DAYS: Final = 86_400


def shortened(folder: Path) -> Path:
    """Write the rules with times of seconds."""
    text = RULES.read_text("utf-8")
    text = re.sub(r"for: \d+[mh]", "for: 2s", text)
    text = re.sub(r"\[(5|10|15)m\]", "[1m]", text).replace("30m", "5m").replace("> 900", "> 5")
    file = folder / "rules.yaml"
    file.write_text(text, "utf-8")
    return file


class Drill:
    """What was seen to fire."""

    def __init__(self, seen: Prometheus) -> None:
        self._seen = seen
        self.fired: dict[str, str] = {}

    def _fires(self, alert: str) -> bool:
        return alert in self._seen.firing()

    async def until(self, why: str, *alerts: str, within: float = 90) -> None:
        """Wait until alerts fire, and note by what."""
        for alert in alerts:
            await eventually(partial(self._fires, alert), within=within, why=f"{alert}: {why}")
            self.fired.setdefault(alert, why)
            print(f"{alert:28} {why}", flush=True)  # noqa: T201 - what the drill is for


async def test_alerts_fire(galley_api: ApiServer, api_namespace: str, tmp_path: Path) -> None:
    nats = NatsServer(tmp_path / "nats", max_store_bytes=8 * 1024**3)
    await nats.start()
    scene = Scene(galley_api, nats.url, api_namespace, tmp_path)
    port = free_port()
    running: list[OperatorProcess] = []

    def start(**more: Any) -> OperatorProcess:
        settings = {
            "namespaces": api_namespace, "install": "galley", "lease_namespace": api_namespace,
            "sweep_seconds": 2,
            "health_port": port, "broker_storage_bytes": 8 * 1024**3, **more,
        }  # fmt: skip
        name = f"operator-{len(running)}"
        made = OperatorProcess(galley_api.kubeconfig, nats.url, tmp_path, name, **settings)
        made.port = port
        running.append(made)
        return made

    async with AsyncExitStack() as parts:
        parts.callback(_kill, running)
        parts.callback(nats.kill)
        seen = parts.enter_context(watching(tmp_path, port, rules=shortened(tmp_path)))
        drill = Drill(seen)
        await drill.until("no operator has started", "GalleyNoLeader")
        first = start()
        await eventually(lambda: first.leads, within=60)
        queue = await scene.queue(retry={"attempts": 1}, worker={"modules": ["drills"], "concurrency": 4})
        await scene.queue("small", limits={"backlog": 20})
        wrong = {"template": {"serviceAccountName": "missing"}, "modules": ["drills"]}
        await scene.queue("wrong", worker=wrong)
        client = await parts.enter_async_context(AsyncClient(nats.url, api_namespace))
        await client.submit_many(call("small", "echo", value=number) for number in range(20))
        await drill.until("20 tasks of a backlog of 20", "GalleyLimitNearlyReached")
        await drill.until("there are no nodes for pods", "GalleyWorkersMissing", "GalleyTasksWait")
        await drill.until("its ServiceAccount does not exist", "GalleyQueueNotReady")
        with scene.workers(queue, "w1") as [worker]:
            handles = await client.submit_many(
                call("drills", "fail_for_good", message="no") for _ in range(8)
            )
            await asyncio.gather(*(handle.wait(60) for handle in handles))
            await drill.until("8 of 8 tasks failed", "GalleyDeadLetters", "GalleyTasksFail")
            slow = await client.submit(call("drills", "aecho", value=1, seconds=600))
            await eventually(lambda: _is_running(slow), within=60)
            worker.process.send_signal(signal.SIGSTOP)
            with scene.workers(queue, "w2"):
                await eventually(lambda: _is_running(slow, "w2"), within=120)
                worker.process.send_signal(signal.SIGCONT)
                await drill.until("a worker was frozen for longer than its lease", "GalleyLeasesLost")
                await slow.cancel()
        running[-1].kill()
        bug = start(module="e2e.api.operator_with_a_bug")
        await eventually(lambda: bug.leads, within=90)
        scene.apply(a_task("one"))
        await drill.until("the operator has a bug", "GalleyUnexpectedErrors")
        running[-1].kill()
        short = start(server_secret="nats-server", server_hosts="localhost", certificate_seconds=12 * DAYS)
        await eventually(lambda: short.leads, within=90)
        await drill.until("a certificate of 12 days", "GalleyCertificateExpires")
        for _ in range(3):
            running[-1].kill()
            again = start()
            await eventually(partial(_leads, again), within=90)
        await drill.until("it was killed three times", "GalleyOperatorRestarts")
        running[-1].kill()
        full = start(broker_storage_bytes=16 * 1024)
        await eventually(lambda: full.leads, within=90)
        await drill.until("the disk has 16 KiB", "GalleyStorageReserved", "GalleyStorageNearlyFull")
        nats.kill()
        await drill.until("NATS was killed", "GalleyBrokerUnreachable", "GalleyScalingHeld")
        scene.queue_only("late")
        await drill.until("a queue is made while NATS is away", "GalleyReconcileErrors")
        # That NATS is away is expected.
        assert "unexpected_errors_total{" not in running[-1].page("metrics")[1]
    names = set(re.findall(r"alert: (\w+)", RULES.read_text("utf-8")))
    assert set(drill.fired) == names


def _kill(running: list[OperatorProcess]) -> None:
    for each in running:
        each.kill()


def _leads(process: OperatorProcess) -> bool:
    return process.leads


async def _is_running(handle: Any, worker: str = "") -> bool:
    status = await handle.status()
    return status.phase.value == "Running" and worker in (status.worker or "")
